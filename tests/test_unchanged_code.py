"""Code that knows nothing of dromon, on a worker of dromon: written for trio, or for anyio.

The tests in `conformance` show that all of `trio.from_thread` is there; here is where it has
nothing to go by, and what of anyio holds. The table in docs/reference.rst says the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
import trio.testing

import dromon

NO_TOKEN = "AnyIO worker thread"


@pytest.fixture
async def pool() -> Any:
    async with dromon.open_pool(workers=2) as pool:
        yield pool


async def current_task() -> trio.lowlevel.Task:
    await trio.lowlevel.checkpoint()
    return trio.lowlevel.current_task()


async def outcome_of(pool: dromon.Pool, function: Callable[[], Any]) -> Any:
    """What a function gives that is submitted by no trio task."""
    return await trio.to_thread.run_sync(pool.submit(function).result)


# ---- trio ----------------------------------------------------------------------------------------


def work_as_for_trio() -> tuple[trio.lowlevel.Task, trio.lowlevel.Task]:
    trio.from_thread.check_cancelled()
    return (
        trio.from_thread.run(current_task),
        trio.from_thread.run_sync(trio.lowlevel.current_task),
    )


async def test_code_written_for_trio_finds_its_task(pool: dromon.Pool) -> None:
    assert await pool.run_sync(work_as_for_trio) == (trio.lowlevel.current_task(),) * 2


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda: trio.from_thread.run(current_task), "trio_token"),
        (lambda: trio.from_thread.run_sync(int), "trio_token"),
        (trio.from_thread.check_cancelled, "can't check for cancellation"),
    ],
    ids=["run", "run_sync", "check_cancelled"],
)
async def test_a_call_that_no_task_waits_for_is_told_so(
    pool: dromon.Pool, function: Callable[[], Any], hint: str
) -> None:
    await pool.run_sync(work_as_for_trio)  # of which nothing may be left
    await pool.run_sync(work_as_for_trio)
    with pytest.raises(RuntimeError, match=f"no call of a trio task.*{hint}"):
        await outcome_of(pool, function)


async def test_a_call_that_no_task_waits_for_may_enter_trio_with_a_token(
    pool: dromon.Pool,
) -> None:
    token = trio.lowlevel.current_trio_token()

    def enter() -> tuple[trio.lowlevel.Task, int]:
        return (
            trio.from_thread.run(current_task, trio_token=token),
            trio.from_thread.run_sync(int, "7", trio_token=token),
        )

    task, number = await outcome_of(pool, enter)
    assert task is not trio.lowlevel.current_task()
    assert number == 7


# ---- anyio, in the worker ------------------------------------------------------------------------


async def add(first: int, second: int) -> int:
    await anyio.lowlevel.checkpoint()
    return first + second


@pytest.mark.parametrize(
    "function",
    [
        lambda: anyio.from_thread.run(add, 1, 2),
        lambda: anyio.from_thread.run_sync(int, "7"),
        anyio.from_thread.check_cancelled,
    ],
    ids=["run", "run_sync", "check_cancelled"],
)
async def test_anyio_does_not_know_a_worker_without_a_token(
    pool: dromon.Pool, function: Callable[[], Any]
) -> None:
    """It has a thread-local mark of its own, which nothing but anyio's own calls can set."""
    with pytest.raises(RuntimeError, match=NO_TOKEN):
        await pool.run_sync(function)


async def test_anyio_enters_trio_with_a_token_in_a_system_task(pool: dromon.Pool) -> None:
    token = anyio.lowlevel.current_token()

    def enter() -> tuple[int, int, trio.lowlevel.Task]:
        return (
            anyio.from_thread.run(add, 1, 2, token=token),
            anyio.from_thread.run_sync(int, "7", token=token),
            anyio.from_thread.run(current_task, token=token),
        )

    *numbers, task = await pool.run_sync(enter)
    assert numbers == [3, 7]
    assert task is not trio.lowlevel.current_task()


async def test_a_portal_of_anyio_can_be_used_in_a_worker(pool: dromon.Pool) -> None:
    async with anyio.from_thread.BlockingPortal() as portal:
        assert await pool.run_sync(portal.call, add, 1, 2) == 3
        future = await pool.run_sync(portal.start_task_soon, add, 3, 4)
        assert await pool.run_sync(future.result) == 7


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_a_worker_may_start_a_portal_of_its_own(pool: dromon.Pool, backend: str) -> None:
    def work() -> int:
        with anyio.from_thread.start_blocking_portal(backend) as portal:
            return portal.call(add, 1, 2)

    assert await pool.run_sync(work) == 3


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_a_worker_may_run_a_loop_of_anyio(pool: dromon.Pool, backend: str) -> None:
    async def main() -> int:
        return await anyio.to_thread.run_sync(anyio.from_thread.run, add, 1, 2)

    assert await pool.run_sync(lambda: anyio.run(main, backend=backend)) == 3


# ---- anyio, in async functions that a worker runs in trio ----------------------------------------


async def test_an_async_function_that_a_worker_runs_may_use_all_of_anyio(
    pool: dromon.Pool,
) -> None:
    host = trio.lowlevel.current_task()

    def in_thread_of_anyio() -> int:
        anyio.from_thread.check_cancelled()
        assert anyio.from_thread.run(current_task) is host
        return anyio.from_thread.run(add, 1, 2)

    async def in_trio() -> int:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add, 1, 2)
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        return await anyio.to_thread.run_sync(in_thread_of_anyio)

    assert await pool.run_sync(dromon.from_thread.run, in_trio) == 3
    assert await pool.run_sync(trio.from_thread.run, in_trio) == 3


async def test_a_scope_of_anyio_cancels_the_async_function_that_a_worker_runs(
    pool: dromon.Pool,
) -> None:
    async def in_trio() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await pool.run_sync(dromon.from_thread.run, in_trio)
    assert scope.cancelled_caught


async def test_a_scope_of_anyio_is_seen_by_check_cancelled_of_trio(pool: dromon.Pool) -> None:
    began, cancelled = trio.Event(), threading.Event()

    def in_thread() -> None:
        dromon.from_thread.run_sync(began.set)
        cancelled.wait(10)
        trio.from_thread.check_cancelled()

    async def cancel() -> None:
        await began.wait()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        cancelled.set()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel)
            await pool.run_sync(in_thread)
    assert scope.cancelled_caught


# ---- A program of anyio that calls dromon --------------------------------------------------------


def test_a_program_of_anyio_on_trio_may_call_dromon() -> None:
    async def main() -> int:
        async with dromon.open_pool(workers=1) as pool:
            return await pool.run_sync(int, "7", limiter=anyio.CapacityLimiter(1))  # type: ignore[arg-type]

    assert anyio.run(main, backend="trio") == 7


def test_a_program_of_anyio_on_asyncio_may_not() -> None:
    async def main() -> None:
        await dromon.to_thread.run_sync(int)

    with pytest.raises(RuntimeError, match="must be awaited in a trio task"):
        anyio.run(main, backend="asyncio")
