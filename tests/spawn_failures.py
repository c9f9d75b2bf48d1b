"""For children of test_spawn_failures.py: opening pools that cannot open, and what that leaves."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def leaving_nothing(*, for_good: bool = False) -> AsyncIterator[None]:
    """Check that the body leaves nothing and, unless it fails for good, the next pool opens."""
    await _use_a_pool()  # what is made once and kept, by us and by libc, is there now
    threads, descriptors, mappings = _held()
    yield
    with trio.fail_after(30):  # a thread that has ended may be listed a moment longer
        while _held()[0] > threads:
            await trio.lowlevel.checkpoint()
    assert _held()[1] == descriptors
    # libc may map arenas for the many threads that were there at once.
    assert _held()[2] <= mappings + 16, (mappings, _held()[2])
    if not for_good:
        await _use_a_pool()
        print("and works again")


async def fail(workers: int, times: int = 20) -> None:
    """Try to open a pool, again and again, and say how it fails."""
    errors = set()
    for _ in range(times):
        try:
            async with dromon.open_pool(workers):
                errors.add("none")
        except dromon.SpawnError as error:
            errors.add(f"{errno.errorcode[error.errno or 0]}: {error.strerror}")
    print(*sorted(errors), sep="\n")


async def _use_a_pool() -> None:
    async with dromon.open_pool(2) as pool:
        assert await pool.run_sync(int, "7") == 7


def _held() -> tuple[int, int, int]:
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), maps.count("\n")
