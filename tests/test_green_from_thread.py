"""What a green thread asks of trio: its worker has time for others until the answer is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import green_called_back as called_back
import pytest
import trio
import trio.testing
from green_called_back import stage
from green_pools import ISOLATIONS
from isolated_functions import Pipe, give

import dromon
from dromon import green

name: ContextVar[str] = ContextVar("name", default="none")


@pytest.fixture(params=ISOLATIONS)
async def any_pool(request: pytest.FixtureRequest) -> AsyncIterator[dromon.Pool]:
    """A pool of one worker, on a fresh stage."""
    async with dromon.open_pool(1, isolation=request.param) as stage.pool:
        stage.event = trio.Event()
        stage.waiting = 0
        yield stage.pool


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(1) as pool:
        yield pool


def run_forever() -> None:
    dromon.from_thread.run(trio.sleep_forever)


# ---- Workers are free ----------------------------------------------------------------------------


async def test_a_call_may_wait_for_what_another_one_on_its_worker_does(
    any_pool: dromon.Pool,
) -> None:
    results = []

    async def call() -> None:
        results.append(await any_pool.run_sync(called_back.ask, called_back.wait))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await any_pool.run_sync(called_back.ask, called_back.set_event)
    assert results == ["waited"]


async def test_from_a_worker_to_trio_and_back_to_the_same_worker(any_pool: dromon.Pool) -> None:
    assert await any_pool.run_sync(called_back.dive, 50) == 50


async def test_from_a_worker_to_trio_and_back_with_the_default_pool() -> None:
    async def go_deeper(depth: int) -> int:
        return 1 + await dromon.to_thread.run_sync(dive, depth - 1)

    def dive(depth: int) -> int:
        return dromon.from_thread.run(go_deeper, depth) if depth else 0

    assert await dromon.to_thread.run_sync(dive, 50) == 50


async def test_calls_back_into_trio_that_are_nested_too_deeply_are_told_so(
    any_pool: dromon.Pool,
) -> None:
    """They are all in one task of trio, and so on one stack."""
    with pytest.raises(RecursionError, match="nested too deeply"):
        await any_pool.run_sync(called_back.dive, 1000)
    assert await any_pool.run_sync(called_back.dive, 3) == 3


async def test_many_calls_wait_for_trio_at_once_under_frames_of_c(any_pool: dromon.Pool) -> None:
    stage.everybody = 1000
    results = []

    async def call(number: int) -> None:
        results.append(await any_pool.run_sync(called_back.under_frames, number))

    async with trio.open_nursery() as nursery:
        for number in range(stage.everybody):
            nursery.start_soon(call, number)
    assert sorted(results) == list(range(stage.everybody))


async def test_ten_thousand_calls_wait_on_two_workers() -> None:
    stage.everybody = 10_000
    stage.waiting = 0
    stage.event = trio.Event()
    results = []

    async def call(number: int) -> None:
        results.append(await two.run_sync(called_back.under_frames, number))

    async with dromon.open_pool(2) as two, trio.open_nursery() as nursery:
        for number in range(stage.everybody):
            nursery.start_soon(call, number)
    assert sorted(results) == list(range(stage.everybody))


# ---- Children ------------------------------------------------------------------------------------


async def test_several_children_ask_at_once(pool: dromon.Pool) -> None:
    stage.event = trio.Event()
    stage.waiting = 0
    stage.everybody = 20
    assert await pool.run_sync(called_back.ask_in_children, 20) == list(range(20))


async def test_each_child_has_an_answer(any_pool: dromon.Pool) -> None:
    stage.everybody = 1  # the first one, and nobody waits after that
    assert await any_pool.run_sync(called_back.ask_in_children, 20) == list(range(20))


async def test_a_child_and_its_parent_ask_at_once(pool: dromon.Pool) -> None:
    event = trio.Event()

    def work() -> None:
        with green.open_scope() as scope:
            scope.spawn(lambda: dromon.from_thread.run(event.wait))
            dromon.from_thread.run_sync(event.set)

    await pool.run_sync(work)


async def test_what_a_child_asks_runs_in_a_system_task_with_its_context(
    pool: dromon.Pool,
) -> None:
    async def look() -> tuple[str, trio.lowlevel.Task]:
        return name.get(), trio.lowlevel.current_task()

    def child(value: str) -> tuple[str, trio.lowlevel.Task]:
        name.set(value)
        return dromon.from_thread.run(look)

    def work() -> Any:
        return green.map(child, ["a", "b"])

    (first, first_task), (second, second_task) = await pool.run_sync(work)
    assert (first, second) == ("a", "b")
    assert first_task is not second_task
    assert trio.lowlevel.current_task() not in (first_task, second_task)


# ---- Cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [False, True])
async def test_cancellation_of_the_call_cancels_what_its_children_ask(
    pool: dromon.Pool, interrupt: bool
) -> None:
    begun = trio.Event()
    ended = []

    async def wait() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append("in trio")

    def child() -> None:
        try:
            dromon.from_thread.run(wait)
        except green.Cancelled:
            ended.append("in the child")
            raise

    def work() -> None:
        with green.open_scope() as scope:
            scope.spawn(child)

    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await begun.wait()
            scope.cancel()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope:
            await pool.run_sync(work, interrupt_on_cancel=interrupt)
    assert scope.cancelled_caught
    assert ended == ["in trio", "in the child"]


async def test_a_scope_that_is_cancelled_cancels_what_is_asked_in_it(pool: dromon.Pool) -> None:
    def work() -> str:
        with green.open_scope() as scope:
            children = [scope.spawn(run_forever) for _ in range(3)]
            while not all(child.state == "waiting" for child in children):
                green.checkpoint()
            scope.cancel()
        return "cancelled"

    assert await pool.run_sync(work) == "cancelled"


async def test_a_child_that_fails_cancels_what_its_parent_asks(pool: dromon.Pool) -> None:
    def fail() -> None:
        raise ValueError("child")

    def work() -> None:
        with green.open_scope() as scope:
            scope.spawn(fail)
            run_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await pool.run_sync(work)
    assert [str(error) for error in raised.value.exceptions] == ["child"]
    await trio.lowlevel.checkpoint()  # the task itself was not cancelled


async def test_a_cancelled_task_asks_nothing(pool: dromon.Pool) -> None:
    asked: list[str] = []

    def work() -> None:
        with green.open_scope() as scope:
            scope.cancel()
            dromon.from_thread.run(trio.sleep_forever)
            asked.append("not reached")

    await pool.run_sync(work)
    assert asked == []


async def test_what_is_raised_in_the_clean_up_in_trio_is_raised_in_the_call(
    pool: dromon.Pool,
) -> None:
    async def fail_in_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("in the end")

    def work() -> None:
        with green.open_scope() as scope:
            task = scope.spawn(dromon.from_thread.run, fail_in_the_end)
            while task.state != "waiting":
                green.checkpoint()
            scope.cancel()

    with pytest.raises(ExceptionGroup) as raised:
        await pool.run_sync(work)
    assert [str(error) for error in raised.value.exceptions] == ["in the end"]


# ---- Other calls ---------------------------------------------------------------------------------


def test_a_call_that_no_task_waits_for_asks_with_a_token() -> None:
    async def main() -> list[int]:
        token = trio.lowlevel.current_trio_token()

        async def sleep(number: int) -> int:
            await trio.lowlevel.checkpoint()
            return number

        def work(number: int) -> int:
            return dromon.from_thread.run(sleep, number, trio_token=token)

        def children() -> list[int]:
            return green.map(work, range(10))

        futures = [one.submit(work, number) for number in range(10)]
        futures_of_children = one.submit(children)
        while not all(future.done() for future in futures) or not futures_of_children.done():
            await trio.sleep(0.001)
        assert futures_of_children.result() == list(range(10))
        return [future.result() for future in futures]

    with dromon.Pool(1) as one:
        assert trio.run(main) == list(range(10))


def test_a_call_that_no_task_waits_for_asks_nobody_without_a_token() -> None:
    with dromon.Pool(1) as pool:
        future = pool.submit(dromon.from_thread.run, trio.sleep, 0)
        with pytest.raises(RuntimeError, match="trio_token"):
            future.result(60)


def test_a_child_that_asks_a_run_that_is_over_is_told_so() -> None:
    over = green.Event()
    found: green.Future[BaseException | None] = green.Future()

    def child() -> None:
        over.wait()
        dromon.from_thread.run(trio.sleep, 0)

    def work(begun: Pipe) -> None:
        give(begun.writer)
        with green.open_scope() as scope:
            found.set_result(scope.spawn(child).exception())
            scope.cancel()

    async def main() -> None:
        begun = Pipe()
        async with trio.open_nursery() as nursery:
            call = partial(dromon.to_thread.run_sync, pool=one, abandon_on_cancel=True)
            nursery.start_soon(call, work, begun)
            await begun.wait()
            nursery.cancel_scope.cancel()
        begun.close()

    with dromon.Pool(1) as one:
        trio.run(main)
        over.set()
        assert isinstance(found.result(timeout=60), trio.RunFinishedError)
