"""What instruction_counts.py counts: each work is done so many times, and then twice as many.

It runs under callgrind, which writes a file for each of the two. What makes counts vary is kept
away: there is one worker, and one processor, so that nobody searches while it waits; the clock does
not depend on how fast anything runs (counting.c); and no garbage is collected, which would depend
on what else is in memory.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any

del os.environ["LD_PRELOAD"]  # that clock is not for those whom this process starts
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import trio  # noqa: E402

import dromon  # noqa: E402
from dromon import green  # noqa: E402

counting, core = map(ctypes.PyDLL, sys.argv[1:])


def nothing(*_: object) -> None:
    """What is called."""


# ---- In trio -------------------------------------------------------------------------------------

Call = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


async def call(run_sync: Call, times: int) -> None:
    for _ in range(times):
        await run_sync(nothing)


async def call_concurrently(run_sync: Call, times: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call, run_sync, times // 100)


async def map_items(pool: dromon.Pool, times: int) -> None:
    async with pool.open_map(nothing, range(times)) as results:
        async for _ in results:
            pass


async def map_chunks(pool: dromon.Pool, times: int) -> None:
    """Of one item, one at a time: each costs as much as one of many items does beside these."""
    async with pool.open_map(nothing, range(times), chunksize=1, max_in_flight=1) as results:
        async for _ in results:
            pass


# ---- Without trio --------------------------------------------------------------------------------


def submit(executor: dromon.Executor, times: int) -> None:
    for _ in range(times):
        executor.submit(nothing).result()


def spawn_and_join(times: int) -> None:
    with green.open_scope() as scope:
        for _ in range(times):
            scope.spawn(nothing).result()


def park_in_turn(times: int) -> None:
    def park() -> None:
        for _ in range(times // 2):
            green.checkpoint()

    with green.open_scope() as scope:
        scope.spawn(park)
        scope.spawn(park)


# ---- Counting ------------------------------------------------------------------------------------

# For each name what does so many of it, and how many these are at first.
Works = dict[str, tuple[Callable[[int], object], int]]


def in_trio(afn: Callable[..., Coroutine[Any, Any, None]], on: object) -> Callable[[int], None]:
    return lambda times: trio.run(afn, on, times)


def works_on(pool: dromon.Pool, run_sync: Call, prefix: str = "") -> Works:
    return {
        f"{prefix}call": (in_trio(call, run_sync), 100),
        f"{prefix}map's item": (in_trio(map_items, pool), 8192),
        f"{prefix}map's chunk": (in_trio(map_chunks, pool), 200),
    }


def works_of(executor: dromon.Executor) -> Works:
    return {
        "executor's task": (partial(submit, executor), 100),
        "green spawn and join": (
            lambda times: executor.submit(spawn_and_join, times).result(),
            500,
        ),
        "green park and resume": (lambda times: executor.submit(park_in_turn, times).result(), 500),
    }


# Not isolated ones: they run beside the loop, and the processor's turns decide how often it wakes.
CONCURRENT_CALLS: Works = {
    "concurrent call": (in_trio(call_concurrently, dromon.to_thread.run_sync), 500),
}

WORKS_OF_CORE: Works = {
    "ring push and pop": (core.use_ring, 10_000),
    "deque push and pop": (core.use_deque, 10_000),
    "native task": (core.run_native_tasks, 2000),
}


def count(works: Works) -> None:
    for work, times in works.values():
        work(times)  # what is done only once is done now
    gc.disable()
    counting.start_counting()
    for name, (work, times) in works.items():
        for each in (times, 2 * times):
            counting.forget_counts()
            work(each)
            counting.write_counts(f"{name}/{each}".encode())


def main() -> None:
    with ExitStack() as pools:
        threads = pools.enter_context(dromon.Pool(1))
        executor = pools.enter_context(dromon.Executor(1))
        works = works_on(threads, dromon.to_thread.run_sync) | CONCURRENT_CALLS
        works |= works_of(executor) | WORKS_OF_CORE
        if sys.version_info >= (3, 12):
            isolated = pools.enter_context(dromon.Pool(1, isolation="interpreter"))
            works |= works_on(isolated, isolated.run_sync, "isolated ")
        count(works)


main()
