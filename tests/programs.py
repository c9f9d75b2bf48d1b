"""The programs in examples/, started as a user starts them."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from child import without_saturation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

    import dromon

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

    At the end of the block it is interrupted, as by Ctrl-C. It then has to end quietly and well,
    but may have warned that it had much to do.
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
            stdout, stderr = process.communicate(timeout=60)
            assert (process.returncode, stdout, without_saturation(stderr)) == (0, "", "")
        finally:
            process.kill()


def load_example(path: str) -> ModuleType:
    """Import a program from examples/, and what it imports from its own folder."""
    file = EXAMPLES / path
    sys.path.insert(0, str(file.parent))
    try:
        return importlib.import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))


@asynccontextmanager
async def held_worker(pool: dromon.Pool) -> AsyncIterator[Callable[[], None]]:
    """Keep the only worker of a pool busy: until the block calls what it gets, or ends."""
    begun, go_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold() -> None:
        token.run_sync_soon(begun.set)
        go_on.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, hold)
        await begun.wait()
        try:
            yield go_on.set
        finally:
            go_on.set()
