"""Green threads where a wait is not expected: in finalizers, callbacks and initializers."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
import trio
from green_review_works import (
    initialize_with_a_wait,
    leave_a_scope_open,
    leave_an_error_that_waits_at_its_end,
    return_one,
)

import dromon
from dromon import green

own_interpreters = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="interpreters with a GIL of their own need Python 3.12"
)


class AtItsEnd:
    """Does something when nobody refers to it any more."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do

    def __del__(self) -> None:
        self._do()


def take(_: object) -> None:
    """Let go of the argument with the end of the task."""


def test_what_a_task_lets_go_of_at_its_end_can_join_another(one_worker: dromon.Executor) -> None:
    def run() -> int:
        joined = green.Future[int]()
        with green.open_scope() as scope:
            older = scope.spawn(return_one)  # the newest begins first
            scope.spawn(take, AtItsEnd(lambda: joined.set_result(older.result())))
            joined.result()
        return joined.result()

    assert one_worker.submit(run).result() == 1


async def test_a_task_can_be_cancelled_while_it_lets_go_of_its_arguments() -> None:
    is_ending, was_cancelled = threading.Event(), threading.Event()
    tasks: list[green.Task[None]] = []

    def end_slowly() -> None:
        is_ending.set()
        was_cancelled.wait()

    def run() -> None:
        with green.open_scope() as scope:
            tasks.append(scope.spawn(take, AtItsEnd(end_slowly)))

    def cancel() -> None:
        is_ending.wait()
        tasks[0].cancel()
        was_cancelled.set()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, cancel)
        await pool.run_sync(run, interrupt_on_cancel=True)
    assert tasks[0].done()
    assert not tasks[0].cancelled()


async def test_an_interrupt_that_comes_with_an_answer_ends_a_task() -> None:
    is_parked = threading.Event()
    tasks: list[green.Task[int]] = []

    def answer() -> int:
        is_parked.wait()
        return 1

    def interrupt() -> None:
        is_parked.set()  # else this would not run
        while tasks[0].state != "ready":  # it has its answer, and this has its worker
            time.sleep(0.001)
        tasks[0].cancel()

    def run() -> None:
        with green.open_scope() as scope:
            scope.spawn(interrupt)
            tasks.append(scope.spawn(dromon.from_thread.run_sync, answer))

    async with dromon.open_pool(1) as pool:
        await pool.run_sync(run, interrupt_on_cancel=True)
    assert tasks[0].cancelled()


async def test_a_call_that_asks_trio_is_interrupted_by_its_task_after_the_answer() -> None:
    answers: list[int] = []
    seen = []

    async def answer() -> None:
        await trio.lowlevel.checkpoint()
        answers.append(1)

    def run() -> None:
        def cancel_before_the_wait(_frame: FrameType, event: str, called: Any) -> None:
            if event == "c_call" and called.__name__ == "get":
                sys.setprofile(None)
                green.current_task().cancel()

        sys.setprofile(cancel_before_the_wait)
        try:
            dromon.from_thread.run(answer)
        finally:
            seen.extend(answers)

    async with dromon.open_pool(1) as pool:
        with pytest.raises(dromon.Interrupted):
            await pool.run_sync(run, interrupt_on_cancel=True)
    assert seen == [1]


def test_callbacks_of_futures_exclude_each_other_by_a_lock(one_worker: dromon.Executor) -> None:
    lock, gate, ended = green.RLock(), threading.Event(), threading.Semaphore(0)
    inside, most = [0], [0]

    def called_back(_: Future[bool]) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            green.sleep(0.001)
            inside[0] -= 1
        ended.release()

    futures = [one_worker.submit(gate.wait) for _ in range(3)]
    for future in futures:
        future.add_done_callback(called_back)
    gate.set()
    for _ in futures:
        ended.acquire()
    assert most == [1]


def test_what_belongs_to_no_task_cannot_spawn(one_worker: dromon.Executor) -> None:
    gate = threading.Event()
    refusal: Future[str] = Future()

    def spawn_in(scope: green.Scope) -> None:
        try:
            scope.spawn(return_one)
        except RuntimeError as error:
            refusal.set_result(str(error))
        else:
            refusal.set_result("not refused")

    def run() -> str:
        with green.open_scope() as scope:
            future = one_worker.submit(gate.wait)
            future.add_done_callback(lambda _: spawn_in(scope))
            gate.set()
            refusal.result()
        return refusal.result()

    with dromon.Executor(1) as other:
        assert "on a worker" in other.submit(run).result()


def test_a_collection_while_a_call_gets_its_task_gives_it_no_second_one(
    one_worker: dromon.Executor,
) -> None:
    found = []

    def run() -> bool:
        gc.disable()
        threshold = gc.get_threshold()
        cycle = [AtItsEnd(lambda: found.append(green.current_task()))]
        cycle.append(cycle)  # type: ignore[arg-type]
        del cycle
        gc.set_threshold(1)
        try:
            some = [[None] for _ in range(10)]  # it is due from now on
            gc.enable()
            task = green.current_task()
            gc.collect()
        finally:
            gc.set_threshold(*threshold)
        return len(some) == 10 and all(each is task for each in found)

    assert one_worker.submit(run).result()
    assert len(found) == 1


async def run_in_turn_with(
    pool: dromon.Pool, function: Callable[[], object], *errors: type[Exception]
) -> None:
    async def run() -> None:
        with suppress(*errors):
            await pool.run_sync(function)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run)
            nursery.start_soon(pool.run_sync, return_one)


@own_interpreters
async def test_what_a_call_leaves_behind_may_wait_before_its_interpreter_is_emptied() -> None:
    async with dromon.open_pool(1, isolation="interpreter", max_tasks_per_worker=1) as pool:
        await run_in_turn_with(pool, leave_an_error_that_waits_at_its_end, ValueError)


@own_interpreters
async def test_an_interpreter_is_not_emptied_before_the_children_that_were_left_behind() -> None:
    async with dromon.open_pool(2, isolation="interpreter", max_tasks_per_worker=1) as pool:
        await run_in_turn_with(pool, leave_a_scope_open)


@own_interpreters
async def test_the_initializer_of_an_interpreter_may_wait() -> None:
    async with dromon.open_pool(
        1, isolation="interpreter", max_tasks_per_worker=1, initializer=initialize_with_a_wait
    ) as pool:
        await run_in_turn_with(pool, return_one)
