"""Threads that go back to trio, which makes calls in other threads, and so on."""

from __future__ import annotations

import threading
from types import ModuleType

import pytest
import trio


async def test_a_function_that_a_thread_runs_in_trio_may_make_calls(library: ModuleType) -> None:
    async def call() -> int:
        number: int = await library.to_thread.run_sync(threading.get_ident)
        return number

    def in_thread() -> tuple[int, int]:
        return threading.get_ident(), library.from_thread.run(call)

    outer, inner = await library.to_thread.run_sync(in_thread)
    # On a worker of dromon's that has parked it may be the same thread.
    assert threading.get_ident() not in (outer, inner)
    assert outer != inner or library is not trio


async def test_each_of_several_nested_calls_goes_back_to_its_own_task(
    library: ModuleType,
) -> None:
    tasks = []

    async def in_trio(depth: int) -> None:
        tasks.append(trio.lowlevel.current_task())
        if depth > 0:
            await library.to_thread.run_sync(in_thread, depth - 1)

    async def in_new_task(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_trio, depth)

    def in_thread(depth: int) -> None:
        library.from_thread.run(in_new_task, depth)
        tasks.append(library.from_thread.run_sync(trio.lowlevel.current_task))

    await in_trio(3)
    assert len(tasks) == 7
    assert tasks[:4] == tasks[:2:-1]  # inner ones end first
    assert len(set(tasks)) == 4


async def test_a_call_of_the_host_task_inside_a_call_may_go_back_too(library: ModuleType) -> None:
    """The same task waits for two threads: for the second on behalf of the first."""

    async def call() -> list[trio.lowlevel.Task]:
        return [await library.to_thread.run_sync(inner), trio.lowlevel.current_task()]

    def inner() -> trio.lowlevel.Task:
        task: trio.lowlevel.Task = library.from_thread.run_sync(trio.lowlevel.current_task)
        return task

    def outer() -> list[trio.lowlevel.Task]:
        return [*library.from_thread.run(call), inner()]

    assert await library.to_thread.run_sync(outer) == [trio.lowlevel.current_task()] * 3


async def test_an_exception_crosses_every_thread_on_its_way(library: ModuleType) -> None:
    async def in_trio(depth: int) -> None:
        if depth == 0:
            raise LookupError("from the depth")
        await library.to_thread.run_sync(in_thread, depth - 1)

    def in_thread(depth: int) -> None:
        library.from_thread.run(in_trio, depth)

    with pytest.raises(LookupError, match="from the depth"):
        await in_trio(3)


async def test_a_cancellation_reaches_the_innermost_function_and_every_thread_on_its_way(
    library: ModuleType,
) -> None:
    crossed = []

    async def in_trio(depth: int) -> None:
        if depth == 0:
            scope.cancel()
            await trio.sleep_forever()
        await library.to_thread.run_sync(in_thread, depth - 1)

    def in_thread(depth: int) -> None:
        try:
            library.from_thread.run(in_trio, depth)
        except trio.Cancelled:
            crossed.append(depth)
            raise

    with trio.CancelScope() as scope:
        await in_trio(3)
    assert scope.cancelled_caught
    assert crossed == [0, 1, 2]


async def test_the_innermost_call_hears_of_the_cancellation_of_the_outermost_task(
    library: ModuleType,
) -> None:
    async def call() -> None:
        await library.to_thread.run_sync(inner)

    def inner() -> None:
        library.from_thread.run_sync(scope.cancel)
        library.from_thread.run_sync(int)
        library.from_thread.check_cancelled()

    def outer() -> None:
        library.from_thread.run(call)

    with trio.CancelScope() as scope:
        await library.to_thread.run_sync(outer)
    assert scope.cancelled_caught


async def test_threads_of_several_tasks_enter_trio_at_once(library: ModuleType) -> None:
    results = {}

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    def in_thread(number: int) -> int:
        total = 0
        for _ in range(20):
            total += library.from_thread.run(double, number)
        return total

    async def call(number: int) -> None:
        results[number] = await library.to_thread.run_sync(in_thread, number)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(call, number)
    assert results == {number: 40 * number for number in range(30)}


async def test_a_call_may_be_a_trio_run_of_its_own(library: ModuleType) -> None:
    outer_task = trio.lowlevel.current_task()

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def inner_main() -> int:
        task = trio.lowlevel.current_task()
        assert task is not outer_task

        def in_thread() -> int:
            assert library.from_thread.run_sync(trio.lowlevel.current_task) is task
            number: int = library.from_thread.run(double, 21)
            return number

        number: int = await library.to_thread.run_sync(in_thread)
        return number

    def run() -> tuple[int, trio.lowlevel.Task]:
        number = trio.run(inner_main)
        return number, library.from_thread.run_sync(trio.lowlevel.current_task)

    assert await library.to_thread.run_sync(run) == (42, outer_task)


@pytest.mark.parametrize("way", ["run", "run_sync"])
async def test_a_trio_run_inside_a_call_may_not_wait_for_the_outer_one(
    library: ModuleType, way: str
) -> None:
    function = trio.lowlevel.checkpoint if way == "run" else int

    async def inner_main() -> None:
        with pytest.raises(RuntimeError, match="this is a blocking function"):
            getattr(library.from_thread, way)(function)

    await library.to_thread.run_sync(trio.run, inner_main)
