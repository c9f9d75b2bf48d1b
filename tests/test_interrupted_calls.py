"""Interrupts: an exception that is raised inside a running call, by cancellation or by time.

What waits for a thread waits for its signal. Time is trio's MockClock, which stands still.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from child import check_child, run_child
from outcome import Error, Outcome, Value, acapture
from trio.testing import MockClock, wait_all_tasks_blocked

import dromon
from dromon import _bridge


class Signal:
    """An event of trio that any thread can set."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> None:
        self._token.run_sync_soon(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()

    def is_set(self) -> bool:
        return self._event.is_set()


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=1) as pool:
        yield pool


@pytest.fixture
async def begun() -> Signal:
    return Signal()


def spin(begun: Signal) -> None:
    """Runs Python code until it is interrupted."""
    begun.set()
    while True:
        pass


class Stubborn:
    """A call that goes on after each interrupt, until it may end."""

    def __init__(self) -> None:
        self.begun = Signal()
        self.interrupted = [Signal() for _ in range(8)]
        self.interrupts = 0
        self.end = threading.Event()

    def __call__(self) -> str:
        signal = self.begun
        while True:
            try:
                self._go_on(signal)
            except dromon.Interrupted:
                signal = self.interrupted[self.interrupts]
                self.interrupts += 1
            else:
                return "ended"

    def _go_on(self, signal: Signal) -> None:
        signal.set()  # here, where the next interrupt may come
        while not self.end.is_set():
            pass


