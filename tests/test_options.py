"""The options of open_pool: what is refused, and what they do to the workers."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from child import check_child, run_child

import dromon
from dromon._native import lib

CPUS = sorted(os.sched_getaffinity(0))


def spawn_counts() -> list[int]:
    ways = (lib.DROMON_SPAWN_CLONE3, lib.DROMON_SPAWN_CLONE, lib.DROMON_SPAWN_PTHREAD)
    return [lib.dromon_spawn_count(way) for way in ways]


def ignore(_: object) -> None:
    """Does nothing with a stall."""


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_capacity": 0}, "queue_capacity must be from 1 to 1048576, not 0"),
        ({"queue_capacity": 2**20 + 1}, "queue_capacity must be from 1 to 1048576, not 1048577"),
        ({"stack_size": 262_143}, "stack_size must be from 262144 to 1099511627776, not 262143"),
        ({"stack_size": 2**40 + 1}, "stack_size must be from 262144 to .*, not 1099511627777"),
        ({"guard_size": 0}, "guard_size must be from 1 to 1099511627776, not 0"),
        ({"guard_size": -1}, "guard_size must be from 1 to 1099511627776, not -1"),
        ({"affinity": [0], "workers": 2}, "one entry for each of the 2 workers, not 1"),
        ({"affinity": [0, 0], "workers": 1}, "one entry for each of the 1 workers, not 2"),
        ({"affinity": []}, "affinity must have an entry for each worker, and has none"),
        ({"affinity": [0, set()]}, "affinity must not have an empty set of CPUs"),
        ({"affinity": [-1]}, r"affinity must name CPUs from 0 to 8191, not \[-1\]"),
        ({"affinity": [{0, 8192}]}, r"affinity must name CPUs from 0 to 8191, not \[0, 8192\]"),
        ({"nice": 40}, "nice must be from -39 to 39, not 40"),
        ({"nice": -40}, "nice must be from -39 to 39, not -40"),
        ({"sched_policy": os.SCHED_FIFO}, "sched_policy must be os.SCHED_OTHER, .* not 1"),
        ({"sched_policy": "batch"}, "sched_policy must be os.SCHED_OTHER, .* not 'batch'"),
        ({"stall_after": 0}, "stall_after must be from 0.001 to 1000000000 seconds, not 0.0"),
        ({"stall_after": 2e9}, "stall_after must be from .* seconds, not 2000000000.0"),
        ({"stall_after": float("inf")}, "stall_after must be .* seconds, not inf"),
        ({"stall_after": float("nan")}, "stall_after must be .* seconds, not nan"),
        ({"on_stall": ignore}, "on_stall needs stall_after, the seconds after which"),
    ],
)
def test_an_option_out_of_range_is_refused_at_the_call(
    options: dict[str, Any], message: str
) -> None:
    before = spawn_counts()
    with pytest.raises(ValueError, match=message):
        dromon.open_pool(**options)
    assert spawn_counts() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_capacity": 2.0}, "queue_capacity must be an integer or None, not 2.0"),
        ({"stack_size": "8 MiB"}, "stack_size must be a number of bytes or None, not '8 MiB'"),
        ({"guard_size": 65536.0}, "guard_size must be a number of bytes or None, not 65536.0"),
        ({"affinity": 0}, "affinity must have a CPU or a set of CPUs for each worker, not 0"),
        ({"affinity": [None]}, r"affinity must have a CPU or a set of CPUs .*, not \[None\]"),
        ({"affinity": [[0.0]]}, r"affinity must have a CPU or a set of CPUs .*, not \[\[0.0\]\]"),
        ({"affinity": "01"}, "affinity must have a CPU or a set of CPUs .*, not '01'"),
        ({"nice": None}, "nice must be an integer, not None"),
        ({"nice": 0.5}, "nice must be an integer, not 0.5"),
        ({"stall_after": "soon"}, "stall_after must be a number of seconds, not 'soon'"),
        ({"stall_after": 1, "on_stall": 1}, "on_stall must be callable, not 1"),
    ],
)
def test_an_option_of_a_wrong_type_is_refused_at_the_call(
    options: dict[str, Any], message: str
) -> None:
    before = spawn_counts()
    with pytest.raises(TypeError, match=message):
        dromon.open_pool(**options)
    assert spawn_counts() == before


async def test_what_is_at_the_edge_of_its_range_is_taken() -> None:
    options: list[dict[str, Any]] = [
        {"queue_capacity": 1},
        {"queue_capacity": 2**20},
        {"stack_size": 262_144},
        {"guard_size": 1},
        {"nice": 39},  # the kernel takes it for 19, the highest there is
        {"stall_after": 0.001},
        {"stall_after": 10**9},
    ]
    for each in options:
        async with dromon.open_pool(1, **each) as pool:
            assert await pool.run_sync(int, "7") == 7


# ---- Where workers run ---------------------------------------------------------------------------


async def test_affinity_pins_each_worker_to_its_cpu_or_its_set() -> None:
    affinity: list[Any] = [CPUS[0], CPUS[-1], set(CPUS), (cpu for cpu in CPUS[:1])]
    async with dromon.open_pool(affinity=affinity) as pool:
        allowed = [os.sched_getaffinity(each.tid) for each in pool.statistics().workers]
    assert allowed == [{CPUS[0]}, {CPUS[-1]}, set(CPUS), {CPUS[0]}]


async def test_there_are_as_many_workers_as_affinity_has_entries() -> None:
    async with dromon.open_pool(affinity=[CPUS] * 3) as pool:
        assert len(pool.statistics().workers) == 3


async def test_cpus_that_the_process_may_not_use_do_not_count() -> None:
    async with dromon.open_pool(affinity=[{CPUS[0], 8191}]) as pool:
        (worker,) = pool.statistics().workers
        assert os.sched_getaffinity(worker.tid) == {CPUS[0]}


async def test_an_affinity_without_a_usable_cpu_is_a_spawn_error_that_names_it() -> None:
    threads = threading.active_count()
    with pytest.raises(dromon.SpawnError) as raised:
        async with dromon.open_pool(affinity=[CPUS[0], 8191]):
            pytest.fail("it opened")
    assert raised.value.errno == errno.EINVAL
    assert "may not use" in str(raised.value)
    assert f"[{CPUS[0]}], [8191]" in str(raised.value)
    assert threading.active_count() == threads
    async with dromon.open_pool(affinity=[CPUS[0]]) as pool:  # the next try works
        assert await pool.run_sync(int, "7") == 7


async def test_affinity_of_workers_leaves_the_loops_thread_alone() -> None:
    async with dromon.open_pool(affinity=[CPUS[0]]) as pool:
        await pool.run_sync(int)
        assert sorted(os.sched_getaffinity(0)) == CPUS


# ---- How willingly they run ----------------------------------------------------------------------


async def test_nice_is_added_to_that_of_the_loops_thread_which_keeps_its_own() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if own + 3 > 19:
        pytest.skip("this process has nearly the highest nice value already")
    async with dromon.open_pool(2, nice=3) as pool:
        for worker in pool.statistics().workers:
            assert os.getpriority(os.PRIO_PROCESS, worker.tid) == own + 3
        assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.parametrize("policy", [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE])
async def test_the_policy_is_that_of_the_workers_and_not_of_the_loops_thread(policy: int) -> None:
    own = os.sched_getscheduler(0)
    async with dromon.open_pool(2, sched_policy=policy) as pool:
        for worker in pool.statistics().workers:
            assert os.sched_getscheduler(worker.tid) == policy
        assert os.sched_getscheduler(0) == own


def test_the_policy_of_the_opening_thread_is_not_that_of_workers_that_have_their_own() -> None:
    check_child(
        """
        import os, trio, dromon

        async def main():
            for policy in (None, os.SCHED_OTHER):
                async with dromon.open_pool(1, sched_policy=policy) as pool:
                    (worker,) = pool.statistics().workers
                    print(os.sched_getscheduler(worker.tid))

        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        trio.run(main)
        """,
        f"{os.SCHED_BATCH}\n{os.SCHED_OTHER}",
    )


async def test_without_options_workers_run_as_the_thread_that_opened_the_pool() -> None:
    async with dromon.open_pool(1) as pool:
        (worker,) = pool.statistics().workers
        for tid in (worker.tid, 0):
            assert sorted(os.sched_getaffinity(tid)) == CPUS
        for read in (os.sched_getscheduler, lambda tid: os.getpriority(os.PRIO_PROCESS, tid)):
            assert read(worker.tid) == read(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights up to be refused")
def test_a_negative_nice_without_the_right_is_a_spawn_error_that_says_what_it_takes() -> None:
    result = run_child(
        """
        import errno, os, resource, trio, dromon

        async def main():
            resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
            os.setuid(65534)
            try:
                async with dromon.open_pool(2, nice=-1):
                    print("it opened")
            except dromon.SpawnError as error:
                print(errno.errorcode[error.errno], error.strerror)
            async with dromon.open_pool(2) as pool:
                print(await pool.run_sync(int, "7"))

        trio.run(main)
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    error, answer = result.stdout.splitlines()
    assert error.startswith("EACCES cannot start 2 workers: Permission denied; ")
    assert "nice" in error
    assert "CAP_SYS_NICE" in error
    assert "ulimit -e" in error
    assert answer == "7"


