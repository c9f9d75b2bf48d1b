"""What a pool counts: calls, how they ended, and how long they waited and ran."""

from __future__ import annotations

import ctypes
import inspect
import math
import threading
import time
from functools import partial
from itertools import pairwise

import attrs
import pytest
import trio
import trio.testing

import dromon
from dromon._native import ffi, lib
from dromon._statistics import read_statistics

# ---- Histograms ----------------------------------------------------------------------------------


def histogram_of(**buckets: int) -> dromon.Histogram:
    """A histogram in which bucket ``n`` has as many as ``_n`` says."""
    numbers = range(lib.DROMON_HISTOGRAM_BUCKETS)
    return dromon.Histogram(tuple(buckets.get(f"_{number}", 0) for number in numbers))


def count_from(histogram: dromon.Histogram, seconds: float) -> int:
    """How many took at least `seconds`, or so long that it cannot be told."""
    pairs = zip(histogram.bounds, histogram.counts, strict=True)
    return sum(count for bound, count in pairs if bound > seconds)


def test_each_bound_is_twice_the_one_before_and_the_first_is_2_nanoseconds() -> None:
    bounds = histogram_of().bounds
    assert bounds[0] == 2e-9
    assert len(bounds) == len(histogram_of().counts)
    for lower, upper in pairwise(bounds):
        assert upper == pytest.approx(2 * lower, rel=1e-12)


def test_the_total_is_the_sum_of_the_counts() -> None:
    assert histogram_of(_3=5, _40=2).total == 7
    assert histogram_of().total == 0


@pytest.mark.parametrize(
    ("fraction", "bucket"),
    [(0, 10), (0.1, 10), (0.25, 10), (0.26, 12), (0.5, 12), (0.75, 12), (0.751, 30), (1, 30)],
)
def test_a_quantile_is_the_upper_bound_of_the_bucket_in_which_the_fraction_is_reached(
    fraction: float, bucket: int
) -> None:
    histogram = histogram_of(_10=1, _12=2, _30=1)
    assert histogram.quantile(fraction) == histogram.bounds[bucket]


def test_where_nothing_was_counted_a_quantile_is_not_a_number() -> None:
    assert math.isnan(histogram_of().quantile(0.5))


@pytest.mark.parametrize("fraction", [-0.01, 1.01, 95, math.nan])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction must be from 0 to 1, not {fraction}"):
        histogram_of(_1=1).quantile(fraction)


def test_histograms_are_values() -> None:
    assert histogram_of(_3=5) == histogram_of(_3=5) != histogram_of(_3=6)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        histogram_of().counts = ()  # type: ignore[misc]


@pytest.mark.parametrize("method", ["total", "quantile"])
def test_what_a_histogram_tells_is_documented(method: str) -> None:
    assert inspect.getdoc(getattr(dromon.Histogram, method))


# ---- Times ---------------------------------------------------------------------------------------


async def test_each_call_is_counted_once_when_it_begins_and_once_when_it_ends() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        for number in range(3):
            assert await pool.run_sync(int, str(number)) == number
        nursery.start_soon(pool.run_sync, work)
        await trio.to_thread.run_sync(begun.wait)
        statistics = pool.statistics()
        assert statistics.queue_wait.total == 4
        assert statistics.run_time.total == 3
        release.set()
    statistics = pool.statistics()
    assert statistics.completed == statistics.queue_wait.total == statistics.run_time.total == 4


async def test_a_call_is_counted_with_the_time_that_it_waited_and_ran() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, work)
        await trio.to_thread.run_sync(begun.wait)
        began = time.monotonic()
        future = pool.submit(int)
        submitted = time.monotonic()
        await trio.to_thread.run_sync(time.sleep, 0.01)
        waited, ran = time.monotonic() - submitted, time.monotonic() - began
        release.set()
        await trio.to_thread.run_sync(future.result)
    assert count_from(pool.statistics().queue_wait, waited) == 1
    assert count_from(pool.statistics().run_time, ran) == 1


async def test_calls_that_calls_submit_are_counted() -> None:
    async with dromon.open_pool(2) as pool:
        await pool.run_sync(lambda: pool.submit(int))
    assert pool.statistics().queue_wait.total == 2
    assert pool.statistics().run_time.total == 2