class Cancelled:
    """A call in a task that is to be cancelled, and what came of it."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[object]]) -> None:
        self._call = call
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.outcome: Outcome[object] | None = None
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self._scope:
            self.outcome = await acapture(self._call)  # also a Cancelled: this task ends here
        self._ended.set()

    def cancel(self) -> None:
        self._scope.cancel()

    async def result(self) -> Outcome[object]:
        await self._ended.wait()
        assert self.outcome is not None
        return self.outcome


async def cancel_once_begun(
    begun: Signal, call: Callable[[], Awaitable[object]]
) -> Outcome[object]:
    """What a call ends with that is cancelled when it has begun."""
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, call)
        await begun.wait()
        task.cancel()
        return await task.result()


def error_of(outcome: Outcome[object]) -> BaseException:
    assert isinstance(outcome, Error)
    return outcome.error


# ---- Cancellation --------------------------------------------------------------------------------


async def test_cancellation_ends_a_call_that_would_never_end(
    pool: dromon.Pool, begun: Signal
) -> None:
    outcome = await cancel_once_begun(
        begun, lambda: pool.run_sync(spin, begun, interrupt_on_cancel=True)
    )
    assert isinstance(error_of(outcome), trio.Cancelled)


async def test_the_default_pool_can_be_interrupted(begun: Signal) -> None:
    outcome = await cancel_once_begun(
        begun, lambda: dromon.to_thread.run_sync(spin, begun, interrupt_on_cancel=True)
    )
    assert isinstance(error_of(outcome), trio.Cancelled)
    assert await dromon.to_thread.run_sync(divmod, 17, 5) == (3, 2)


async def test_the_cancellation_is_caused_by_the_interrupt_which_shows_where_the_call_was(
    pool: dromon.Pool, begun: Signal
) -> None:
    outcome = await cancel_once_begun(
        begun, lambda: pool.run_sync(spin, begun, interrupt_on_cancel=True)
    )
    cause = error_of(outcome).__cause__
    assert isinstance(cause, dromon.Interrupted)
    assert "spin" in [frame.name for frame in traceback.extract_tb(cause.__traceback__)]


async def test_without_interrupt_on_cancel_a_call_is_not_interrupted(pool: dromon.Pool) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(stubborn))
        await stubborn.begun.wait()
        task.cancel()
        await wait_all_tasks_blocked()
        stubborn.end.set()
    assert task.outcome == Value("ended")
    assert stubborn.interrupts == 0


async def test_finally_blocks_run(pool: dromon.Pool, begun: Signal) -> None:
    unwound = []

    def inner() -> None:
        try:
            spin(begun)
        finally:
            unwound.append("inner")

    def outer() -> None:
        try:
            inner()
        finally:
            unwound.append("outer")

    await cancel_once_begun(begun, lambda: pool.run_sync(outer, interrupt_on_cancel=True))
    assert unwound == ["inner", "outer"]


async def test_the_task_is_cancelled_only_when_the_call_has_unwound(
    pool: dromon.Pool, begun: Signal
) -> None:
    unwinds, may_end = Signal(), threading.Event()

    def call() -> None:
        try:
            spin(begun)
        finally:
            unwinds.set()
            may_end.wait()

    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True))
        await begun.wait()
        task.cancel()
        await unwinds.wait()
        await wait_all_tasks_blocked()
        assert task.outcome is None
        may_end.set()
        assert isinstance(error_of(await task.result()), trio.Cancelled)


async def test_an_interrupt_is_no_exception_that_careless_code_catches(
    pool: dromon.Pool, begun: Signal
) -> None:
    def call() -> str:
        try:
            spin(begun)
        except Exception:
            return "caught"
        return "ended"

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert isinstance(error_of(outcome), trio.Cancelled)


async def test_the_result_of_a_call_that_catches_its_interrupt_is_kept(
    pool: dromon.Pool, begun: Signal
) -> None:
    def call() -> str:
        try:
            spin(begun)
        except dromon.Interrupted:
            return "what there is so far"
        return "ended"

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert outcome == Value("what there is so far")


async def test_another_exception_in_the_place_of_the_interrupt_is_kept(
    pool: dromon.Pool, begun: Signal
) -> None:
    def call() -> None:
        try:
            spin(begun)
        finally:
            raise LookupError("in its place")

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert isinstance(error_of(outcome), LookupError)
    assert isinstance(error_of(outcome).__context__, dromon.Interrupted)


async def test_an_interrupted_that_the_call_raises_by_itself_is_an_exception_like_others(
    pool: dromon.Pool,
) -> None:
    def call() -> None:
        raise dromon.Interrupted

    with pytest.raises(dromon.Interrupted):
        await pool.run_sync(call, interrupt_on_cancel=True)


async def test_queued_work_is_withdrawn_and_never_runs(pool: dromon.Pool) -> None:
    stubborn, ran = Stubborn(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, stubborn)
        await stubborn.begun.wait()
        task = Cancelled(nursery, lambda: pool.run_sync(ran.set, interrupt_on_cancel=True))
        await wait_all_tasks_blocked()
        task.cancel()
        # The only worker is still busy, so this did not wait for it.
        assert isinstance(error_of(await task.result()), trio.Cancelled)
        stubborn.end.set()
    await pool.run_sync(int)
    assert not ran.is_set()


async def test_a_c_function_is_waited_for_and_its_caller_interrupted_when_it_returns(
    pool: dromon.Pool,
) -> None:
    begun, gate = threading.Lock(), threading.Lock()
    begun.acquire()
    gate.acquire()
    went_on = threading.Event()

    def call() -> None:
        # From C: whoever sees the one lock released finds this thread waiting for the other.
        list(map(operator.call, (begun.release, gate.acquire)))
        went_on.set()

    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True))
        await trio.to_thread.run_sync(begun.acquire)
        task.cancel()
        await wait_all_tasks_blocked()
        assert task.outcome is None
        gate.release()
        assert isinstance(error_of(await task.result()), trio.Cancelled)
    assert not went_on.is_set()


async def test_the_scope_that_was_cancelled_catches_it_and_the_outer_one_goes_on(
    pool: dromon.Pool, begun: Signal
) -> None:
    async def call(inner: trio.CancelScope) -> None:
        with inner:
            await pool.run_sync(spin, begun, interrupt_on_cancel=True)

    inner = trio.CancelScope()
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, inner)
            await begun.wait()
            inner.cancel()
        assert await pool.run_sync(abs, -1) == 1
    assert inner.cancelled_caught
    assert not outer.cancelled_caught


async def test_a_shielded_call_is_not_interrupted(pool: dromon.Pool) -> None:
    stubborn = Stubborn()

    async def shielded() -> str:
        with trio.CancelScope(shield=True):
            return await pool.run_sync(stubborn, interrupt_on_cancel=True)

    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, shielded)
        await stubborn.begun.wait()
        task.cancel()
        await wait_all_tasks_blocked()
        stubborn.end.set()
    assert task.outcome == Value("ended")
    assert stubborn.interrupts == 0


def test_ctrl_c_interrupts_the_call_that_the_main_task_waits_for() -> None:
    check_child(
        """
        import os, signal, dromon, trio

        def call():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                while True:
                    pass
            finally:
                print("unwound")

        async def main():
            await dromon.to_thread.run_sync(call, interrupt_on_cancel=True)

        try:
            trio.run(main)
        except KeyboardInterrupt as interrupt:
            print(repr(interrupt.__cause__))
        """,
        "unwound\nInterrupted()",
    )


async def test_the_next_call_on_the_same_worker_is_untouched(
    pool: dromon.Pool, begun: Signal
) -> None:
    before = await pool.run_sync(threading.get_ident)
    await cancel_once_begun(begun, lambda: pool.run_sync(spin, begun, interrupt_on_cancel=True))
    assert await pool.run_sync(threading.get_ident) == before
    assert await pool.run_sync(sum, range(100_000)) == 4_999_950_000


async def test_a_limiter_is_released_when_the_call_has_unwound(
    pool: dromon.Pool, begun: Signal
) -> None:
    limiter = trio.CapacityLimiter(1)
    await cancel_once_begun(
        begun, lambda: pool.run_sync(spin, begun, interrupt_on_cancel=True, limiter=limiter)
    )
    assert limiter.borrowed_tokens == 0


# ---- Time ----------------------------------------------------------------------------------------


async def test_a_call_that_takes_too_long_is_interrupted(
    pool: dromon.Pool, begun: Signal, mock_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(spin, begun, timeout=2.5))
        await begun.wait()
        mock_clock.jump(2.4)
        await wait_all_tasks_blocked()
        assert task.outcome is None
        mock_clock.jump(0.2)
        error = error_of(await task.result())
    assert isinstance(error, trio.TooSlowError)
    assert str(error) == "spin did not end within 2.5 s"
    assert isinstance(error.__cause__, dromon.Interrupted)
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert "spin" in [frame.name for frame in frames]


async def test_a_method_of_what_cannot_be_shown_takes_too_long_like_any_other(
    pool: dromon.Pool,
) -> None:
    class Hidden:
        def __repr__(self) -> str:
            raise AssertionError("it was shown")

        def work(self) -> None: ...

    with pytest.raises(trio.TooSlowError, match=r"Hidden\.work did not end within 0 s"):
        await pool.run_sync(Hidden().work, timeout=0)


async def test_a_call_that_is_queued_for_too_long_is_withdrawn(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn, ran = Stubborn(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, stubborn)
        await stubborn.begun.wait()
        task = Cancelled(nursery, lambda: pool.run_sync(ran.set, timeout=1))
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        error = error_of(await task.result())
        stubborn.end.set()
    assert isinstance(error, trio.TooSlowError)
    assert error.__cause__ is None
    assert not ran.is_set()


async def test_the_timeout_counts_while_a_call_waits_for_its_limiter(
    pool: dromon.Pool, autojump_clock: MockClock
) -> None:
    limiter = trio.CapacityLimiter(1)
    async with limiter:
        with pytest.raises(trio.TooSlowError):
            await pool.run_sync(int, limiter=limiter, timeout=1)
    assert autojump_clock.current_time() == 1


async def test_a_timeout_of_0_is_over_at_once(pool: dromon.Pool, begun: Signal) -> None:
    with pytest.raises(trio.TooSlowError, match="spin did not end within 0 s"):
        await pool.run_sync(spin, begun, timeout=0)


@pytest.mark.parametrize("timeout", [1000, 1000.0, math.inf])
async def test_a_result_that_comes_in_time_is_returned(
    pool: dromon.Pool, timeout: float, mock_clock: MockClock
) -> None:
    assert await pool.run_sync(divmod, 17, 5, timeout=timeout) == (3, 2)


async def test_an_exception_that_comes_in_time_is_raised(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await pool.run_sync(int, "x", timeout=1)


async def test_the_result_of_a_call_that_catches_the_interrupt_of_its_timeout_is_kept(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(stubborn, timeout=1))
        await stubborn.begun.wait()
        mock_clock.jump(1)
        await stubborn.interrupted[0].wait()
        stubborn.end.set()
    assert task.outcome == Value("ended")


async def test_a_call_with_a_timeout_is_interrupted_by_other_cancellation_too(
    pool: dromon.Pool, begun: Signal, mock_clock: MockClock
) -> None:
    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(spin, begun, timeout=1))
    assert isinstance(error_of(outcome), trio.Cancelled)


async def test_with_abandon_on_cancel_a_call_that_takes_too_long_is_abandoned(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(stubborn, timeout=1, abandon_on_cancel=True)
        )
        await stubborn.begun.wait()
        mock_clock.jump(1)
        error = error_of(await task.result())
    assert isinstance(error, trio.TooSlowError)
    assert error.__cause__ is None
    assert pool.statistics().running == 1
    stubborn.end.set()
    await pool.run_sync(int)
    assert stubborn.interrupts == 0


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "timeout must be 0 or more seconds, not -1"),
        ({"timeout": math.nan}, ValueError, "timeout must be 0 or more seconds, not nan"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds or None, not '1'"),
        ({"timeout": True}, TypeError, "timeout must be a number of seconds or None, not True"),
        ({"timeout": 1, "grace_period": -1}, ValueError, "grace_period must be 0 or more"),
        ({"timeout": 1, "grace_period": "1"}, TypeError, "grace_period must be a number"),
        ({"grace_period": 1}, ValueError, "needs interrupt_on_cancel=True or a timeout"),
        (
            {"abandon_on_cancel": True, "interrupt_on_cancel": True},
            ValueError,
            "abandon_on_cancel and interrupt_on_cancel exclude each other",
        ),
        (
            {"abandon_on_cancel": True, "timeout": 1, "grace_period": 1},
            ValueError,
            "grace_period is for calls that are interrupted, not abandoned",
        ),
    ],
)
async def test_arguments_that_make_no_sense_are_refused_before_anything_is_queued(
    pool: dromon.Pool, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    ran = threading.Event()
    with pytest.raises(error, match=message):
        await pool.run_sync(ran.set, **arguments)
    await pool.run_sync(int)
    assert not ran.is_set()


# ---- The grace period ----------------------------------------------------------------------------


async def test_after_the_grace_period_a_call_is_interrupted_again(
    pool: dromon.Pool, begun: Signal, mock_clock: MockClock
) -> None:
    goes_on = Signal()

    def call() -> None:
        try:
            spin(begun)
        except dromon.Interrupted:
            spin(goes_on)

    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True, grace_period=3)
        )
        await begun.wait()
        task.cancel()
        await goes_on.wait()
        await wait_all_tasks_blocked()  # now the next period is counted
        mock_clock.jump(3)
        assert isinstance(error_of(await task.result()), trio.Cancelled)


async def test_without_a_grace_period_a_call_is_interrupted_once(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(stubborn, interrupt_on_cancel=True))
        await stubborn.begun.wait()
        task.cancel()
        await stubborn.interrupted[0].wait()
        await wait_all_tasks_blocked()  # now the next period is counted
        mock_clock.jump(1e6)
        await wait_all_tasks_blocked()
        stubborn.end.set()
    assert task.outcome == Value("ended")
    assert stubborn.interrupts == 1


@pytest.mark.parametrize("grace_period", [0, 3])
async def test_after_two_grace_periods_a_call_is_abandoned(
    pool: dromon.Pool, mock_clock: MockClock, grace_period: float
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery,
            lambda: pool.run_sync(stubborn, interrupt_on_cancel=True, grace_period=grace_period),
        )
        await stubborn.begun.wait()
        task.cancel()
        if grace_period > 0:
            for interrupted in stubborn.interrupted[:2]:
                await interrupted.wait()
                await wait_all_tasks_blocked()  # now the next period is counted
                assert task.outcome is None
                mock_clock.jump(grace_period)
        assert isinstance(error_of(await task.result()), trio.Cancelled)
    assert pool.statistics().running == 1
    stubborn.end.set()
    assert await pool.run_sync(abs, -1) == 1


async def test_a_call_that_is_abandoned_since_it_took_too_long_raises_too_slow_error(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(stubborn, timeout=1, grace_period=3))
        await stubborn.begun.wait()
        mock_clock.jump(1)
        for interrupted in stubborn.interrupted[:2]:
            await interrupted.wait()
            await wait_all_tasks_blocked()  # now the next period is counted
            mock_clock.jump(3)
        error = error_of(await task.result())
    assert isinstance(error, trio.TooSlowError)
    assert error.__cause__ is None
    stubborn.end.set()


async def test_a_call_that_ends_in_its_grace_period_is_interrupted_once(
    pool: dromon.Pool, mock_clock: MockClock
) -> None:
    stubborn = Stubborn()
    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(stubborn, interrupt_on_cancel=True, grace_period=3)
        )
        await stubborn.begun.wait()
        task.cancel()
        await stubborn.interrupted[0].wait()
        stubborn.end.set()
        assert await task.result() == Value("ended")
    mock_clock.jump(10)
    await wait_all_tasks_blocked()
    assert stubborn.interrupts == 1


async def test_the_limiter_of_an_abandoned_call_is_released_when_it_has_really_ended(
    pool: dromon.Pool, autojump_clock: MockClock
) -> None:
    stubborn, limiter = Stubborn(), trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery,
            lambda: pool.run_sync(
                stubborn, interrupt_on_cancel=True, grace_period=3, limiter=limiter
            ),
        )
        await stubborn.begun.wait()
        task.cancel()
        await task.result()
    assert limiter.borrowed_tokens == 1
    stubborn.end.set()
    async with limiter:  # waits until it is released
        pass


async def test_what_a_call_asks_for_in_its_grace_period_is_done(
    pool: dromon.Pool, begun: Signal, mock_clock: MockClock
) -> None:
    cleaned_up = []

    def call() -> str:
        try:
            spin(begun)
        except dromon.Interrupted:
            dromon.from_thread.run_sync(cleaned_up.append, "once")
            dromon.from_thread.run_sync(cleaned_up.append, "twice")
        return "ended"

    outcome = await cancel_once_begun(
        begun, lambda: pool.run_sync(call, interrupt_on_cancel=True, grace_period=3)
    )
    assert outcome == Value("ended")
    assert cleaned_up == ["once", "twice"]


async def test_a_call_is_not_abandoned_while_its_task_does_something_for_it(
    pool: dromon.Pool, begun: Signal, mock_clock: MockClock
) -> None:
    may_answer, answers = trio.Event(), []
    stubborn = Stubborn()

    async def answer() -> str:
        begun.set()
        with trio.CancelScope(shield=True):
            await may_answer.wait()
        return "answer"

    def call() -> None:
        try:
            answers.append(dromon.from_thread.run(answer))
        except dromon.Interrupted:
            answers.append("interrupted")
        stubborn()

    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True, grace_period=3)
        )
        await begun.wait()
        task.cancel()
        for _ in range(5):
            await wait_all_tasks_blocked()
            mock_clock.jump(3)
        assert task.outcome is None
        may_answer.set()
        await stubborn.begun.wait()
        for _ in range(5):
            await wait_all_tasks_blocked()
            mock_clock.jump(3)
        assert isinstance(error_of(await task.result()), trio.Cancelled)
    stubborn.end.set()
    await pool.run_sync(int)
    assert answers in (["answer"], ["interrupted"])


async def test_an_abandoned_call_can_still_call_into_trio(
    pool: dromon.Pool, autojump_clock: MockClock
) -> None:
    stubborn, answers = Stubborn(), []

    def call() -> None:
        while not answers:
            with suppress(dromon.Interrupted):  # the second one may come after `stubborn`
                stubborn()
                one = dromon.from_thread.run_sync(abs, -1)
                answers.append((one, trio.from_thread.run_sync(abs, -2)))

    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True, grace_period=3)
        )
        await stubborn.begun.wait()
        task.cancel()
        await task.result()
    stubborn.end.set()
    while not pool.statistics().abandoned:
        await trio.sleep(0.001)
    assert answers == [(1, 2)]


def test_the_grace_period_of_a_system_task_counts_at_the_end_of_the_run() -> None:
    kept: list[Stubborn] = []

    async def system_task() -> None:
        await dromon.to_thread.run_sync(kept[0], interrupt_on_cancel=True, grace_period=3)

    async def main() -> None:
        kept.append(Stubborn())
        trio.lowlevel.spawn_system_task(system_task)
        await kept[0].begun.wait()

    trio.run(main, clock=MockClock(autojump_threshold=0))  # it ends, and the call goes on
    assert not kept[0].end.is_set()
    kept[0].end.set()


# ---- Calls back into trio ------------------------------------------------------------------------

FROM_THREAD = pytest.mark.parametrize("from_thread", [dromon.from_thread, trio.from_thread])


@FROM_THREAD
async def test_the_async_function_that_a_call_waits_for_is_cancelled_in_its_place(
    pool: dromon.Pool, begun: Signal, from_thread: Any
) -> None:
    raised: list[BaseException] = []

    async def wait() -> None:
        begun.set()
        await trio.sleep_forever()

    def call() -> None:
        try:
            from_thread.run(wait)
        except BaseException as error:
            raised.append(error)
            raise

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert isinstance(error_of(outcome), trio.Cancelled)
    # The interrupt comes after it, and that may be in from_thread.run, which returns.
    assert type(raised[0]) in (trio.Cancelled, dromon.Interrupted)


@FROM_THREAD
async def test_the_interrupt_comes_after_the_answer(
    pool: dromon.Pool, begun: Signal, from_thread: Any
) -> None:
    may_answer = trio.Event()

    async def answer() -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            await may_answer.wait()

    goes_on = Signal()

    def call() -> None:
        try:
            from_thread.run(answer)
        finally:
            goes_on.set()
        while True:
            pass

    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True))
        await begun.wait()
        task.cancel()
        await wait_all_tasks_blocked()
        assert not goes_on.is_set()
        may_answer.set()
        assert isinstance(error_of(await task.result()), trio.Cancelled)


@FROM_THREAD
async def test_a_call_that_calls_back_without_end_is_interrupted(
    pool: dromon.Pool, begun: Signal, from_thread: Any
) -> None:
    asked = answered = 0
    served = []

    def call() -> None:
        nonlocal asked, answered
        begun.set()
        while True:
            asked += 1
            from_thread.run_sync(served.append, asked)
            answered += 1

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert isinstance(error_of(outcome), trio.Cancelled)
    assert asked - 1 <= answered <= asked
    assert len(served) in (asked - 1, asked)
    assert await pool.run_sync(from_thread.run_sync, abs, -1) == 1


async def test_an_interrupt_that_is_due_keeps_a_call_from_asking_its_task(
    pool: dromon.Pool,
) -> None:
    begun, gate = threading.Lock(), threading.Lock()
    begun.acquire()
    gate.acquire()

    def call() -> None:
        this = _bridge.current_call()
        assert this is not None
        # From C, so that it is not raised before.
        list(map(operator.call, (begun.release, gate.acquire, this.visit)))

    async with trio.open_nursery() as nursery:
        task = Cancelled(nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True))
        await trio.to_thread.run_sync(begun.acquire)
        task.cancel()
        await wait_all_tasks_blocked()
        gate.release()
        cancelled = error_of(await task.result())
    assert isinstance(cancelled.__cause__, dromon.Interrupted)


@FROM_THREAD
async def test_clean_up_that_calls_back_is_not_interrupted_again(
    pool: dromon.Pool, begun: Signal, from_thread: Any
) -> None:
    """The task is cancelled each time that it waits for the call; the call only once."""
    cleaned_up = []

    def call() -> str:
        try:
            spin(begun)
        except dromon.Interrupted:
            for number in range(100):
                from_thread.run_sync(cleaned_up.append, number)
        return "ended"

    outcome = await cancel_once_begun(begun, lambda: pool.run_sync(call, interrupt_on_cancel=True))
    assert outcome == Value("ended")
    assert cleaned_up == list(range(100))


# ---- Where an exception has nowhere to go --------------------------------------------------------


async def test_an_interrupt_of_a_finaliser_is_printed_and_the_second_one_works(
    pool: dromon.Pool, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    finalises, goes_on = Signal(), Signal()
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: unraisable.append(hook.exc_type))

    class Slow:
        def __del__(self) -> None:
            spin(finalises)

    def call() -> None:
        slow = Slow()
        del slow
        spin(goes_on)

    async with trio.open_nursery() as nursery:
        task = Cancelled(
            nursery, lambda: pool.run_sync(call, interrupt_on_cancel=True, grace_period=3)
        )
        await finalises.wait()
        task.cancel()
        await goes_on.wait()
        assert unraisable == [dromon.Interrupted]
        await wait_all_tasks_blocked()  # now the next period is counted
        mock_clock.jump(3)
        assert isinstance(error_of(await task.result()), trio.Cancelled)
    assert unraisable == [dromon.Interrupted]


# ---- What must not get out of the call, and what must --------------------------------------------


def test_a_call_that_runs_a_trio_run_of_its_own_leaves_the_outer_run_alone() -> None:
    result = run_child(
        """
        import threading, trio, dromon

        async def spin():
            dromon_begun.set()
            while True:
                await trio.lowlevel.checkpoint()

        async def main():
            global dromon_begun
            dromon_begun = threading.Event()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    async def cancel():
                        await trio.to_thread.run_sync(dromon_begun.wait)
                        scope.cancel()
                    nursery.start_soon(cancel)
                    await dromon.to_thread.run_sync(trio.run, spin, interrupt_on_cancel=True)
            await trio.sleep(0)
            print(scope.cancelled_caught, await dromon.to_thread.run_sync(int, "7"))

        trio.run(main)
        """
    )
    # The inner run complains on stderr.
    assert (result.returncode, result.stdout.strip()) == (0, "True 7")


async def test_a_keyboard_interrupt_is_not_lost_in_an_interrupt(
    pool: dromon.Pool, begun: Signal
) -> None:
    def interrupted_twice() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            spin(begun)

    async def call() -> None:
        with pytest.raises(KeyboardInterrupt):
            await pool.run_sync(interrupted_twice, interrupt_on_cancel=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await begun.wait()
        nursery.cancel_scope.cancel()


async def test_an_interrupted_call_keeps_nothing_of_what_its_frames_held(
    pool: dromon.Pool, begun: Signal
) -> None:
    class Thing:
        pass

    things = []

    def hold() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        spin(begun)

    async def call() -> None:
        try:
            await pool.run_sync(hold, interrupt_on_cancel=True)
        except trio.Cancelled as cancelled:
            causes.append(cancelled.__cause__)
            raise

    causes: list[BaseException | None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await begun.wait()
        nursery.cancel_scope.cancel()
    (cause,) = causes
    assert isinstance(cause, dromon.Interrupted)
    assert things[0]() is None
    assert "hold" in "".join(traceback.format_exception(cause))


def test_traced_code_goes_on_after_a_call_whose_interrupt_was_not_raised() -> None:
    # On Python 3.11 it would look for that exception for ever.
    check_child(
        """
        import sys
        import dromon
        import trio
        from dromon import green

        def traced():
            return "traced"

        async def main():
            with trio.move_on_after(0):
                await dromon.to_thread.run_sync(int)
            with trio.CancelScope() as scope:
                def wait():
                    dromon.from_thread.run_sync(scope.cancel)
                    green.sleep(60)
                await dromon.to_thread.run_sync(wait)
            sys.settrace(lambda *_: None)
            print(traced())
            sys.settrace(None)

        trio.run(main)
        """,
        "traced",
    )
