"""Pools of synchronous code: opening, naming, preparing, closing and dropping them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from child import check_child

import dromon
from dromon import _pool


def os_name(worker: dromon.WorkerStatistics) -> str:
    return Path(f"/proc/self/task/{worker.tid}/comm").read_text().rstrip("\n")


def no_thread_is_left(name: str) -> bool:
    return not any(thread.name.startswith(name) for thread in threading.enumerate())


def in_trio(function: object, *args: object) -> object:
    """Call a function in a trio task."""

    async def call() -> object:
        return function(*args)  # type: ignore[operator]

    return trio.run(call)


# ---- Opening and closing -------------------------------------------------------------------------


def test_a_with_block_opens_a_pool_and_waits_for_all_that_was_accepted() -> None:
    gate, done = threading.Event(), []

    def work(number: int) -> None:
        gate.wait()
        done.append(number)

    with dromon.Pool(1) as pool:
        for number in range(3):
            pool.submit(work, number)
        gate.set()
    assert done == [0, 1, 2]
    assert pool.statistics().workers == ()
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
        pool.submit(int)


def test_an_exception_in_the_block_comes_out_and_the_pool_is_closed() -> None:
    with pytest.raises(LookupError), dromon.Pool(1) as pool:
        raise LookupError
    with pytest.raises(dromon.ClosedPoolError):
        pool.submit(int)


def test_closing_twice_is_no_error() -> None:
    pool = dromon.Pool(1)
    pool.close()
    pool.close()


def test_a_closed_pool_cannot_be_entered_again() -> None:
    with dromon.Pool(1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"), pool:
        pass


def test_each_of_several_threads_that_close_a_pool_waits_for_its_calls() -> None:
    gate, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()

    pool = dromon.Pool(1)
    future = pool.submit(work)
    begun.wait()
    closing = threading.Barrier(3)

    def close() -> bool:
        closing.wait()
        pool.close()
        return future.done()

    with ThreadPoolExecutor(2) as threads:
        closed = [threads.submit(close) for _ in range(2)]
        closing.wait()
        assert not any(each.done() for each in closed)
        gate.set()
        assert all(each.result() for each in closed)


def test_a_worker_that_closes_its_own_pool_is_refused() -> None:
    with dromon.Pool(1) as pool:
        with pytest.raises(RuntimeError, match="a worker cannot close its own pool"):
            pool.submit(pool.close).result()
        assert pool.submit(int, "7").result() == 7  # it is open still


def test_a_worker_may_close_another_pool() -> None:
    with dromon.Pool(1) as pool:
        other = dromon.Pool(1, name="other")
        pool.submit(other.close).result()
        assert no_thread_is_left("other")


def test_a_trio_task_that_closes_a_pool_is_told_what_to_use() -> None:
    with dromon.Pool(1) as pool:
        with pytest.raises(RuntimeError, match=r"use `async with dromon.open_pool\(\)`"):
            in_trio(pool.close)
        assert pool.submit(int, "7").result() == 7


def test_a_trio_task_that_enters_a_pool_is_told_what_to_use() -> None:
    with dromon.Pool(1) as pool, pytest.raises(RuntimeError, match=r"dromon.open_pool\(\)"):
        in_trio(pool.__enter__)


def test_a_trio_task_closes_a_pool_in_a_thread() -> None:
    pool = dromon.Pool(1, name="closed-in-a-thread")
    trio.run(trio.to_thread.run_sync, pool.close)
    assert no_thread_is_left("closed-in-a-thread")


async def test_a_thread_may_close_a_pool_whose_block_goes_on() -> None:
    async with dromon.open_pool(1) as pool:
        await trio.to_thread.run_sync(pool.close)
        with pytest.raises(dromon.ClosedPoolError):
            await pool.run_sync(int)


async def test_leaving_the_block_waits_though_a_thread_has_begun_to_close() -> None:
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()

    async with trio.open_nursery() as nursery:
        async with dromon.open_pool(2) as pool:
            future = pool.submit(work)
            await trio.to_thread.run_sync(begun.wait)
            nursery.start_soon(trio.to_thread.run_sync, pool.close)
            with suppress(dromon.ClosedPoolError):
                while True:  # until the thread has
                    await pool.run_sync(int)
            nursery.start_soon(trio.to_thread.run_sync, gate.set)
        assert future.done()


def test_one_pool_serves_synchronous_code_and_trio_runs() -> None:
    async def main(pool: dromon.Pool) -> int:
        return await pool.run_sync(int, "7")

    with dromon.Pool(2) as pool:
        assert [trio.run(main, pool), pool.submit(int, "8").result(), trio.run(main, pool)] == [
            7,
            8,
            7,
        ]


def test_a_pool_serves_an_asyncio_loop() -> None:
    async def main() -> int:
        with dromon.Pool(1) as pool:
            return await asyncio.wrap_future(pool.submit(int, "7"))

    assert asyncio.run(main()) == 7


def test_ctrl_c_ends_the_wait_and_the_pool_stays_closed_to_new_calls() -> None:
    check_child(
        """
        import threading, dromon
        from signals import interrupt_the_waiting_main_thread

        def interrupt_once_closed():
            try:
                while True:
                    pool.submit(int)
            except dromon.ClosedPoolError:
                interrupt_the_waiting_main_thread()
            gate.wait()

        gate = threading.Event()
        pool = dromon.Pool(1)
        pool.submit(interrupt_once_closed)
        try:
            pool.close()
        except KeyboardInterrupt:
            print("interrupted")
        try:
            pool.submit(int)
        except dromon.ClosedPoolError:
            print("closed")
        gate.set()
        pool.close()
        print(pool.statistics().workers)
        """,
        "interrupted\nclosed\n()",
    )


def test_ctrl_c_while_the_threads_end_leaves_a_pool_that_is_closed() -> None:
    check_child(
        """
        import time, dromon
        from signals import interrupt_the_waiting_main_thread

        def interrupt_once_joining(stall):  # on the monitor's thread, for which closing waits
            pool._ended.wait()
            while not pool._joining.locked():
                time.sleep(0.001)
            interrupt_the_waiting_main_thread()

        pool = dromon.Pool(1, stall_after=0.001, on_stall=interrupt_once_joining)
        pool.submit(time.sleep, 0.1)
        try:
            pool.close()
        except KeyboardInterrupt:
            print("interrupted")
        pool.close()
        print(pool.statistics().workers)
        """,
        "interrupted\n()",
    )


def test_the_child_of_a_fork_leaves_the_block_of_a_pool_of_its_parent() -> None:
    check_child(
        """
        import os, warnings, dromon

        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with several threads
        with dromon.Pool(1) as pool:
            pool.submit(int).result()
            child = os.fork() == 0
        if child:
            pool.close()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """,
        "7",
    )


def test_a_hundred_pools_leave_no_thread_behind() -> None:
    for _ in range(100):
        with dromon.Pool(2, name="short-lived") as pool:
            pool.submit(int)
    assert no_thread_is_left("short-lived")


# ---- Dropping ------------------------------------------------------------------------------------


def test_a_pool_that_is_dropped_unclosed_is_warned_of_and_its_threads_end() -> None:
    pool = dromon.Pool(2, name="dropped")
    pool.submit(int).result()
    core = pool._core
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert [(each.category, str(each.message)) for each in caught] == [
        (ResourceWarning, "unclosed dromon pool 'dropped'")
    ]
    (dropped,) = (each for each in _pool._dropped_pools if each.core is core)
    dropped.ended.wait()
    _pool.join_dropped_pools()
    assert dropped not in _pool._dropped_pools
    assert no_thread_is_left("dropped")


def test_a_dropped_pool_runs_what_was_queued_first() -> None:
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()

    pool = dromon.Pool(1, stall_after=60)
    pool.submit(work)
    queued = pool.submit(int, "7")
    begun.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del pool
        gc.collect()
    gate.set()
    assert queued.result() == 7
    for dropped in _pool._dropped_pools:
        dropped.ended.wait()
    _pool.join_dropped_pools()


def test_a_pool_that_was_closed_is_dropped_without_a_warning() -> None:
    with dromon.Pool(1) as pool:
        watched = weakref.ref(pool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool
        gc.collect()
    assert watched() is None


def test_a_pool_whose_opening_failed_is_dropped_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="workers"):
            dromon.Pool(0)
        gc.collect()


def test_an_unclosed_pool_does_not_keep_the_process() -> None:
    check_child(
        """
        import time, dromon
        pool = dromon.Pool(2)
        pool.submit(time.sleep, 1000)
        pool.submit(int).result()
        print("bye")
        """,
        "bye",
    )


# ---- Names ---------------------------------------------------------------------------------------


def test_workers_are_named_after_their_pool_in_python_and_in_the_system() -> None:
    with dromon.Pool(2, name="hashing") as pool:
        workers = pool.statistics().workers
        assert [worker.name for worker in workers] == ["hashing-0", "hashing-1"]
        assert [os_name(worker) for worker in workers] == ["hashing-0", "hashing-1"]
        seen = pool.submit(lambda: threading.current_thread().name).result()
        assert seen in ("hashing-0", "hashing-1")


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("exactly13byte", "exactly13byte-0"),
        ("fourteen bytes", "fourteen byte-0"),
        ("Schlüsselbäckerei", "Schlüsselbä-0"),  # not in the middle of a character
        ("鍵" * 5, "鍵鍵鍵鍵-0"),
    ],
)
def test_a_long_name_is_cut_in_the_system_so_that_the_number_stays(name: str, cut: str) -> None:
    with dromon.Pool(1, name=name) as pool:
        (worker,) = pool.statistics().workers
        assert worker.name == f"{name}-0"
        assert os_name(worker) == cut
        assert pool.submit(lambda: threading.current_thread().name).result() == f"{name}-0"


async def test_the_monitor_is_named_after_its_pool() -> None:
    async with dromon.open_pool(1, name="io", stall_after=60):
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert "io-monitor" in names


# ---- The initializer -----------------------------------------------------------------------------


def test_the_initializer_runs_once_on_each_worker_before_its_first_call() -> None:
    local, ran = threading.local(), []

    def prepare() -> None:
        local.ready = True
        ran.append(threading.current_thread().name)

    met = threading.Barrier(3)

    def work() -> bool:
        met.wait()
        return bool(local.ready)

    with dromon.Pool(3, name="prepared", initializer=prepare) as pool:
        assert sorted(ran) == ["prepared-0", "prepared-1", "prepared-2"]
        futures = [pool.submit(work) for _ in range(3)]
        assert all(future.result() for future in futures)
    assert len(ran) == 3


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit])
def test_an_initializer_that_raises_fails_the_opening_and_leaves_no_thread(
    kind: type[BaseException],
) -> None:
    error = kind("this one")

    def fail_once() -> None:
        if threading.current_thread().name == "failing-1":
            raise error

    with pytest.raises(kind) as raised:
        dromon.Pool(3, name="failing", initializer=fail_once)
    assert raised.value is error
    assert error.__notes__ == ["raised by the initializer of failing-1"]
    assert raised.value.__context__ is None
    assert [entry.name for entry in raised.traceback][-1] == "fail_once"
    assert no_thread_is_left("failing")


async def test_an_initializer_that_raises_fails_the_opening_of_an_async_pool_too() -> None:
    with pytest.raises(ZeroDivisionError):
        async with dromon.open_pool(2, initializer=partial(divmod, 1, 0)):
            pytest.fail("it opened")


def test_an_initializer_that_returns_a_coroutine_is_refused() -> None:
    async def prepare() -> None: ...

    with pytest.raises(TypeError, match=r"sync function, but .*asynchronous, given as initializer"):
        dromon.Pool(1, initializer=lambda: prepare())


# ---- Stalls without a trio run -------------------------------------------------------------------


def test_without_a_trio_run_stalls_are_reported_on_the_monitors_thread() -> None:
    reported = threading.Event()
    reports: list[tuple[dromon.Stall, str]] = []

    def report(stall: dromon.Stall) -> None:
        reports.append((stall, threading.current_thread().name))
        reported.set()

    with dromon.Pool(1, name="slow", stall_after=0.01, on_stall=report) as pool:
        pool.submit(reported.wait).result()
        threads = {thread.name for thread in threading.enumerate()}
        pool.close()
    ((stall, thread),) = reports
    assert stall.worker == "slow-0"
    assert [frame.name for frame in stall.stack][-1] == "wait"
    assert thread == "slow-monitor"
    assert not any(name.startswith("Dummy") for name in threads)


def test_an_on_stall_that_raises_on_the_monitors_thread_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called = threading.Event()

    def fail(_: dromon.Stall) -> None:
        called.set()
        raise LookupError

    with dromon.Pool(1, stall_after=0.01, on_stall=fail) as pool:
        pool.submit(called.wait).result()
    (record,) = caplog.records
    assert "failed" in record.message


# ---- The default pool ----------------------------------------------------------------------------

CONFIGURE = """
    import os, threading, trio, warnings, dromon

    warnings.simplefilter("ignore", DeprecationWarning)  # of forks with several threads

    def names():
        return sorted(each.name for each in dromon._pool.thread_pool.get().statistics().workers)
