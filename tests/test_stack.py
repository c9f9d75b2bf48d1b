"""The stacks of workers: how much of one is used, and what is seen when it overflows."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from child import run_child
from compiler import compile_library, needs_compiler

import dromon

SOURCE = """
/* Each call keeps its frame: what comes after the inner one depends on it. */
unsigned long recurse(unsigned long depth) {
  volatile char frame[1024];
  frame[0] = (char)depth;
  return depth == 0 ? 0 : recurse(depth - 1) + frame[0];
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("recurse"), SOURCE)


@needs_compiler
async def test_statistics_tell_how_much_of_a_stack_was_ever_used(library: Path) -> None:
    recurse = ctypes.CDLL(str(library)).recurse
    async with dromon.open_pool(workers=1) as pool:

        def used() -> int:
            (worker,) = pool.statistics().workers
            return worker.stack_used

        (worker,) = pool.statistics().workers
        before = used()
        assert 0 < before < 1 << 20
        assert before % os.sysconf("SC_PAGESIZE") == 0
        await pool.run_sync(recurse, 3 << 10)  # a kibibyte and more each
        after = used()
        assert 3 << 20 < after < 4 << 20
        await pool.run_sync(recurse, 1)
        assert used() == after
        assert used() < worker.stack_size


OVERFLOW = """
    import ctypes, trio, dromon
    {before}
    recurse = ctypes.CDLL("{library}").recurse

    async def main():
        async with dromon.open_pool(workers=1) as pool:
            (worker,) = pool.statistics().workers
            low, guard = worker.stack_address, worker.guard_size
            print(worker.stack_size, hex(low - guard), hex(low), flush=True)
            await pool.run_sync(recurse, ctypes.c_ulong(-1))

    trio.run(main)
"""


def overflow(library: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    result = run_child(OVERFLOW.format(library=library, before=before))
    assert result.returncode == -signal.SIGSEGV, result.stderr
    return result


def line_of(result: subprocess.CompletedProcess[str]) -> str:
    """The line that is to be on stderr, given what the child said of its worker."""
    size, guard, low = result.stdout.split()
    line = (
        f"dromon: stack overflow in thread dromon-0: its stack has {size} bytes, and ADDRESS lies"
    )
    return f"{line} in its guard page, {guard} to {low}"


@needs_compiler
def test_an_overflow_is_told_with_the_guard_page_before_faulthandlers_report(
    library: Path,
) -> None:
    result = overflow(library)  # the child has faulthandler enabled
    first, *rest = result.stderr.splitlines()
    assert re.sub(r"(?<=and )0x[0-9a-f]+", "ADDRESS", first) == line_of(result)
    assert rest[0] == "Fatal Python error: Segmentation fault"
    assert any(line.startswith("Current thread 0x") for line in rest)
    assert result.stderr.count("Segmentation fault") == 1


@needs_compiler
def test_it_is_told_too_if_faulthandler_is_enabled_between_two_pools(library: Path) -> None:
    before = (
        "import faulthandler; trio.run(dromon.to_thread.run_sync, int);"
        " faulthandler.disable(); faulthandler.enable()"
    )
    result = overflow(library, before)
    first, *rest = result.stderr.splitlines()
    assert first.startswith("dromon: stack overflow in thread dromon-0")
    assert rest[0] == "Fatal Python error: Segmentation fault"
    assert result.stderr.count("dromon: ") == 1
    assert result.stderr.count("Fatal Python error") == 1


@needs_compiler
def test_without_faulthandler_dromon_handles_no_signal(library: Path) -> None:
    result = overflow(library, "import faulthandler; faulthandler.disable()")
    assert result.stderr == ""
