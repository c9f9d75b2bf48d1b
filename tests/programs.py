"""The programs in examples/, started as a user starts them."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run_program(
    program: Path, *arguments: str | Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, program, *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )
    assert result.returncode == status, result.stderr
    return result


@contextmanager
def started_server(program: Path, *arguments: str) -> Iterator[str]:
    """Start a server and wait until it says where it listens, which is what the block gets.

    At the end of the block it is interrupted, as by Ctrl-C. It then has to end quietly and well.
    """
    with subprocess.Popen(
        # Resources that are not closed, and what is deprecated, would show on stderr.
        [sys.executable, "-X", "dev", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("listening on "), process.communicate(timeout=60)
            yield first.removeprefix("listening on ").strip()
            process.send_signal(signal.SIGINT)
            printed = process.communicate(timeout=60)
            assert (process.returncode, *printed) == (0, "", "")
        finally:
            process.kill()


def load_example(path: str) -> ModuleType:
    """Import a program from examples/."""
    file = EXAMPLES / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
