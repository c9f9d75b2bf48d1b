"""Opening, closing, describing and sharing pools."""

from __future__ import annotations

import gc
import inspect
import os
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from child import check_child

import dromon
from dromon import _call, _cpus, _pool
from dromon._native import lib


def task_names() -> dict[int, str]:
    """The kernel's view of this process: thread ids and names."""
    names = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            names[int(task.name)] = (task / "comm").read_text().strip()
        except OSError:  # it has just ended
            continue
    return names


# ---- Opening -------------------------------------------------------------------------------------


async def test_a_pool_of_n_workers_is_n_new_threads_and_a_monitor_with_our_names() -> None:
    before = task_names()

    def new_tasks() -> dict[int, str]:
        return {tid: name for tid, name in task_names().items() if tid not in before}

    async with dromon.open_pool(workers=3) as pool:
        with trio.fail_after(30):
            # The kernel may list the threads that the workers grew from a moment longer.
            while len(new_tasks()) > 3 + 1:
                await trio.lowlevel.checkpoint()
        tasks = new_tasks()
        assert sorted(tasks.values()) == ["dromon-0", "dromon-1", "dromon-2", "dromon-monitor"]
        workers = {worker.tid: worker.name for worker in pool.statistics().workers}
        assert workers == {tid: name for tid, name in tasks.items() if name != "dromon-monitor"}


@pytest.mark.parametrize("workers", [0, -1, 1025, 10**30])
def test_a_number_of_workers_out_of_range_is_refused_at_the_call(workers: int) -> None:
    with pytest.raises(ValueError, match=rf"workers must be from 1 to 1024, not {workers}"):
        dromon.open_pool(workers)


@pytest.mark.parametrize("workers", ["2", 2.0])
def test_a_number_of_workers_that_is_no_integer_is_refused_at_the_call(workers: object) -> None:
    with pytest.raises(TypeError, match=rf"workers must be an integer or None, not {workers!r}"):
        dromon.open_pool(workers)  # type: ignore[arg-type]


async def test_opening_and_closing_are_protected_from_keyboard_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protected = []

    def watch(module: Any, name: str) -> None:
        function = getattr(module, name)

        def watched(*args: object) -> object:
            protected.append((name, trio.lowlevel.currently_ki_protected()))
            return function(*args)

        monkeypatch.setattr(module, name, watched)

    watch(_pool, "open_core")
    watch(_call, "current_port")
    async with dromon.open_pool(workers=1):
        assert not trio.lowlevel.currently_ki_protected()
    assert protected == [("open_core", True), ("current_port", True)]


async def test_the_default_is_a_worker_per_usable_cpu() -> None:
    async with dromon.open_pool() as pool:
        assert len(pool.statistics().workers) == _cpus.usable_cpus()


async def test_opening_and_closing_are_checkpoints() -> None:
    with trio.testing.assert_checkpoints():
        async with dromon.open_pool(workers=1):
            pass


def test_the_default_pool_has_as_many_workers_as_the_environment_says() -> None:
    script = """
        import threading, trio, dromon
        assert trio.run(dromon.to_thread.run_sync, int) == 0
        print(sum(thread.name.startswith("dromon-") for thread in threading.enumerate()))
    """
    check_child(script, "5", env={"DROMON_WORKERS": "5"})


@pytest.mark.parametrize("value", ["", "none", "0", "99999"])
def test_a_bad_number_of_workers_in_the_environment_is_named(value: str) -> None:
    script = """
        import trio, dromon
        try:
            trio.run(dromon.to_thread.run_sync, int)
        except ValueError as error:
            print(error)
    """
    expected = f"DROMON_WORKERS must be a number from 1 to 1024, not {value!r}"
    check_child(script, expected, env={"DROMON_WORKERS": value})


# ---- Closing -------------------------------------------------------------------------------------


async def test_leaving_the_block_waits_for_what_runs_and_for_what_is_queued() -> None:
    release = threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        release.wait()
        done.append(number)

    async with trio.open_nursery() as nursery:
        async with dromon.open_pool(workers=1) as pool:
            for number in range(3):
                nursery.start_soon(pool.run_sync, work, number)
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert sorted(done) == [0, 1, 2]


async def test_leaving_the_block_waits_for_abandoned_work() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()
        ended.set()

    async with dromon.open_pool(workers=1) as pool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: pool.run_sync(work, abandon_on_cancel=True))
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
        release.set()
    assert ended.is_set()


