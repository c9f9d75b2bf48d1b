"""Cancellation of green tasks: each request is delivered once, and to nobody else."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import green_task_works as works
import pytest
import trio
import trio.testing
from green_pools import in_both, run
from isolated_functions import Pipe

import dromon
from dromon import green

CLEANED_UP = ["begun", "cancelled", "cleaned up"]


@pytest.fixture
async def pipes() -> AsyncIterator[tuple[Pipe, Pipe]]:
    begun, ended = Pipe(), Pipe()
    yield begun, ended
    begun.close()
    ended.close()


async def cancel_once(
    given: Pipe, call: Callable[[], Any], then: Callable[[], object] = lambda: None
) -> bool:
    """Cancel a call once a pipe is given. Whether it ended by that."""
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await given.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            then()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope:
            await call()
    return scope.cancelled_caught


# ---- Of tasks and scopes -------------------------------------------------------------------------


@in_both
def test_a_request_reaches_each_task_of_a_tree_once(isolation: Any) -> None:
    logs, parent_log, cancelled = run(isolation, works.cancelled_once)
    assert logs == [CLEANED_UP] * 3
    assert parent_log == ["parent cleaned up"]
    assert cancelled


@in_both
def test_a_request_to_a_task_that_waits_for_its_children_reaches_them_once(isolation: Any) -> None:
    logs, cancelled = run(isolation, works.cancelled_while_leaving_once)
    assert logs == [CLEANED_UP] * 3
    assert cancelled


@in_both
def test_two_requests_are_delivered_twice(isolation: Any) -> None:
    assert run(isolation, works.cancelled_twice) == (["cancelled", "cancelled"], False, True)


@in_both
def test_a_running_task_hears_of_it_at_its_next_wait(isolation: Any) -> None:
    assert run(isolation, works.cancelled_while_it_runs) == (["goes on", "cancelled"], True)


@in_both
def test_a_task_that_has_not_begun_never_does(isolation: Any) -> None:
    assert run(isolation, works.cancelled_queued) == ([], True)


@in_both
def test_a_task_that_returns_all_the_same_was_not_cancelled(isolation: Any) -> None:
    found = run(isolation, works.cancelled_and_ended_otherwise)
    assert found == ("done all the same", False)


@in_both
def test_the_cancellation_of_a_task_that_waits_for_another_leaves_that_alone(
    isolation: Any,
) -> None:
    assert run(isolation, works.wait_cancelled_not_the_awaited) == ((True, False), False)


@in_both
def test_what_runs_in_place_of_a_join_is_not_cancelled_for_who_waits(isolation: Any) -> None:
    log = run(isolation, works.host_cancelled_while_a_child_runs_in_its_place)
    assert log == ["not cancelled", "cancelled"]


@in_both
def test_each_way_to_wait_is_ended_by_a_cancellation(isolation: Any) -> None:
    found = run(isolation, works.cancelled_in_any_wait)
    assert found == dict.fromkeys(found, True)


# ---- By trio -------------------------------------------------------------------------------------


@in_both
@pytest.mark.parametrize("wait", ["sleep", "event", "scope", "child"])
@pytest.mark.parametrize("interrupt", [False, True])
async def test_a_parked_call_is_woken_and_may_park_in_its_clean_up(
    isolation: Any, wait: str, interrupt: bool, pipes: tuple[Pipe, Pipe]
) -> None:
    begun, ended = pipes
    async with dromon.open_pool(1, isolation=isolation) as pool:

        async def call() -> None:
            await pool.run_sync(
                works.park, begun.writer, ended.writer, wait, interrupt_on_cancel=interrupt
            )

        assert await cancel_once(begun, call)
    assert ended.is_given()


@in_both
async def test_a_call_that_runs_hears_of_it_at_its_first_wait(
    isolation: Any, pipes: tuple[Pipe, Pipe]
) -> None:
    begun, ended = pipes
    go_on = bytearray(1)
    async with dromon.open_pool(1, isolation=isolation) as pool:

        async def call() -> None:
            await pool.run_sync(works.spin_and_park, begun.writer, memoryview(go_on), ended.writer)

        assert await cancel_once(begun, call, lambda: go_on.__setitem__(0, 1))
    assert ended.is_given()


@in_both
async def test_a_call_that_does_not_wait_returns(isolation: Any, pipes: tuple[Pipe, Pipe]) -> None:
    begun, _ = pipes
    go_on = bytearray(1)
    found = []
    async with dromon.open_pool(1, isolation=isolation) as pool:

        async def call() -> None:
            found.append(await pool.run_sync(works.never_wait, begun.writer, memoryview(go_on)))

        assert not await cancel_once(begun, call, lambda: go_on.__setitem__(0, 1))
        assert found == ["has not heard of it"]
        assert await pool.run_sync(works.contexts)  # nothing of it is left for the next one


@in_both
async def test_children_that_run_are_interrupted_if_the_call_is(
    isolation: Any, pipes: tuple[Pipe, Pipe]
) -> None:
    begun, ended = pipes
    async with dromon.open_pool(1, isolation=isolation) as pool:

        async def call() -> None:
            await pool.run_sync(
                works.spin_in_children, begun.writer, ended.writer, interrupt_on_cancel=True
            )

        assert await cancel_once(begun, call)
    assert ended.is_given()


@in_both
async def test_time_counts_while_a_call_is_parked(
    isolation: Any, pipes: tuple[Pipe, Pipe], mock_clock: trio.testing.MockClock
) -> None:
    begun, ended = pipes

    async with (
        dromon.open_pool(1, isolation=isolation) as pool,
        trio.open_nursery() as nursery,
    ):

        async def pass_time() -> None:
            await begun.wait()
            mock_clock.jump(10)

        nursery.start_soon(pass_time)
        with pytest.raises(trio.TooSlowError):
            await pool.run_sync(works.park, begun.writer, ended.writer, "sleep", timeout=10)
        assert ended.is_given()


async def test_an_abandoned_call_stays_parked(pipes: tuple[Pipe, Pipe]) -> None:
    begun, ended = pipes
    event = green.Event()
    found = []

    def wait() -> None:
        begun_writer()
        event.wait()
        found.append("went on")
        works.give(ended.writer)

    def begun_writer() -> None:
        works.give(begun.writer)

    async with dromon.open_pool(1) as pool:

        async def call() -> None:
            await pool.run_sync(wait, abandon_on_cancel=True)

        assert await cancel_once(begun, call)
        assert found == []
        event.set()
        await ended.wait()
    assert found == ["went on"]


async def test_a_call_cancelled_in_trio_is_not_cancelled_once_more(
    pipes: tuple[Pipe, Pipe],
) -> None:
    """The async function that it waits for has raised trio.Cancelled."""
    begun, ended = pipes
    found = []

    async def wait() -> None:
        works.give(begun.writer)
        await trio.sleep_forever()

    def work() -> None:
        try:
            dromon.from_thread.run(wait)
        except trio.Cancelled:
            found.append("cancelled")
            green.sleep(0.001)
            green.checkpoint()
            works.give(ended.writer)
            raise

    async with dromon.open_pool(1) as pool:
        assert await cancel_once(begun, lambda: pool.run_sync(work))
    assert ended.is_given()
    assert found == ["cancelled"]


async def test_a_cancellation_that_trio_has_not_told_comes_at_the_next_wait(
    pipes: tuple[Pipe, Pipe],
) -> None:
    """The async function that the call waits for does not wait, and so does not hear of it."""
    begun, ended = pipes
    go_on = threading.Event()
    found = []

    async def do_not_wait() -> None:
        found.append("not told")

    def work() -> None:
        green.current_task()
        works.give(begun.writer)
        go_on.wait()
        dromon.from_thread.run(do_not_wait)
        try:
            green.sleep(works.FOREVER)
        finally:
            green.sleep(0.001)
            works.give(ended.writer)

    async with dromon.open_pool(1) as pool:
        assert await cancel_once(begun, lambda: pool.run_sync(work), go_on.set)
    assert ended.is_given()
    assert found == ["not told"]


# ---- Interrupts ----------------------------------------------------------------------------------


async def test_an_interrupt_of_a_call_does_not_hit_what_runs_in_place_of_its_join(
    pipes: tuple[Pipe, Pipe],
) -> None:
    """That is a task of another call, which is not cancelled."""
    begun, spins = pipes
    handed_over: list[green.Task[str]] = []
    go_on = threading.Event()
    found = []

    def spin() -> str:
        works.give(spins.writer)
        while not go_on.is_set():
            pass
        return "not interrupted"

    def owner() -> None:
        with green.open_scope() as scope:
            handed_over.append(scope.spawn(spin))
            works.give(begun.writer)
            green.sleep(0.001)
            found.append(handed_over[0].result())

    def joiner() -> None:
        found.append(handed_over[0].result())
        while True:
            pass

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, owner)
        await begun.wait()
        assert await cancel_once(
            spins, lambda: pool.run_sync(joiner, interrupt_on_cancel=True), go_on.set
        )
    assert found[-1] == "not interrupted"


@pytest.mark.parametrize("workers", [1, 2])
async def test_interrupts_hit_the_green_threads_that_they_are_meant_for_and_no_others(
    workers: int,
) -> None:
    """Many run in turns, others are parked, and some are interrupted at random."""
    choice = random.Random(workers)
    begun: set[int] = set()
    hit: set[int] = set()
    cancelled: set[int] = set()
    ended: set[int] = set()

    def work(number: int) -> None:
        try:
            begun.add(number)
            while not is_over:
                for _ in range(choice.randrange(300)):
                    pass
                if number % 3:
                    green.checkpoint()
                else:
                    green.sleep(0.0001)
        except dromon.Interrupted:
            hit.add(number)
            raise

    async def call(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await pool.run_sync(work, number, interrupt_on_cancel=True)
        assert scope.cancelled_caught == (number in cancelled)
        ended.add(number)

    is_over = False
    async with dromon.open_pool(workers) as pool, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(60)]
        for number, scope in enumerate(scopes):
            nursery.start_soon(call, number, scope)
        while len(begun) < 60:
            await trio.sleep(0.001)
        for number in choice.sample(range(60), 40):
            cancelled.add(number)
            scopes[number].cancel()
            await trio.sleep(0.0001)
        while len(ended) < 40:
            await trio.sleep(0.001)
        is_over = True
    assert hit == cancelled
