"""When a call is a checkpoint, and what cancellation does to it."""

from __future__ import annotations

import threading
from types import ModuleType

import pytest
import trio
import trio.testing
from blocked_call import BlockedCall


class Refused:
    """A truth value that cannot be told."""

    def __init__(self) -> None:
        self.asked = 0

    def __bool__(self) -> bool:
        self.asked += 1
        raise ArithmeticError("neither true nor false")


class CountedTruth:
    """A truth value that counts how often it was told."""

    def __init__(self, value: bool) -> None:
        self.value = value
        self.asked = 0

    def __bool__(self) -> bool:
        self.asked += 1
        return self.value


class Limiter:
    """A limiter without limit, that writes down what it was asked."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self.events.append("acquire")

    def release_on_behalf_of(self, borrower: object) -> None:
        self.events.append("release")


# ---- Checkpoints ---------------------------------------------------------------------------------


async def test_a_call_is_a_checkpoint(library: ModuleType) -> None:
    with trio.testing.assert_checkpoints():
        await library.to_thread.run_sync(int)


async def test_a_call_that_raises_is_a_checkpoint(library: ModuleType) -> None:
    with trio.testing.assert_checkpoints(), pytest.raises(ValueError, match="invalid literal"):
        await library.to_thread.run_sync(int, "seven")


async def test_other_tasks_have_their_turn_during_a_call(library: ModuleType) -> None:
    turns = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.testing.wait_all_tasks_blocked)

        async def note() -> None:
            turns.append("other")

        nursery.start_soon(note)
        await library.to_thread.run_sync(int)
        turns.append("call")
    assert turns == ["other", "call"]


@pytest.mark.parametrize("abandon_on_cancel", [False, True])
async def test_a_call_that_is_cancelled_on_entry_never_starts(
    library: ModuleType, abandon_on_cancel: bool
) -> None:
    calls: list[int] = []
    limiter = Limiter()
    with trio.CancelScope() as scope:
        scope.cancel()
        await library.to_thread.run_sync(
            calls.append, 1, abandon_on_cancel=abandon_on_cancel, limiter=limiter
        )
    assert scope.cancelled_caught
    await library.testing.wait_all_threads_completed()
    assert calls == []
    assert limiter.events == []


async def test_a_call_that_is_cancelled_on_entry_asks_for_no_token_of_the_default_limiter(
    library: ModuleType,
) -> None:
    limiter = library.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    limiter.acquire_on_behalf_of_nowait("the test")
    with trio.CancelScope() as scope:
        scope.cancel()
        await library.to_thread.run_sync(int)
    assert scope.cancelled_caught
    limiter.release_on_behalf_of("the test")


async def test_a_shielded_call_is_not_cancelled(library: ModuleType) -> None:
    with trio.CancelScope() as outer:
        outer.cancel()
        with trio.CancelScope(shield=True):
            assert await library.to_thread.run_sync(int, "7", abandon_on_cancel=True) == 7
    assert not outer.cancelled_caught


# ---- abandon_on_cancel ---------------------------------------------------------------------------


async def test_what_the_truth_of_abandon_on_cancel_raises_comes_before_the_limiter(
    library: ModuleType,
) -> None:
    limiter = Limiter()
    calls: list[int] = []
    with pytest.raises(ArithmeticError, match="neither true nor false"):
        await library.to_thread.run_sync(
            calls.append, 1, abandon_on_cancel=Refused(), limiter=limiter
        )
    assert limiter.events == []
    assert calls == []


async def test_cancellation_on_entry_comes_before_the_truth_of_abandon_on_cancel(
    library: ModuleType,
) -> None:
    refused = Refused()
    with trio.CancelScope() as scope:
        scope.cancel()
        await library.to_thread.run_sync(int, abandon_on_cancel=refused)
    assert scope.cancelled_caught
    assert refused.asked == 0


@pytest.mark.parametrize("value", [False, True])
async def test_the_truth_of_abandon_on_cancel_is_told_once(
    library: ModuleType, value: bool
) -> None:
    truth = CountedTruth(value)
    call = BlockedCall()
    result = None
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            nonlocal result
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                result = await library.to_thread.run_sync(call, "late", abandon_on_cancel=truth)

        async def cancel(scope: trio.CancelScope) -> None:
            await call.begun.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            call.release()

        nursery.start_soon(wait)
    await call.ended.wait()
    assert truth.asked == 1
    assert result == (None if value else "late")


async def test_a_running_call_outlasts_its_cancellation(library: ModuleType) -> None:
    call = BlockedCall()
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await call.begun.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not call.ended.is_set()
            call.release()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope:
            assert await library.to_thread.run_sync(call, "kept") == "kept"
            with pytest.raises(trio.Cancelled):
                await trio.lowlevel.checkpoint()
    assert not scope.cancelled_caught


async def test_the_exception_of_a_call_outlasts_its_cancellation(library: ModuleType) -> None:
    call = BlockedCall()

    def fail() -> None:
        raise LookupError(call("kept"))

    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await call.begun.wait()
            scope.cancel()
            call.release()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope, pytest.raises(LookupError, match="kept"):
            await library.to_thread.run_sync(fail)


async def test_an_abandoned_call_goes_on_while_its_task_does(library: ModuleType) -> None:
    call = BlockedCall()
    results: list[str] = []

    def note() -> None:
        results.append(call("done"))

    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await call.begun.wait()
            scope.cancel()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope:
            await library.to_thread.run_sync(note, abandon_on_cancel=True)
    assert scope.cancelled_caught
    assert results == []
    call.release()
    await call.ended.wait()
    assert await library.to_thread.run_sync(int, "7") == 7


async def test_the_exception_of_an_abandoned_call_is_discarded(library: ModuleType) -> None:
    call = BlockedCall()
    limiter = trio.CapacityLimiter(1)

    def fail() -> None:
        raise LookupError(call("nobody wants it"))

    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await call.begun.wait()
            scope.cancel()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope:
            await library.to_thread.run_sync(fail, abandon_on_cancel=True, limiter=limiter)
    assert scope.cancelled_caught
    call.release()
    await limiter.acquire()  # the call has ended, and what it raised would be a warning, an error
    limiter.release()


async def test_a_call_that_ended_before_it_could_be_abandoned_keeps_its_result(
    library: ModuleType,
) -> None:
    with trio.CancelScope() as scope:
        result = await library.to_thread.run_sync(int, "7", abandon_on_cancel=True)
        scope.cancel()
    assert result == 7
    assert not scope.cancelled_caught


async def test_abandoning_raises_at_once_and_not_when_the_call_has_ended(
    library: ModuleType,
) -> None:
    call = BlockedCall()
    thread_ended = threading.Event()

    def run() -> None:
        call(None)
        thread_ended.set()

    with trio.move_on_after(30) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: library.to_thread.run_sync(run, abandon_on_cancel=True))
            await call.begun.wait()
            nursery.cancel_scope.cancel()
        assert not thread_ended.is_set()
    assert not scope.cancelled_caught
    call.release()
    await call.ended.wait()
