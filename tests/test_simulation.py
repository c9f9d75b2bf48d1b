"""The simulated scheduler (benchmarks/simulation.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation import (
    BATCH_TASKS,
    LONGEST_SEARCH_NS,
    RING,
    Costs,
    Gil,
    Line,
    Load,
    Search,
    simulate,
)

FREE = Costs(submit=0, take=0, run=0, write=0, move=0, line=0, wake=0, lag=0, look=0)
COSTS = Costs(
    submit=50, take=300, run=200, write=5, move=70, line=20, wake=10_000, lag=20_000, look=1
)


@pytest.mark.parametrize("workers", [1, 2, 17])
@pytest.mark.parametrize("gil", ["none", "held", "released"])
@pytest.mark.parametrize("work", [0, 3_000])
def test_each_task_ends_once(workers: int, gil: Gil, work: float) -> None:
    load = Load(tasks=1_000, work=work, window=100, gil=gil)
    assert simulate(load, COSTS, workers, cpus=4).tasks == 1_000


@pytest.mark.parametrize("workers", [1, 2, 17])
def test_each_task_of_a_tree_ends_once(workers: int) -> None:
    load = Load(tasks=1_000, work=100, tree=True)
    assert simulate(load, COSTS, workers, cpus=32).tasks == 1_000


def test_one_worker_takes_what_its_tasks_take_one_after_the_other() -> None:
    costs = replace(FREE, run=200)
    outcome = simulate(Load(tasks=500, work=1_000), costs, workers=1, cpus=2)
    assert outcome.ns == pytest.approx(500 * (200 + 1_000))
    assert outcome.shares["the workers"] == pytest.approx(1_000 / 1_200)


def test_workers_with_a_cpu_each_share_the_work() -> None:
    outcome = simulate(Load(tasks=800, work=1_000), FREE, workers=8, cpus=9)
    assert outcome.ns == pytest.approx(800 * 1_000 / 8)


def test_cpus_are_shared_by_the_threads_that_are_awake() -> None:
    costs = replace(FREE, lag=1)  # the loop sleeps while tasks begin
    outcome = simulate(Load(tasks=800, work=1_000), costs, workers=8, cpus=4)
    assert outcome.ns == pytest.approx(800 * 1_000 / 4, rel=0.01)


def test_a_loop_feeds_no_more_workers_than_it_has_time_for() -> None:
    costs = replace(FREE, submit=100)
    outcome = simulate(Load(tasks=2_000, work=1_000), costs, workers=64, cpus=65)
    assert outcome.each == pytest.approx(100, rel=0.02)
    assert outcome.first == "the loop"


def test_one_line_gives_out_what_was_queued_before() -> None:
    costs = replace(FREE, move=70, line=130)
    load = Load(tasks=5 * RING, work=1_000, queued=True)
    outcome = simulate(load, costs, workers=64, cpus=65)
    assert outcome.first == "the ring's line"
    assert outcome.each == pytest.approx((4 * 200 + 70) / 5, rel=0.02)


def test_work_under_the_gil_is_done_one_after_the_other() -> None:
    load = Load(tasks=640, work=10_000, window=640, gil="held")
    outcome = simulate(load, FREE, workers=8, cpus=9)
    assert outcome.ns == pytest.approx(640 * 10_000)
    assert outcome.first == "the GIL"


def test_work_without_the_gil_is_done_at_once() -> None:
    load = Load(tasks=8 * BATCH_TASKS, work=10_000, window=8 * BATCH_TASKS, gil="released")
    outcome = simulate(load, FREE, workers=8, cpus=9)
    assert outcome.ns < 8 * BATCH_TASKS * 10_000 / 4


def test_tasks_that_submit_tasks_are_stolen() -> None:
    outcome = simulate(Load(tasks=4_000, work=1_000, tree=True), COSTS, workers=4, cpus=5)
    assert outcome.steals > 0
    assert outcome.each < 1_000


def test_the_same_seed_gives_the_same_numbers() -> None:
    load = Load(tasks=2_000, work=500, tree=True)
    first, second = (simulate(load, COSTS, workers=8, cpus=9, seed=7) for _ in range(2))
    assert first == second


def test_a_line_that_another_has_written_is_dearer() -> None:
    line = Line(COSTS)
    assert line.use("one", now=0) == COSTS.move
    assert line.use("one", now=1_000) == COSTS.write


def test_who_comes_to_a_line_in_use_waits() -> None:
    line = Line(COSTS)
    line.use("one", now=0)
    assert line.use("other", now=0) == 2 * COSTS.move


def test_searches_in_vain_get_shorter_until_there_are_none() -> None:
    search = Search()
    lengths = []
    for _ in range(6):
        lengths.append(search.begin())
        search.end(found=False)
    assert lengths == [LONGEST_SEARCH_NS // part for part in (1, 2, 4, 8, 16)] + [0]


def test_a_search_that_paid_is_longer_the_next_time() -> None:
    search = Search()
    search.end(found=False)
    search.end(found=True)
    assert search.begin() == LONGEST_SEARCH_NS
