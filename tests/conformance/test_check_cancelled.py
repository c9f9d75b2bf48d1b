"""check_cancelled: how a running call hears that nobody wants it any longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType

import pytest
import trio
import trio.testing

NOT_CREATED = "this thread wasn't created by .*, can't check for cancellation"


async def cancel_when(begun: trio.Event, scope: trio.CancelScope, then: Callable[[], None]) -> None:
    await begun.wait()
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    then()


def cancel_host(library: ModuleType, scope: trio.CancelScope) -> None:
    """Cancel the call that the current thread runs."""
    library.from_thread.run_sync(scope.cancel)
    # Its task hears of that as soon as it waits again, which it does before the next function.
    library.from_thread.run_sync(int)


@pytest.mark.parametrize("abandon_on_cancel", [False, True])
async def test_before_a_cancellation_it_does_nothing(
    library: ModuleType, abandon_on_cancel: bool
) -> None:
    def in_thread() -> str:
        assert library.from_thread.check_cancelled() is None
        return "not cancelled"

    result = await library.to_thread.run_sync(in_thread, abandon_on_cancel=abandon_on_cancel)
    assert result == "not cancelled"


async def test_after_a_cancellation_it_raises_and_the_scope_catches_it(
    library: ModuleType,
) -> None:
    begun, cancelled = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def in_thread() -> None:
        token.run_sync_soon(begun.set)
        cancelled.wait(10)
        library.from_thread.check_cancelled()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, begun, scope, cancelled.set)
            await library.to_thread.run_sync(in_thread)
    assert scope.cancelled_caught


async def test_an_abandoned_call_hears_of_it_too(library: ModuleType) -> None:
    begun, cancelled = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    raised: list[BaseException] = []
    ended = trio.Event()

    def in_thread() -> None:
        token.run_sync_soon(begun.set)
        cancelled.wait(10)
        try:
            library.from_thread.check_cancelled()
        except BaseException as error:
            raised.append(error)
        finally:
            token.run_sync_soon(ended.set)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: library.to_thread.run_sync(in_thread, abandon_on_cancel=True)
            )
            await begun.wait()
            scope.cancel()
    assert scope.cancelled_caught
    cancelled.set()
    await ended.wait()
    assert [type(error) for error in raised] == [trio.Cancelled]


async def test_it_raises_each_time_and_the_call_may_go_on_all_the_same(
    library: ModuleType,
) -> None:
    def in_thread() -> str:
        cancel_host(library, scope)
        for _ in range(3):
            with pytest.raises(trio.Cancelled):
                library.from_thread.check_cancelled()
        return "kept"

    with trio.CancelScope() as scope:
        assert await library.to_thread.run_sync(in_thread) == "kept"
    assert not scope.cancelled_caught


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_what_it_raises_is_caught_by_the_scope_that_was_cancelled(
    library: ModuleType, level: int
) -> None:
    def in_thread() -> None:
        cancel_host(library, scopes[level])
        library.from_thread.check_cancelled()

    scopes = [trio.CancelScope() for _ in range(3)]
    with scopes[0], scopes[1], scopes[2]:
        await library.to_thread.run_sync(in_thread)
    assert [scope.cancelled_caught for scope in scopes] == [number == level for number in range(3)]


async def test_a_cancellation_that_a_shield_keeps_off_is_none(library: ModuleType) -> None:
    def in_thread() -> str:
        cancel_host(library, scope)
        library.from_thread.check_cancelled()
        return "done"

    with trio.CancelScope() as scope, trio.CancelScope(shield=True):
        assert await library.to_thread.run_sync(in_thread) == "done"


async def test_the_next_call_of_a_cancelled_task_hears_nothing_of_the_last(
    library: ModuleType,
) -> None:
    def cancelled() -> None:
        cancel_host(library, scope)
        library.from_thread.check_cancelled()

    for _ in range(10):
        with trio.CancelScope() as scope:
            await library.to_thread.run_sync(cancelled)
        assert scope.cancelled_caught
        await library.to_thread.run_sync(library.from_thread.check_cancelled)


# ---- Where it is refused -------------------------------------------------------------------------


def test_outside_trio_it_is_refused(library: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=NOT_CREATED):
        library.from_thread.check_cancelled()


async def test_in_the_trio_thread_it_is_refused(library: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=NOT_CREATED):
        library.from_thread.check_cancelled()


async def test_in_a_function_that_a_thread_runs_in_trio_it_is_refused(
    library: ModuleType,
) -> None:
    def in_thread() -> None:
        with pytest.raises(RuntimeError, match=NOT_CREATED):
            library.from_thread.run_sync(library.from_thread.check_cancelled)

    await library.to_thread.run_sync(in_thread)


async def test_in_a_thread_that_a_call_starts_it_is_refused(library: ModuleType) -> None:
    errors = []

    def check() -> None:
        with pytest.raises(RuntimeError, match=NOT_CREATED) as raised:
            library.from_thread.check_cancelled()
        errors.append(raised.value)

    def in_thread() -> None:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join()

    await library.to_thread.run_sync(in_thread)
    assert len(errors) == 1
