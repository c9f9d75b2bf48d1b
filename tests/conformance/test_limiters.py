"""The limiter's protocol, and the default limiter."""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from blocked_call import BlockedCall


class RecordingLimiter:
    """A limiter without limit, that writes down who borrowed and who returned."""

    def __init__(self) -> None:
        self.borrowers: list[object] = []
        self.returned: list[object] = []

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self.borrowers.append(borrower)

    def release_on_behalf_of(self, borrower: object) -> None:
        self.returned.append(borrower)


async def abandon(library: ModuleType, call: BlockedCall, limiter: Any) -> None:
    """Make a call, and abandon it as soon as it runs."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await library.to_thread.run_sync(call, None, abandon_on_cancel=True, limiter=limiter)

        nursery.start_soon(run)
        await call.begun.wait()
        nursery.cancel_scope.cancel()


# ---- The protocol --------------------------------------------------------------------------------


async def test_anything_with_the_two_methods_is_a_limiter(library: ModuleType) -> None:
    limiter = RecordingLimiter()
    assert await library.to_thread.run_sync(int, "7", limiter=limiter) == 7
    assert len(limiter.borrowers) == len(limiter.returned) == 1


async def test_the_same_borrower_acquires_and_releases(library: ModuleType) -> None:
    limiter = RecordingLimiter()
    await library.to_thread.run_sync(int, limiter=limiter)
    (borrower,) = limiter.borrowers
    (returned,) = limiter.returned
    assert borrower is returned


async def test_a_limiter_may_know_its_borrowers_by_weak_references(library: ModuleType) -> None:
    watched = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            watched.append(weakref.ref(borrower))

        def release_on_behalf_of(self, borrower: object) -> None:
            assert watched[0]() is borrower

    await library.to_thread.run_sync(int, limiter=Limiter())
    assert len(watched) == 1


async def test_each_call_borrows_for_itself(library: ModuleType) -> None:
    limiter = RecordingLimiter()
    for _ in range(3):
        await library.to_thread.run_sync(int, limiter=limiter)
    assert len(set(limiter.borrowers)) == 3
    assert trio.lowlevel.current_task() not in limiter.borrowers


async def test_the_limiter_is_acquired_before_the_call_and_released_after_it(
    library: ModuleType,
) -> None:
    events = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            await trio.testing.wait_all_tasks_blocked()
            events.append("acquired")

        def release_on_behalf_of(self, borrower: object) -> None:
            events.append("released")

    await library.to_thread.run_sync(events.append, "called", limiter=Limiter())
    events.append("gone on")
    assert events == ["acquired", "called", "released", "gone on"]


async def test_both_methods_are_called_in_the_trio_thread(library: ModuleType) -> None:
    tokens = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            tokens.append(trio.lowlevel.current_trio_token())

        def release_on_behalf_of(self, borrower: object) -> None:
            tokens.append(trio.lowlevel.current_trio_token())

    await library.to_thread.run_sync(int, limiter=Limiter())
    assert tokens == [trio.lowlevel.current_trio_token()] * 2


async def test_the_limiter_is_released_when_the_call_raises(library: ModuleType) -> None:
    limiter = RecordingLimiter()
    with pytest.raises(ValueError, match="invalid literal"):
        await library.to_thread.run_sync(int, "seven", limiter=limiter)
    assert limiter.returned == limiter.borrowers != []


async def test_after_a_failing_acquire_nothing_runs_and_nothing_is_released(
    library: ModuleType,
) -> None:
    calls: list[int] = []
    releases = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            raise PermissionError("no token for you")

        def release_on_behalf_of(self, borrower: object) -> None:
            releases.append(borrower)

    with pytest.raises(PermissionError, match="no token for you"):
        await library.to_thread.run_sync(calls.append, 1, limiter=Limiter())
    await library.testing.wait_all_threads_completed()
    assert calls == []
    assert releases == []


class BrokenLimiter:
    async def acquire_on_behalf_of(self, borrower: object) -> None: ...

    def release_on_behalf_of(self, borrower: object) -> None:
        raise PermissionError("keep it")


async def test_what_release_raises_takes_the_place_of_the_result(library: ModuleType) -> None:
    with pytest.raises(PermissionError, match="keep it") as raised:
        await library.to_thread.run_sync(int, limiter=BrokenLimiter())
    assert raised.value.__context__ is None


async def test_what_release_raises_has_the_exception_of_the_call_as_its_context(
    library: ModuleType,
) -> None:
    with pytest.raises(PermissionError, match="keep it") as raised:
        await library.to_thread.run_sync(int, "seven", limiter=BrokenLimiter())
    assert isinstance(raised.value.__context__, ValueError)


async def test_what_release_raises_for_an_abandoned_call_harms_nobody(library: ModuleType) -> None:
    released = trio.Event()

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None: ...

        def release_on_behalf_of(self, borrower: object) -> None:
            released.set()
            raise PermissionError("keep it")

    call = BlockedCall()
    await abandon(library, call, Limiter())
    call.release()
    await released.wait()
    assert await library.to_thread.run_sync(int, "7") == 7


async def test_an_abandoned_call_is_released_when_it_has_ended(library: ModuleType) -> None:
    call = BlockedCall()
    limiter = trio.CapacityLimiter(1)
    await abandon(library, call, limiter)
    assert limiter.borrowed_tokens == 1
    call.release()
    await limiter.acquire()
    assert call.ended.is_set()
    limiter.release()


def test_the_limiter_of_a_call_that_outlasts_the_run_is_never_released(library: ModuleType) -> None:
    limiter = RecordingLimiter()

    async def main() -> BlockedCall:
        call = BlockedCall()
        await abandon(library, call, limiter)
        return call

    call = trio.run(main)
    call.release()

    async def another() -> None:
        await library.to_thread.run_sync(int)

    trio.run(another)
    assert len(limiter.borrowers) == 1
    assert limiter.returned == []


# ---- trio.CapacityLimiter ------------------------------------------------------------------------


class Calls:
    """Calls that are blocked, each in a task of its own."""

    def __init__(self, library: ModuleType, nursery: trio.Nursery, count: int) -> None:
        self.calls = [BlockedCall() for _ in range(count)]
        self.library = library
        self.nursery = nursery

    async def start(self, limiter: Any) -> None:
        for call in self.calls:
            self.nursery.start_soon(self._run, call, limiter)
            await trio.testing.wait_all_tasks_blocked()  # in line in this order

    async def _run(self, call: BlockedCall, limiter: Any) -> None:
        await self.library.to_thread.run_sync(call, None, limiter=limiter)

    async def just_run(self, *numbers: int) -> None:
        """Wait until these calls run, and assert that no others do."""
        for number in numbers:
            await self.calls[number].begun.wait()
        running = [
            number
            for number, call in enumerate(self.calls)
            if call.begun.is_set() and not call.ended.is_set()
        ]
        assert running == list(numbers)

    def release(self) -> None:
        for call in self.calls:
            call.release()


async def test_no_more_calls_run_than_there_are_tokens(library: ModuleType) -> None:
    limiter = trio.CapacityLimiter(2)
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 4)
        await blocked.start(limiter)
        await blocked.just_run(0, 1)
        assert limiter.statistics().tasks_waiting == 2
        blocked.calls[0].release()
        await blocked.just_run(1, 2)
        blocked.release()
    assert limiter.borrowed_tokens == 0


async def test_calls_that_wait_start_when_total_tokens_grows(library: ModuleType) -> None:
    limiter = trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 3)
        await blocked.start(limiter)
        await blocked.just_run(0)
        limiter.total_tokens = 3
        await blocked.just_run(0, 1, 2)
        blocked.release()


async def test_running_calls_go_on_when_total_tokens_shrinks(library: ModuleType) -> None:
    limiter = trio.CapacityLimiter(2)
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 3)
        await blocked.start(limiter)
        await blocked.just_run(0, 1)
        limiter.total_tokens = 1
        blocked.calls[0].release()
        await blocked.calls[0].ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        await blocked.just_run(1)
        blocked.calls[1].release()
        await blocked.just_run(2)
        blocked.release()


async def test_a_limiter_counts_calls_and_lists_their_borrowers(library: ModuleType) -> None:
    limiter = trio.CapacityLimiter(2)
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 3)
        await blocked.start(limiter)
        await blocked.just_run(0, 1)
        statistics = limiter.statistics()
        assert statistics.borrowed_tokens == 2
        assert statistics.tasks_waiting == 1
        assert len(statistics.borrowers) == 2
        assert trio.lowlevel.current_task() not in statistics.borrowers
        blocked.release()
    assert limiter.statistics().borrowers == []


async def test_a_call_that_is_cancelled_while_it_waits_for_a_token_never_runs(
    library: ModuleType,
) -> None:
    limiter = trio.CapacityLimiter(1)
    calls: list[int] = []
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 1)
        await blocked.start(limiter)
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await trio.testing.wait_all_tasks_blocked()
                assert limiter.statistics().tasks_waiting == 1
                scope.cancel()

            nursery.start_soon(cancel)
            await library.to_thread.run_sync(calls.append, 1, limiter=limiter)
        assert scope.cancelled_caught
        assert limiter.statistics().tasks_waiting == 0
        blocked.release()
    assert calls == []
    assert limiter.borrowed_tokens == 0


# ---- Limiters made of others, as trio's documentation shows them ---------------------------------


class BothLimiters:
    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self.first.acquire_on_behalf_of(borrower)
        try:
            await self.second.acquire_on_behalf_of(borrower)
        except BaseException:
            self.first.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        try:
            self.second.release_on_behalf_of(borrower)
        finally:
            self.first.release_on_behalf_of(borrower)


class LimiterOfUsers:
    """At most so many calls for one user, and no more for all than the default limiter allows."""

    def __init__(self, library: ModuleType, most_for_one: int) -> None:
        self.most_for_one = most_for_one
        self.for_all = library.to_thread.current_default_thread_limiter()
        self.of_users: weakref.WeakValueDictionary[str, BothLimiters] = (
            weakref.WeakValueDictionary()
        )

    def of(self, user: str) -> BothLimiters:
        limiter = self.of_users.get(user)
        if limiter is None:
            limiter = BothLimiters(trio.CapacityLimiter(self.most_for_one), self.for_all)
            self.of_users[user] = limiter
        return limiter


async def test_a_call_waits_for_both_of_two_combined_limiters(library: ModuleType) -> None:
    first, second = trio.CapacityLimiter(2), trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 3)
        await blocked.start(BothLimiters(first, second))
        await blocked.just_run(0)
        assert first.statistics().borrowed_tokens == 2
        assert first.statistics().tasks_waiting == 1
        assert second.statistics().tasks_waiting == 1
        blocked.release()
    assert (first.borrowed_tokens, second.borrowed_tokens) == (0, 0)


async def test_a_call_cancelled_at_the_second_of_two_limiters_gives_the_first_back(
    library: ModuleType,
) -> None:
    first, second = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
    second.acquire_on_behalf_of_nowait("the test")
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 1)
        await blocked.start(BothLimiters(first, second))
        assert first.borrowed_tokens == 1
        nursery.cancel_scope.cancel()
    assert first.borrowed_tokens == 0
    assert not blocked.calls[0].begun.is_set()


async def test_each_user_gets_a_share_of_the_default_limiter(library: ModuleType) -> None:
    users = LimiterOfUsers(library, most_for_one=2)
    users.for_all.total_tokens = 3
    async with trio.open_nursery() as nursery:
        calls = {user: Calls(library, nursery, 3) for user in ("anna", "ben")}
        for user, blocked in calls.items():
            await blocked.start(users.of(user))
        await calls["anna"].just_run(0, 1)
        await calls["ben"].just_run(0)
        assert users.for_all.borrowed_tokens == 3
        for blocked in calls.values():
            blocked.release()
    assert users.for_all.borrowed_tokens == 0


# ---- The default limiter -------------------------------------------------------------------------


async def test_the_default_limiter_is_a_capacity_limiter_of_trio(library: ModuleType) -> None:
    assert type(library.to_thread.current_default_thread_limiter()) is trio.CapacityLimiter


async def test_the_default_limiter_is_the_same_all_through_a_run(library: ModuleType) -> None:
    limiters = [library.to_thread.current_default_thread_limiter()]

    async def read() -> None:
        await trio.lowlevel.checkpoint()
        limiters.append(library.to_thread.current_default_thread_limiter())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
    assert limiters[0] is limiters[1]


def test_each_run_has_a_default_limiter_of_its_own(library: ModuleType) -> None:
    async def main() -> trio.CapacityLimiter:
        limiter: trio.CapacityLimiter = library.to_thread.current_default_thread_limiter()
        return limiter

    first, second = trio.run(main), trio.run(main)
    assert first is not second


def test_outside_a_run_there_is_no_default_limiter(library: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="outside of a run"):
        library.to_thread.current_default_thread_limiter()


@pytest.mark.parametrize("options", [{}, {"limiter": None}])
async def test_without_a_limiter_the_default_one_counts_calls(
    library: ModuleType, options: dict[str, Any]
) -> None:
    limiter = library.to_thread.current_default_thread_limiter()
    call = BlockedCall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: library.to_thread.run_sync(call, None, **options))
        await call.begun.wait()
        assert limiter.borrowed_tokens == 1
        call.release()
    assert limiter.borrowed_tokens == 0


async def test_the_default_limiter_bounds_calls_without_one(library: ModuleType) -> None:
    limiter = library.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    async with trio.open_nursery() as nursery:
        blocked = Calls(library, nursery, 2)
        await blocked.start(None)
        await blocked.just_run(0)
        assert limiter.statistics().tasks_waiting == 1
        blocked.calls[0].release()
        await blocked.calls[1].begun.wait()
        blocked.release()


async def test_a_call_with_a_limiter_of_its_own_leaves_the_default_one_alone(
    library: ModuleType,
) -> None:
    limiter = library.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    limiter.acquire_on_behalf_of_nowait("the test")
    own = trio.CapacityLimiter(1)
    assert await library.to_thread.run_sync(int, "7", limiter=own) == 7
    limiter.release_on_behalf_of("the test")
