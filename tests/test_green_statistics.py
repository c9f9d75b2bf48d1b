"""What a pool counts of its green threads, and what its warning of saturation makes of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import let_wait, wait_inside

import dromon
from dromon import _saturation, green


@pytest.fixture
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1) as pool:
        yield pool


def with_waiting(count: int, look: Callable[[], Any]) -> Any:
    """What `look` gives while so many children wait; on a worker."""
    event = green.Event()
    with green.open_scope() as scope:
        let_wait(*[scope.spawn(wait_inside, event) for _ in range(count)])
        result = look()
        event.set()
    return result


def green_now(pool: dromon.Pool) -> dromon.GreenStatistics:
    return pool.statistics().green


def test_before_one_has_waited_there_is_nothing_to_count(pool: dromon.Pool) -> None:
    pool.submit(int).result()
    assert green_now(pool) == dromon.GreenStatistics(0, 0, 0, 0, 0, 0)


def test_those_that_wait_are_counted_as_parked(pool: dromon.Pool) -> None:
    statistics = pool.submit(with_waiting, 5, lambda: green_now(pool)).result()
    assert statistics.parked == 5
    assert green_now(pool).parked == 0


def test_each_time_that_one_parks_is_counted(pool: dromon.Pool) -> None:
    def work() -> int:
        before = green_now(pool).parks
        for _ in range(10):
            green.sleep(0.0001)
        return green_now(pool).parks - before

    assert pool.submit(work).result() == 10


def test_those_that_run_in_place_of_the_wait_for_them_park_nobody(pool: dromon.Pool) -> None:
    pool.submit(green.map, int, ["1"] * 100).result()
    statistics = green_now(pool)
    assert (statistics.parks, statistics.switches) == (0, 0)


def test_a_switch_from_one_stack_to_another_is_counted(pool: dromon.Pool) -> None:
    statistics = pool.submit(with_waiting, 5, lambda: green_now(pool)).result()
    # To each that has parked the worker comes back; and away from each it went at least once.
    assert green_now(pool).switches - statistics.switches >= 5
    assert statistics.switches >= 5


def test_stacks_are_counted_and_kept_for_the_next_ones(pool: dromon.Pool) -> None:
    first = pool.submit(with_waiting, 5, lambda: green_now(pool)).result()
    # One parks on the thread's own stack, or the one that looks is there.
    assert 5 <= first.stacks <= 6
    again = pool.submit(with_waiting, 5, lambda: green_now(pool)).result()
    assert again.stacks <= first.stacks + 1


def test_the_address_space_of_the_stacks_is_told(pool: dromon.Pool) -> None:
    (worker,) = pool.statistics().workers
    each = worker.stack_size + worker.guard_size
    statistics = pool.submit(with_waiting, 5, lambda: green_now(pool)).result()
    assert statistics.stack_space % each == 0
    assert statistics.stack_space >= statistics.stacks * each


def test_a_wait_that_blocks_its_thread_is_counted(pool: dromon.Pool) -> None:
    greenlet = pytest.importorskip("greenlet", reason="greenlet is not installed")

    def work() -> None:
        greenlet.greenlet(green.sleep).switch(0.001)

    pool.submit(work).result()
    statistics = green_now(pool)
    assert (statistics.blocks, statistics.parks) == (1, 0)


def test_a_call_that_waits_still_runs_as_far_as_calls_are_counted(pool: dromon.Pool) -> None:
    event = green.Event()
    future = pool.submit(wait_inside, event)
    while green_now(pool).parked < 1:
        pass
    statistics = pool.statistics()
    assert (statistics.running, statistics.queued, statistics.completed) == (1, 0, 0)
    event.set()
    future.result()
    assert pool.statistics().completed == 1


# ---- Saturation ----------------------------------------------------------------------------------


# Seconds; long enough that a busy machine does not keep a worker from its calls all that time.
SATURATED_AFTER = 0.2


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is logged, with pools that count as saturated soon."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    monkeypatch.setattr(_saturation, "SATURATED_AFTER", SATURATED_AFTER)
    messages: list[str] = []
    handler = Handler()
    _saturation.logger.addHandler(handler)
    yield messages
    _saturation.logger.removeHandler(handler)


def spin(turns: int) -> None:
    """Keep this thread until the monitor could have found the pool saturated so many times."""
    done = threading.Event()
    for _ in range(turns):
        done.wait(SATURATED_AFTER)


def test_workers_whose_tasks_are_all_parked_are_not_busy(warned: list[str]) -> None:
    with dromon.Pool(1) as pool:
        event = green.Event()
        waiting = [pool.submit(wait_inside, event) for _ in range(50)]
        # The last call, which runs after them. To ask again and again would hold them up.
        pool.submit(int).result()
        assert green_now(pool).parked == 50
        spin(2)
        assert pool.submit(int).result() == 0
        event.set()
        for future in waiting:
            future.result()
    assert warned == []


def test_children_that_wait_for_their_turn_are_no_calls_that_wait(warned: list[str]) -> None:
    """They are queued on purpose, and their parent runs them itself."""

    def root() -> None:
        green.map(spin, [1] * 6)

    with dromon.Pool(1) as pool:
        pool.submit(root).result()
    assert warned == []


def test_a_call_that_waits_behind_children_is_told_of(warned: list[str]) -> None:
    submitted = threading.Event()

    def root() -> None:
        submitted.wait()
        while not warned:
            green.map(spin, [1] * 3)

    with dromon.Pool(1) as pool:
        pool.submit(root)
        pool.submit(int)
        submitted.set()
    assert "and 1 call waits, oldest first: int. If " in warned[0]
