"""How many calls run, and waiting until none does: for tests of code that uses threads."""

from __future__ import annotations

from types import ModuleType

import pytest
import trio
import trio.testing
from blocked_call import BlockedCall


async def test_without_calls_there_are_none(library: ModuleType) -> None:
    assert library.testing.active_thread_count() == 0


async def test_running_calls_are_counted(library: ModuleType) -> None:
    counts = []
    async with trio.open_nursery() as nursery:
        calls = [BlockedCall() for _ in range(3)]
        for call in calls:
            nursery.start_soon(library.to_thread.run_sync, call, None)
            await call.begun.wait()
            counts.append(library.testing.active_thread_count())
        for call in calls:
            call.release()
    assert counts == [1, 2, 3]
    assert library.testing.active_thread_count() == 0


async def test_a_call_that_failed_is_not_counted(library: ModuleType) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await library.to_thread.run_sync(int, "seven")
    assert library.testing.active_thread_count() == 0


async def test_a_call_that_waits_for_its_limiter_is_not_counted(library: ModuleType) -> None:
    limiter = trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        call = BlockedCall()
        nursery.start_soon(lambda: library.to_thread.run_sync(call, None, limiter=limiter))
        await call.begun.wait()
        nursery.start_soon(lambda: library.to_thread.run_sync(int, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.statistics().tasks_waiting == 1
        assert library.testing.active_thread_count() == 1
        call.release()


async def test_a_call_is_counted_while_its_task_runs_a_function_for_it(
    library: ModuleType,
) -> None:
    def in_thread() -> int:
        count: int = library.from_thread.run_sync(library.testing.active_thread_count)
        return count

    assert await library.to_thread.run_sync(in_thread) == 1


async def test_a_call_is_no_longer_counted_when_it_is_abandoned(library: ModuleType) -> None:
    async with trio.open_nursery() as nursery:
        call = BlockedCall()
        nursery.start_soon(lambda: library.to_thread.run_sync(call, None, abandon_on_cancel=True))
        await call.begun.wait()
        assert library.testing.active_thread_count() == 1
        nursery.cancel_scope.cancel()
    assert library.testing.active_thread_count() == 0
    await library.testing.wait_all_threads_completed()
    assert not call.ended.is_set()
    call.release()
    await call.ended.wait()


async def test_waiting_for_none_is_a_checkpoint(library: ModuleType) -> None:
    with trio.testing.assert_checkpoints():
        await library.testing.wait_all_threads_completed()
    await library.to_thread.run_sync(int)
    with trio.testing.assert_checkpoints():
        await library.testing.wait_all_threads_completed()


async def test_waiting_ends_when_the_last_call_has_and_its_task_has_gone_on(
    library: ModuleType,
) -> None:
    events = []
    async with trio.open_nursery() as nursery:
        calls = [BlockedCall() for _ in range(2)]

        async def run(call: BlockedCall) -> None:
            await library.to_thread.run_sync(call, None)
            events.append("gone on")

        async def wait() -> None:
            await library.testing.wait_all_threads_completed()
            events.append("completed")

        for call in calls:
            nursery.start_soon(run, call)
            await call.begun.wait()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        calls[0].release()
        await calls[0].ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert "completed" not in events
        calls[1].release()
    assert events == ["gone on", "gone on", "completed"]


async def test_several_tasks_may_wait(library: ModuleType) -> None:
    async with trio.open_nursery() as nursery:
        call = BlockedCall()
        nursery.start_soon(library.to_thread.run_sync, call, None)
        await call.begun.wait()
        for _ in range(3):
            nursery.start_soon(library.testing.wait_all_threads_completed)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 4
        call.release()


async def test_waiting_can_be_cancelled(library: ModuleType) -> None:
    async with trio.open_nursery() as nursery:
        call = BlockedCall()
        nursery.start_soon(library.to_thread.run_sync, call, None)
        await call.begun.wait()
        with trio.CancelScope() as scope:
            nursery.start_soon(trio.testing.wait_all_tasks_blocked)
            scope.cancel()
            await library.testing.wait_all_threads_completed()
        assert scope.cancelled_caught
        call.release()


async def test_calls_can_settle_as_the_documentation_shows(library: ModuleType) -> None:
    """Calls that lead to calls are over when neither tasks nor threads go on."""
    done = []

    async def chain(length: int) -> None:
        for number in range(length):
            done.append(await library.to_thread.run_sync(int, str(number)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chain, 5)
        while True:
            await library.testing.wait_all_threads_completed()
            await trio.testing.wait_all_tasks_blocked()
            if library.testing.active_thread_count() == 0:
                break
    assert done == [0, 1, 2, 3, 4]


async def test_each_run_counts_its_own(library: ModuleType) -> None:
    async def inner_main() -> int:
        await library.testing.wait_all_threads_completed()
        await library.to_thread.run_sync(int)
        count: int = library.testing.active_thread_count()
        return count

    async with trio.open_nursery() as nursery:
        call = BlockedCall()
        nursery.start_soon(library.to_thread.run_sync, call, None)
        await call.begun.wait()
        assert await library.to_thread.run_sync(trio.run, inner_main) == 0
        assert library.testing.active_thread_count() == 1
        call.release()


def test_outside_a_run_there_is_nothing_to_count(library: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="outside of a run"):
        library.testing.active_thread_count()