# ---- Their stacks --------------------------------------------------------------------------------


async def test_stack_and_guard_are_as_large_as_asked_for_in_whole_pages() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    async with dromon.open_pool(2, stack_size=2**20 + 1, guard_size=3 * page - 1) as pool:
        spans = {}
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, permissions = line.split()[:2]
            low, high = (int(address, 16) for address in span.split("-"))
            spans[low] = (high, permissions)
        for worker in pool.statistics().workers:
            assert (worker.stack_size, worker.guard_size) == (2**20 + page, 3 * page)
            low = worker.stack_address
            assert spans[low - worker.guard_size] == (low, "---p")
            high, permissions = spans[low]
            assert permissions == "rw-p"
            assert high >= low + worker.stack_size


async def test_the_smallest_stack_is_enough_for_python() -> None:
    async with dromon.open_pool(1, stack_size=262_144) as pool:
        assert await pool.run_sync(lambda: sum(x * x for x in range(10))) == 285
        (worker,) = pool.statistics().workers
        assert 0 < worker.stack_used <= worker.stack_size


# ---- Their queue ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("capacity", "room"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (100, 128)])
async def test_the_queue_holds_the_next_power_of_two(capacity: int, room: int) -> None:
    begun, release = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        release.wait()

    async with dromon.open_pool(1, queue_capacity=capacity) as pool:
        try:
            pool.submit(block)
            await trio.to_thread.run_sync(begun.wait)
            for _ in range(room):
                pool.submit_nowait(int)
            with pytest.raises(dromon.QueueFull):
                pool.submit_nowait(int)
            assert pool.statistics().queued == room
        finally:
            release.set()