async def test_leaving_the_block_by_cancellation_still_waits() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()
        ended.set()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with dromon.open_pool(workers=1) as pool:
                nursery.start_soon(pool.run_sync, work)
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
                release.set()
        assert ended.is_set()


async def test_a_closed_pool_refuses_calls() -> None:
    async with dromon.open_pool(workers=1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError):
        await pool.run_sync(int)
    with pytest.raises(trio.ClosedResourceError):  # trio's own word for it
        await pool.run_sync(int)


async def test_a_closed_pool_has_no_workers_and_keeps_its_counts() -> None:
    async with dromon.open_pool(workers=2) as pool:
        await pool.run_sync(int)
    statistics = pool.statistics()
    assert statistics.workers == ()
    assert statistics.completed >= 1


async def test_an_exception_in_the_block_comes_out_and_the_pool_is_closed() -> None:
    with pytest.raises(LookupError):
        async with dromon.open_pool(workers=1) as pool:
            raise LookupError
    with pytest.raises(dromon.ClosedPoolError):
        await pool.run_sync(int)


# ---- Statistics ----------------------------------------------------------------------------------


async def test_statistics_count_calls_that_run_wait_and_are_done() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(workers=1) as pool:
        await pool.run_sync(int)
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run_sync(int, "x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, work)
            await trio.to_thread.run_sync(begun.wait)
            nursery.start_soon(pool.run_sync, int)
            nursery.start_soon(pool.run_sync, int)
            await trio.testing.wait_all_tasks_blocked()
            statistics = pool.statistics()
            assert (statistics.running, statistics.queued, statistics.completed) == (1, 2, 2)
            assert statistics.parked == 0
            release.set()
        statistics = pool.statistics()
        assert (statistics.running, statistics.queued, statistics.completed) == (0, 0, 5)
        assert 1 <= statistics.batches <= 5


async def test_statistics_are_frozen() -> None:
    async with dromon.open_pool(workers=1) as pool:
        statistics = pool.statistics()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.parked = 0  # type: ignore[misc]


@pytest.mark.parametrize(
    "cls", [dromon.PoolStatistics, dromon.WorkerStatistics, dromon.GreenStatistics]
)
def test_each_field_of_the_statistics_is_documented(cls: type[attrs.AttrsInstance]) -> None:
    for field in attrs.fields(cls):
        assert f"\n  {field.name} (" in inspect.cleandoc(cls.__doc__ or "")


async def test_parked_workers_never_run() -> None:
    """No CPU when idle: a thread that the kernel never switches to uses none."""

    def switches(tid: int) -> list[str]:
        status = Path(f"/proc/self/task/{tid}/status").read_text()
        return [line for line in status.splitlines() if "ctxt_switches" in line]

    async with dromon.open_pool(workers=3) as pool:
        await pool.run_sync(int)
        while pool.statistics().parked < 3:
            await trio.lowlevel.checkpoint()
        workers = pool.statistics().workers
        # Counted as parked a moment before they are in the kernel: let them arrive there.
        while any(
            Path(f"/proc/self/task/{worker.tid}/stat").read_text().rpartition(")")[2].split()[0]
            != "S"
            for worker in workers
        ):
            await trio.lowlevel.checkpoint()
        before = [switches(worker.tid) for worker in workers]
        for _ in range(10):
            await trio.to_thread.run_sync(sum, range(100_000))
        assert [switches(worker.tid) for worker in workers] == before


# ---- Sharing -------------------------------------------------------------------------------------


def test_two_runs_one_after_the_other_use_the_default_pool() -> None:
    tids = {worker.tid for worker in _default_workers()}
    for _ in range(2):
        assert trio.run(dromon.to_thread.run_sync, threading.get_native_id) in tids
    assert {worker.tid for worker in _default_workers()} == tids


def _default_workers() -> tuple[dromon.WorkerStatistics, ...]:
    from dromon._pool import thread_pool

    return thread_pool.get().statistics().workers


async def test_100_000_tiny_tasks_from_several_runs_at_once_none_lost_or_doubled() -> None:
    runs, tasks, calls = 4, 100, 250
    seen: list[Counter[int]] = [Counter() for _ in range(runs)]
    executed: list[int] = []  # append is atomic

    def work(number: int) -> int:
        executed.append(number)
        return number

    def run(pool: dromon.Pool, index: int) -> None:
        async def task(start: int) -> None:
            for number in range(start, start + calls):
                seen[index][await pool.run_sync(work, number)] += 1

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for each in range(tasks):
                    nursery.start_soon(task, (index * tasks + each) * calls)

        trio.run(main)

    async with dromon.open_pool(workers=3) as pool:
        threads = [threading.Thread(target=run, args=(pool, index)) for index in range(runs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
    total = runs * tasks * calls
    assert total == 100_000
    assert sum(seen, Counter()) == Counter(range(total))
    assert Counter(executed) == Counter(range(total))


async def test_more_calls_than_the_queue_holds_wait_their_turn() -> None:
    release = threading.Event()
    calls = lib.DROMON_QUEUE_CAPACITY_DEFAULT * 2
    order: list[int] = []
    async with dromon.open_pool(workers=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, release.wait)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(calls):
            nursery.start_soon(pool.run_sync, order.append, number)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().queued == calls
        release.set()
    assert sorted(order) == list(range(calls))


def test_a_result_that_comes_after_its_run_has_ended_is_swallowed() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    async def abandon() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: dromon.to_thread.run_sync(work, abandon_on_cancel=True))
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()

    trio.run(abandon)
    release.set()
    assert trio.run(dromon.to_thread.run_sync, int) == 0


# ---- The end of a run ----------------------------------------------------------------------------


def test_a_system_task_gets_its_result_though_the_main_task_has_ended() -> None:
    begun, release, results = threading.Event(), threading.Event(), []

    def work() -> bool:
        begun.set()
        return release.wait()

    async def system_task() -> None:
        results.append(await dromon.to_thread.run_sync(work))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(system_task)
        await trio.to_thread.run_sync(begun.wait)
        trio.lowlevel.current_trio_token().run_sync_soon(release.set)

    trio.run(main)
    assert results == [True]


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("limited", [False, True])
def test_an_async_generator_that_trio_finalises_makes_calls(
    used_before: bool, limited: bool
) -> None:
    results = []

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                limiter = trio.CapacityLimiter(1) if limited else None
                results.append(await dromon.to_thread.run_sync(int, "5", limiter=limiter))

    async def main() -> None:
        if used_before:
            await dromon.to_thread.run_sync(int)
        kept.append(generator())
        await anext(kept[0])

    kept: list[AsyncGenerator[None, None]] = []
    trio.run(main)
    assert results == [5]


def test_an_async_generator_that_trio_finalises_closes_its_pool() -> None:
    pools = []

    async def generator() -> AsyncGenerator[None, None]:
        async with dromon.open_pool(workers=1) as pool:
            pools.append(pool)
            yield

    async def main() -> None:
        kept.append(generator())
        await anext(kept[0])

    kept: list[AsyncGenerator[None, None]] = []
    trio.run(main)
    assert pools[0].statistics().workers == ()


def test_a_run_leaves_no_descriptor_behind() -> None:
    gc.disable()
    try:
        trio.run(dromon.to_thread.run_sync, int)
        before = os.listdir("/proc/self/fd")
        for _ in range(20):
            trio.run(dromon.to_thread.run_sync, int)
        assert os.listdir("/proc/self/fd") == before
    finally:
        gc.enable()


# ---- Leaks ---------------------------------------------------------------------------------------


async def test_1000_cycles_of_opening_and_closing_leak_nothing() -> None:
    def resources() -> tuple[int, int, int]:
        mappings = len(Path("/proc/self/maps").read_text().splitlines())
        return mappings, len(os.listdir("/proc/self/fd")), len(task_names())

    async def cycle() -> None:
        async with dromon.open_pool(workers=2) as pool:
            await pool.run_sync(int)

    def dromon_entries() -> int:
        return sum(thread.name.startswith("dromon-") for thread in threading.enumerate())

    for _ in range(20):  # warm: allocator arenas, caches
        await cycle()
    gc.collect()
    objects = len(gc.get_objects())
    mappings, descriptors, threads = resources()
    entries = dromon_entries()
    for _ in range(1000):
        await cycle()
    gc.collect()
    # The kernel may list a joined thread a moment longer.
    with trio.fail_after(60):
        while len(task_names()) > threads:
            await trio.lowlevel.checkpoint()
    assert resources()[1] == descriptors
    assert resources()[0] <= mappings + 10  # the allocator may map a new arena, not one per cycle
    assert dromon_entries() == entries
    assert len(gc.get_objects()) <= objects + 500


def test_a_closed_pool_leaves_no_entry_in_the_table_of_threads() -> None:
    check_child(
        """
        import threading, trio, dromon

        async def main():
            async with dromon.open_pool(workers=3) as pool:
                await pool.run_sync(int)
                print(len(threading.enumerate()))

        trio.run(main)
        print(threading.enumerate() == [threading.main_thread()])
        """,
        "4\nTrue",
    )