async def test_native_calls_are_counted() -> None:
    libc = ctypes.CDLL(None)
    async with dromon.open_pool(1) as pool:
        for _ in range(3):
            await pool.run_native(libc.abs, 5)
    assert pool.statistics().queue_wait.total == 3
    assert pool.statistics().run_time.total == 3


# ---- Ends ----------------------------------------------------------------------------------------


async def test_a_cancelled_call_is_counted_as_such_and_in_no_histogram() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, work)
        await trio.to_thread.run_sync(begun.wait)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(pool.run_sync, int)
                await trio.testing.wait_all_tasks_blocked()
                assert pool.statistics().queued == 1
                scope.cancel()
        release.set()
    statistics = pool.statistics()
    assert (statistics.cancelled, statistics.completed, statistics.abandoned) == (1, 1, 0)
    assert statistics.queue_wait.total == statistics.run_time.total == 1


async def test_an_abandoned_call_is_counted_as_such_when_it_ends() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(1) as pool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.run_sync, work, abandon_on_cancel=True))
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
        statistics = pool.statistics()
        assert (statistics.running, statistics.abandoned) == (1, 0)
        release.set()
    statistics = pool.statistics()
    assert (statistics.completed, statistics.abandoned, statistics.interrupted) == (1, 1, 0)
    assert statistics.run_time.total == 1


async def test_an_interrupted_call_is_counted_as_such() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while True:
            pass

    async with dromon.open_pool(1) as pool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.run_sync, work, interrupt_on_cancel=True))
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
        await pool.run_sync(int)
    statistics = pool.statistics()
    assert (statistics.completed, statistics.abandoned, statistics.interrupted) == (2, 0, 1)


async def test_a_call_that_catches_its_interrupt_was_not_cut_short() -> None:
    begun = threading.Event()

    def work() -> str:
        try:
            begun.set()
            while True:
                pass
        except dromon.Interrupted:
            return "caught"

    async def run() -> None:
        results.append(await pool.run_sync(work, interrupt_on_cancel=True))

    results: list[str] = []
    async with dromon.open_pool(1) as pool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
    assert results == ["caught"]
    assert (pool.statistics().completed, pool.statistics().interrupted) == (1, 0)


def test_each_field_of_a_histogram_is_documented() -> None:
    for field in attrs.fields(dromon.Histogram):
        assert f"\n  {field.name} (" in inspect.cleandoc(dromon.Histogram.__doc__ or "")


# ---- Replaced workers ----------------------------------------------------------------------------


def test_workers_that_were_replaced_are_counted() -> None:
    libc = ctypes.CDLL(None)
    semaphore = ctypes.create_string_buffer(64)
    libc.sem_init(semaphore, 0, 0)
    port, core = ffi.new("dromon_port **"), ffi.new("dromon_pool **")
    assert lib.dromon_port_open(port) == 0
    assert lib.dromon_pool_open(ffi.new("dromon_pool_config *", {"workers": 1}), core) == 0
    task = ffi.new("dromon_native_task *")
    sem_wait = ffi.cast("int (*)(void *)", ctypes.cast(libc.sem_wait, ctypes.c_void_p).value)
    argument = ffi.cast("void *", ctypes.addressof(semaphore))
    lib.dromon_native_task_init(task, sem_wait, argument, port[0])
    assert lib.dromon_pool_submit(core[0], ffi.addressof(task.task)) == 0
    while (began := lib.dromon_pool_read_began(core[0], 0)) == 0:
        time.sleep(0.001)
    before = read_statistics(core[0], 1, "dromon")
    assert lib.dromon_pool_replace(core[0], 0, began) == 0
    after = read_statistics(core[0], 1, "dromon")
    libc.sem_post(semaphore)
    assert lib.dromon_port_wait(port[0], -1) == 0
    assert lib.dromon_pool_close(core[0], ffi.NULL) == 0
    assert lib.dromon_pool_join(core[0]) == 0
    lib.dromon_pool_unref(core[0])
    lib.dromon_port_unref(port[0])
    assert (before.retired, after.retired) == (0, 1)
    assert before.workers[0].name == after.workers[0].name
    assert before.workers[0].tid != after.workers[0].tid