# ---- How they are made ---------------------------------------------------------------------------

REPORT_SPAWN = """
    import trio, dromon

    async def main():
        async with dromon.open_pool(2) as pool:
            assert await pool.run_sync(int, "7") == 7
            print(*(f"{each.spawn} {each.spawn_error}" for each in pool.statistics().workers))

    try:
        trio.run(main)
    except ValueError as error:
        print(error)
"""


@pytest.mark.parametrize("way", ["clone3", "clone", "pthread"])
def test_the_environment_may_say_how_workers_are_made(way: str) -> None:
    check_child(REPORT_SPAWN, f"{way} None {way} None", env={"DROMON_SPAWN": way})


@pytest.mark.parametrize("way", ["", "fork", "CLONE3"])
def test_a_bad_way_to_make_workers_in_the_environment_is_named(way: str) -> None:
    expected = f"DROMON_SPAWN must be clone3, clone, pthread or unset, not {way!r}"
    check_child(REPORT_SPAWN, expected, env={"DROMON_SPAWN": way})


# ---- What a call leaves behind -------------------------------------------------------------------


def change_affinity() -> None:
    os.sched_setaffinity(0, [CPUS[-1]])


def change_name() -> None:
    Path("/proc/thread-self/comm").write_text("changed")


def change_mask() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1, signal.SIGINT])


def read_state() -> tuple[set[int], str, set[signal.Signals | int]]:
    name = Path("/proc/thread-self/comm").read_text()
    return os.sched_getaffinity(0), name, signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("change", [change_affinity, change_name, change_mask])
async def test_what_a_call_changed_of_its_thread_is_restored_for_the_next(
    change: Callable[[], None],
) -> None:
    async with dromon.open_pool(affinity=[CPUS[0]]) as pool:
        before = await pool.run_sync(read_state)
        await pool.run_sync(change)
        assert await pool.run_sync(read_state) == before


@pytest.mark.parametrize("change", [change_affinity, change_name, change_mask])
async def test_what_a_call_changed_is_restored_for_the_next_in_the_same_batch(
    change: Callable[[], None],
) -> None:
    async with dromon.open_pool(affinity=[CPUS[0]]) as pool:
        # Not by run_sync, which names the thread after the call.
        before = await trio.to_thread.run_sync(pool.submit(read_state).result)
        batches_more = 0
        while batches_more != 1:  # a batch that takes too long is ended between the two
            batches = pool.statistics().batches
            pool.submit(change)
            after = pool.submit(read_state)
            assert await trio.to_thread.run_sync(after.result) == before
            batches_more = pool.statistics().batches - batches
