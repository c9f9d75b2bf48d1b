"""What cancelling does to a call: withdrawn while queued, waited for or abandoned while running."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

import dromon


class Gate:
    """A callable that tells when it has begun, and ends when it is opened."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._opened = threading.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._entered = trio.Event()

    def __call__(self) -> str:
        self.begun.set()
        self._token.run_sync_soon(self._entered.set)
        self._opened.wait()
        return "passed"

    def open(self) -> None:
        self._opened.set()

    async def wait_entered(self) -> None:
        await self._entered.wait()


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=1) as pool:
        yield pool


async def test_a_call_in_a_cancelled_scope_never_begins(pool: dromon.Pool) -> None:
    ran = threading.Event()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.run_sync(ran.set)
    assert scope.cancelled_caught
    await pool.run_sync(int)
    assert not ran.is_set()


async def test_queued_work_is_withdrawn_at_once_and_never_runs(pool: dromon.Pool) -> None:
    gate, ran = Gate(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, gate)
        await gate.wait_entered()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pool.run_sync, ran.set)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        # The only worker is still busy, so leaving the scope did not wait for it.
        assert scope.cancelled_caught
        gate.open()
    await pool.run_sync(int)
    assert not ran.is_set()
    assert pool.statistics().cancelled == 1


async def test_withdrawn_work_lets_go_of_its_arguments_at_once(pool: dromon.Pool) -> None:
    class Argument:
        pass

    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, gate)
        await gate.wait_entered()
        argument = Argument()
        watched = weakref.ref(argument)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pool.run_sync, print, argument)
                del argument
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert watched() is None
        gate.open()


async def test_running_work_is_waited_for_and_its_result_kept(pool: dromon.Pool) -> None:
    gate = Gate()
    result = None

    async def call() -> None:
        nonlocal result
        result = await pool.run_sync(gate)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.wait_entered()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert result is None
                gate.open()
    assert result == "passed"


async def test_running_work_is_abandoned_on_request(pool: dromon.Pool) -> None:
    gate = Gate()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.run_sync(gate, abandon_on_cancel=True))
            await gate.wait_entered()
            scope.cancel()
    assert scope.cancelled_caught
    assert pool.statistics().running == 1
    gate.open()
    assert await pool.run_sync(int) == 0
    assert pool.statistics().running == 0


async def test_the_outcome_of_abandoned_work_is_dropped(pool: dromon.Pool) -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("nobody hears this")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.run_sync(fail, abandon_on_cancel=True))
            await gate.wait_entered()
            scope.cancel()
    gate.open()
    assert await pool.run_sync(int) == 0
    await trio.testing.wait_all_tasks_blocked()


async def test_abandon_on_cancel_is_taken_as_a_truth_value_at_the_call(pool: dromon.Pool) -> None:
    class Neither:
        def __bool__(self) -> bool:
            raise ValueError("neither true nor false")

    ran = threading.Event()
    with pytest.raises(ValueError, match="neither"):
        await pool.run_sync(ran.set, abandon_on_cancel=Neither())  # type: ignore[arg-type]
    await pool.run_sync(int)
    assert not ran.is_set()


# ---- Limiters ------------------------------------------------------------------------------------


async def test_a_limiter_is_held_while_the_call_runs(pool: dromon.Pool) -> None:
    limiter = trio.CapacityLimiter(1)
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.run_sync(gate, limiter=limiter))
        await gate.wait_entered()
        assert limiter.borrowed_tokens == 1
        gate.open()
    assert limiter.borrowed_tokens == 0


async def test_a_call_whose_name_cannot_be_told_takes_no_token(pool: dromon.Pool) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise LookupError("no name")

    def call() -> None:
        raise AssertionError("it ran")

    unnamed = functools.partial(call)
    unnamed.__name__ = Unspeakable()  # type: ignore[attr-defined]
    limiter = trio.CapacityLimiter(1)
    with pytest.raises(LookupError, match="no name"):
        await pool.run_sync(unnamed, limiter=limiter)
    assert limiter.borrowed_tokens == 0


async def test_a_limiter_sees_the_names_of_its_borrowers(pool: dromon.Pool) -> None:
    limiter = trio.CapacityLimiter(1)
    borrowers = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            borrowers.append(repr(borrower))
            await limiter.acquire_on_behalf_of(borrower)

        def release_on_behalf_of(self, borrower: object) -> None:
            limiter.release_on_behalf_of(borrower)

    await pool.run_sync(int, limiter=Limiter())  # type: ignore[arg-type]
    task = trio.lowlevel.current_task()
    assert borrowers == [f"<dromon call of int from {task.name}>"]


async def test_a_limiter_bounds_how_many_calls_run() -> None:
    limiter = trio.CapacityLimiter(2)
    lock = threading.Lock()
    running = most = 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    async with dromon.open_pool(workers=4) as pool, trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(lambda: pool.run_sync(call, limiter=limiter))
    assert 1 <= most <= 2


async def test_a_limiter_is_released_when_queued_work_is_withdrawn(pool: dromon.Pool) -> None:
    limiter = trio.CapacityLimiter(1)
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, gate)
        await gate.wait_entered()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(lambda: pool.run_sync(int, limiter=limiter))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert limiter.borrowed_tokens == 0
        gate.open()


async def test_a_limiter_of_abandoned_work_is_released_when_it_has_really_ended(
    pool: dromon.Pool,
) -> None:
    limiter = trio.CapacityLimiter(1)
    gate = Gate()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.run_sync(gate, abandon_on_cancel=True, limiter=limiter))
            await gate.wait_entered()
            scope.cancel()
    assert limiter.borrowed_tokens == 1
    gate.open()
    async with limiter:  # waits until it is released
        pass


class BadLimiter:
    """Anything with these two methods is a limiter; this one fails to release."""

    async def acquire_on_behalf_of(self, _borrower: object) -> None:
        await trio.lowlevel.checkpoint()

    def release_on_behalf_of(self, _borrower: object) -> None:
        raise ValueError("cannot release")


async def test_a_failing_release_replaces_the_result(pool: dromon.Pool) -> None:
    with pytest.raises(ValueError, match="cannot release") as info:
        await pool.run_sync(int, limiter=BadLimiter())  # type: ignore[arg-type]
    assert info.value.__context__ is None


async def test_a_failing_release_chains_to_the_exception_of_the_call(pool: dromon.Pool) -> None:
    with pytest.raises(ValueError, match="cannot release") as info:
        await pool.run_sync(int, "x", limiter=BadLimiter())  # type: ignore[arg-type]
    assert isinstance(info.value.__context__, ValueError)
    assert "invalid literal" in str(info.value.__context__)


# ---- Races ---------------------------------------------------------------------------------------


async def test_each_cancelled_call_either_ran_and_returned_or_never_ran() -> None:
    ran: set[int] = set()
    returned: set[int] = set()

    async def call(pool: dromon.Pool, number: int, scope: trio.CancelScope) -> None:
        with scope:
            await pool.run_sync(ran.add, number)
            returned.add(number)

    async with dromon.open_pool(workers=2) as pool:
        for start in range(0, 20_000, 200):
            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in range(200)]
                for offset, scope in enumerate(scopes):
                    nursery.start_soon(call, pool, start + offset, scope)
                await trio.lowlevel.checkpoint()  # now some are queued, some run, some are done
                for scope in scopes[::2]:
                    scope.cancel()
    assert ran == returned
    statistics = pool.statistics()
    assert statistics.completed == len(ran)
    assert statistics.queued == statistics.running == 0
