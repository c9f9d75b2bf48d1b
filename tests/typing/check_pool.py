"""What type checkers are to know of pools; see check_to_thread."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future
from typing import assert_type

import trio

import dromon


def no_arguments() -> bytes:
    raise NotImplementedError


def two_arguments(first: int, second: str) -> float:
    raise NotImplementedError


def opening_and_closing() -> None:
    with dromon.Pool() as pool:
        assert_type(pool, dromon.Pool)
    pool = dromon.Pool(2, name="name", initializer=no_arguments, nice=5, queue_capacity=None)
    assert_type(pool.close(), None)
    dromon.configure_default_pool(workers=2, stack_size=2**20, guard_size=0)

    dromon.Pool("2")  # type: ignore[arg-type]
    dromon.Pool(2, "name")  # type: ignore[call-arg]
    dromon.Pool(name=2)  # type: ignore[arg-type]
    dromon.Pool(initializer=two_arguments)  # type: ignore[arg-type]
    dromon.Pool(worker=2)  # type: ignore[call-arg]
    dromon.configure_default_pool(nice="5")  # type: ignore[arg-type]


async def opening_in_a_task() -> None:
    async with dromon.open_pool() as pool:
        assert_type(pool, dromon.Pool)
    async with dromon.open_pool(2, affinity=[0, {0, 1}], on_stall=print, stall_after=1):
        pass
    dromon.open_pool("2")  # type: ignore[arg-type]
    dromon.open_pool(worker=2)  # type: ignore[call-arg]


async def calls(pool: dromon.Pool) -> None:
    assert_type(await pool.run_sync(no_arguments), bytes)
    assert_type(await pool.run_sync(two_arguments, 1, "2", abandon_on_cancel=True), float)
    assert_type(await pool.run_sync(int, "7", limiter=trio.CapacityLimiter(1)), int)
    await pool.run_sync(two_arguments, "1", "2")  # type: ignore[arg-type]
    await pool.run_sync(no_arguments, limiter=1)  # type: ignore[arg-type]


async def native_calls(pool: dromon.Pool) -> None:
    function = ctypes.CDLL(None).getpid
    assert_type(await pool.run_native(function), int)
    assert_type(await pool.run_native(function, bytearray(8), abandon_on_cancel=True), int)
    await pool.run_native()  # type: ignore[call-arg]
    await pool.run_native(function, None, False)  # type: ignore[call-arg]


def futures(pool: dromon.Pool) -> None:
    for submit in (pool.submit, pool.submit_nowait):
        submit(no_arguments)
    assert_type(pool.submit(no_arguments), Future[bytes])
    assert_type(pool.submit(two_arguments, 1, "2"), Future[float])
    assert_type(pool.submit_nowait(two_arguments, 1, "2"), Future[float])
    assert_type(pool.submit(two_arguments, 1, "2").result(), float)
    pool.submit(two_arguments, 1)  # type: ignore[arg-type]
    pool.submit_nowait(two_arguments, "1", "2")  # type: ignore[arg-type]


def looking(pool: dromon.Pool) -> None:
    statistics = pool.statistics()
    assert_type(statistics, dromon.PoolStatistics)
    assert_type(statistics.workers, tuple[dromon.WorkerStatistics, ...])
    assert_type(statistics.queued, int)


def errors(
    error: dromon.SpawnError, full: dromon.QueueFull, closed: dromon.ClosedPoolError
) -> None:
    assert_type(error.errno, int | None)
    would_block: trio.WouldBlock = full
    resource: trio.ClosedResourceError = closed
    print(would_block, resource)


def building() -> None:
    assert_type(dromon.get_include(), str)
    assert_type(dromon.get_library(), str)
