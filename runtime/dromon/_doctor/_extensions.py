"""Which installed extension modules an interpreter with a GIL of its own would load.

That is asked of the modules themselves, in processes of their own, since one that was never meant
for it may crash or hang.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import Distribution

PROBE: Final = Path(__file__).with_name("_probe.py")

# For a process to begin, or for one module to be imported with all that it needs.
SECONDS: Final = 30.0


@attrs.frozen
class Extension:
    """An extension module, and what became of its import.

    Attributes:
      distribution (str): Whose it is, by the name of the distribution.
      module (str): Its full name.
      problem (str | None): Why it does not load; None if it does.
    """

    distribution: str
    module: str
    problem: str | None


@attrs.frozen
class Extensions:
    """What was found.

    Attributes:
      unknown (str | None): Why no module was tried.
      modules (Sequence[Extension]): Each module that was.
    """

    unknown: str | None
    modules: Sequence[Extension]


def examine_extensions() -> Extensions:
    """Try all modules of all installed distributions."""
    if sys.version_info < (3, 12):
        return Extensions("interpreters with a GIL of their own need Python 3.12 or newer", [])
    modules: list[Extension] = []
    try:
        for distribution in distributions():
            if names := extension_modules(distribution):
                modules += try_modules(distribution.name, names)
    except OSError as error:
        return Extensions(f"cannot start a process to try modules in: {error}", [])
    return Extensions(None, sorted(modules, key=lambda each: (each.distribution, each.module)))


def extension_modules(distribution: Distribution) -> list[str]:
    """The names of a distribution's extension modules."""
    names = set()
    for path in distribution.files or ():
        suffix = next((each for each in EXTENSION_SUFFIXES if path.name.endswith(each)), None)
        if suffix is None:
            continue
        parts = [*path.parts[:-1], path.name.removesuffix(suffix)]
        # A shared library may be called as a module is, and lie beside them.
        if all(map(str.isidentifier, parts)) and _initialises(Path(str(path.locate())), parts[-1]):
            names.add(".".join(parts).removesuffix(".__init__"))
    return sorted(names)


def _initialises(path: Path, name: str) -> bool:
    try:
        return b"PyInit_" + name.encode() in path.read_bytes()
    except OSError:
        return False


def try_modules(
    distribution: str, names: Iterable[str], seconds: float = SECONDS
) -> Iterator[Extension]:
    """Import each module in an interpreter with a GIL of its own, all in one if none crashes it."""
    left = list(names)
    while left:
        problems = list(_probe_in_process(left, seconds))
        for name, problem in zip(left, problems, strict=False):
            yield Extension(distribution, name, problem)
        del left[: len(problems)]


def _probe_in_process(names: Sequence[str], seconds: float) -> Iterator[str | None]:
    """Problems, in order: of all modules, or up to and with the first that ends the process."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as reports:
        process = subprocess.Popen(
            [sys.executable, "-P", PROBE, str(writer), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
        )
        os.close(writer)
        done = 0
        try:
            for report in _lines(reports.fileno(), seconds):
                yield json.loads(report)
                done += 1
        except TimeoutError:
            yield f"nothing came of it in {seconds:g} seconds"
            done = len(names)
        finally:
            process.kill()  # unless it has ended by itself
            status = process.wait()
    if done < len(names):
        yield _how_it_ended(status)


def _lines(descriptor: int, seconds: float) -> Iterator[bytes]:
    """Lines from a pipe until its end.

    Raises:
      TimeoutError: Nothing came for that long.
    """
    text = b""
    while True:
        if not select.select([descriptor], [], [], seconds)[0]:
            raise TimeoutError
        if not (more := os.read(descriptor, 65536)):
            return
        *lines, text = (text + more).split(b"\n")
        yield from lines


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"its import ended the process by {signal.Signals(-status).name}"
    return f"its import ended the process with status {status}"