"""


def test_the_default_pool_is_opened_as_it_was_configured_last() -> None:
    script = """
    dromon.configure_default_pool(1, name="first")
    dromon.configure_default_pool(2, name="mine")
    assert not any(thread.name.startswith("mine") for thread in threading.enumerate())
    print(trio.run(dromon.to_thread.run_sync, int, "7"), *names())
    """
    check_child(CONFIGURE + script, "7 mine-0 mine-1", env={"DROMON_WORKERS": "5"})


def test_the_environment_says_how_many_workers_unless_the_configuration_does() -> None:
    script = """
    dromon.configure_default_pool(name="mine")
    print(*names())
    """
    check_child(CONFIGURE + script, "mine-0 mine-1 mine-2", env={"DROMON_WORKERS": "3"})


def test_affinity_says_how_many_workers_before_the_environment_does() -> None:
    script = """
    dromon.configure_default_pool(affinity=[os.sched_getaffinity(0)] * 2)
    print(*names())
    """
    check_child(CONFIGURE + script, "dromon-0 dromon-1", env={"DROMON_WORKERS": "3"})


def test_the_default_pool_cannot_be_configured_once_it_is_open() -> None:
    script = """
    trio.run(dromon.to_thread.run_sync, int)
    try:
        dromon.configure_default_pool(2)
    except RuntimeError as error:
        print(error)
    """
    expected = (
        "the default pool has been opened: configure it before the first call of"
        " dromon.to_thread.run_sync"
    )
    check_child(CONFIGURE + script, expected)


def test_a_configuration_holds_for_the_default_pool_of_a_forked_child() -> None:
    script = """
    dromon.configure_default_pool(1, name="mine")
    print(*names(), flush=True)
    if os.fork() == 0:
        print(*names(), flush=True)
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        dromon.configure_default_pool(1, name="childs")
        print(*names(), flush=True)
        os._exit(0)
    os.wait()
    """
    check_child(CONFIGURE + script, "mine-0\nmine-0\nchilds-0")


# ---- Signatures ----------------------------------------------------------------------------------


def test_all_that_opens_a_pool_shows_the_same_arguments() -> None:
    parameters = inspect.signature(dromon.Pool).parameters
    assert list(parameters) == [
        "workers",
        "name",
        "queue_capacity",
        "stack_size",
        "guard_size",
        "initializer",
        "affinity",
        "nice",
        "sched_policy",
        "stall_after",
        "on_stall",
        "isolation",
        "max_tasks_per_worker",
        "context_vars",
    ]
    assert inspect.signature(dromon.open_pool).parameters == parameters
    assert inspect.signature(dromon.configure_default_pool).parameters == parameters


def test_each_argument_of_a_pool_is_documented() -> None:
    for name in inspect.signature(dromon.Pool).parameters:
        assert f"\n  {name} (" in inspect.cleandoc(dromon.Pool.__doc__ or "")
