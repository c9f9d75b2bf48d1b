"""Whose turn it is: of green threads that can go on, new calls, and those that sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from waiting import let_wait

import dromon
from dromon import green

NEW_EVERY = 64  # turns


@pytest.fixture
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1) as pool:
        yield pool


# ---- Who goes first ------------------------------------------------------------------------------


def test_one_that_can_go_on_comes_before_calls_that_have_not_begun(pool: dromon.Pool) -> None:
    order: list[str] = []
    event, submitted = green.Event(), threading.Event()

    def wait() -> None:
        event.wait()
        order.append("resumed")

    def wake() -> None:
        submitted.wait()
        event.set()
        order.append("woken")

    waiting, waker = pool.submit(wait), pool.submit(wake)
    rest = [pool.submit(order.append, "new") for _ in range(3)]
    submitted.set()
    for future in [waiting, waker, *rest]:
        future.result()
    assert order == ["woken", "resumed", "new", "new", "new"]


def test_those_that_can_go_on_take_turns_in_the_order_in_which_they_were_woken(
    one_worker: dromon.Executor,
) -> None:
    def root() -> list[int]:
        order: list[int] = []
        events = [green.Event() for _ in range(10)]

        def wait(number: int) -> None:
            events[number].wait()
            order.append(number)

        with green.open_scope() as scope:
            let_wait(*[scope.spawn(wait, number) for number in range(10)])
            for number in (7, 2, 5, 0, 1, 9, 3, 8, 4, 6):
                events[number].set()
        return order

    assert one_worker.submit(root).result() == [7, 2, 5, 0, 1, 9, 3, 8, 4, 6]


def test_a_new_call_begins_though_another_one_gives_way_for_ever(pool: dromon.Pool) -> None:
    """The livelock of going on with resumed ones alone."""
    begun = threading.Event()

    def give_way() -> int:
        turns = 0
        while not begun.is_set():
            green.checkpoint()
            turns += 1
        return turns

    busy = [pool.submit(give_way) for _ in range(3)]
    while pool.statistics().queue_wait.total < 3:
        pass
    pool.submit(begun.set).result()
    for future in busy:
        future.result()


def test_new_calls_do_not_keep_those_from_going_on_that_can(pool: dromon.Pool) -> None:
    """Of new calls that never run dry about each 64th turn begins one, and no more."""
    stop = threading.Event()
    began = 0

    def new() -> None:
        nonlocal began
        began += 1
        if not stop.is_set():
            pool.submit(new)

    def give_way() -> int:
        other = pool.submit(take_turns)  # there has to be somebody to whom it gives way
        while not other.running():
            green.checkpoint()
        before = began
        for _ in range(100 * NEW_EVERY):
            green.checkpoint()
        stop.set()
        return began - before

    def take_turns() -> None:
        while not stop.is_set():
            green.checkpoint()

    pool.submit(new)
    count = pool.submit(give_way).result()
    # Each of both that give way makes a turn.
    assert 100 <= count <= 300


def test_few_children_that_wait_for_each_other_need_few_stacks(pool: dromon.Pool) -> None:
    """Taking new ones first would begin nearly all of them, to have them wait."""

    def wait_twice() -> None:
        green.checkpoint()
        green.checkpoint()

    def root() -> None:
        with green.open_scope() as scope:
            for _ in range(1000):
                scope.spawn(wait_twice)

    pool.submit(root).result()
    assert pool.statistics().green.stacks < 100


# ---- Sleeping ------------------------------------------------------------------------------------


def test_those_that_sleep_wake_in_the_order_of_their_times(one_worker: dromon.Executor) -> None:
    def root() -> list[int]:
        order: list[int] = []
        start = time.monotonic()

        def sleep(number: int) -> None:
            # All the same moment, however long it takes until the last one has begun.
            green.sleep(max(0, start + 0.1 - time.monotonic()) + 0.01 * number)
            order.append(number)

        with green.open_scope() as scope:
            for number in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7):
                scope.spawn(sleep, number)
        return order

    assert one_worker.submit(root).result() == list(range(10))


def test_nobody_wakes_too_early(one_worker: dromon.Executor) -> None:
    def sleep(seconds: float) -> bool:
        before = time.monotonic()
        green.sleep(seconds)
        return time.monotonic() - before >= seconds

    times = [0, 0.0001, 0.001, 0.002, 0.003, 0.02]
    assert all(one_worker.submit(green.map, sleep, times).result())


def test_a_worker_whose_green_threads_all_sleep_does_nothing_until_the_first_has_to_go_on(
    pool: dromon.Pool,
) -> None:
    """It sleeps in the kernel, once: each look that it took would be a switch of the kernel's."""

    def switches() -> int:
        status = Path(f"/proc/self/task/{tid}/status").read_text()
        lines = [line for line in status.splitlines() if "ctxt_switches" in line]
        return sum(int(line.split()[1]) for line in lines)

    (worker,) = pool.statistics().workers
    tid = worker.tid
    sleeping: list[Future[None]] = [pool.submit(green.sleep, 0.3) for _ in range(100)]
    while (statistics := pool.statistics()).green.parked < 100 or statistics.parked < 1:
        pass
    threading.Event().wait(0.05)  # until it has come to the kernel
    before, parks = switches(), pool.statistics().parks
    threading.Event().wait(0.1)
    if not any(future.done() for future in sleeping):  # else this thread has slept for too long
        assert (switches(), pool.statistics().parks) == (before, parks)
    for future in sleeping:
        future.result()


def test_who_waits_with_a_time_limit_wakes_by_what_comes_first(
    one_worker: dromon.Executor,
) -> None:
    def root() -> list[str]:
        lock, event = green.Lock(), green.Event()
        order = []

        def hold() -> None:
            with lock:
                event.wait(timeout=3600)
            order.append("set")

        def want() -> None:
            with pytest.raises(TimeoutError):
                lock.acquire(timeout=0.001)
            order.append("timed out")
            event.set()

        with green.open_scope() as scope:
            let_wait(scope.spawn(hold))
            scope.spawn(want)
        return order

    assert one_worker.submit(root).result() == ["timed out", "set"]


def test_a_call_begins_though_a_green_thread_sleeps(pool: dromon.Pool) -> None:
    begun = threading.Event()

    def sleep() -> None:
        with green.open_scope() as scope:
            task = scope.spawn(green.sleep, 3600)
            while not begun.is_set():
                green.sleep(0.001)
            task.cancel()

    sleeping = pool.submit(sleep)
    pool.submit(begun.set).result()
    sleeping.result()
