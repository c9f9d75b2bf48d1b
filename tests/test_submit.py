"""The pool's queue from all sides: who waits when it is full, who does not, and what is stolen."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import sniffio
import trio
import trio.testing
from child import check_child
from free_threading import frees_at_once

import dromon
from dromon import _bridge


class Thing:
    """Something that a weak reference can watch."""


@contextmanager
def busy(pool: dromon.Pool, workers: int = 1) -> Any:
    """Keep so many workers busy, each with a call; for code that may block."""
    begun, release = threading.Semaphore(0), threading.Event()

    def block() -> None:
        begun.release()
        release.wait()

    futures = [pool.submit(block) for _ in range(workers)]
    try:
        for _ in futures:
            begun.acquire()
        yield release
    finally:
        release.set()
        wait(futures)


@asynccontextmanager
async def full_pool() -> AsyncIterator[tuple[dromon.Pool, threading.Event]]:
    """A pool of one worker, which is busy until the event is set, and a full queue of 2 calls."""
    async with dromon.open_pool(1, queue_capacity=2) as pool:
        with busy(pool) as release:
            for _ in range(2):
                pool.submit_nowait(int)
            yield pool, release


# ---- Futures -------------------------------------------------------------------------------------


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(1) as pool:
        yield pool


@pytest.fixture(params=["submit", "submit_nowait"])
def submit(request: pytest.FixtureRequest, pool: dromon.Pool) -> Callable[..., Future[Any]]:
    function: Callable[..., Future[Any]] = getattr(pool, request.param)
    return function


async def outcome_of(future: Future[Any]) -> Any:
    return await trio.to_thread.run_sync(future.result)


async def test_a_submitted_call_gives_its_result_to_a_future(
    submit: Callable[..., Future[Any]],
) -> None:
    thing = Thing()
    future = submit(lambda *args: args, 1, thing)
    assert isinstance(future, Future)
    assert await outcome_of(future) == (1, thing)


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_a_submitted_call_raises_comes_out_of_its_future(
    submit: Callable[..., Future[Any]], pool: dromon.Pool, kind: type[BaseException]
) -> None:
    error = kind("this one")

    def fail() -> None:
        raise error

    future = submit(fail)
    await trio.to_thread.run_sync(wait, [future])
    assert future.exception() is error
    assert await outcome_of(pool.submit(int)) == 0  # the worker lives on


@frees_at_once
async def test_a_failed_call_leaves_no_cycle(pool: dromon.Pool) -> None:
    def fail(thing: Thing) -> None:
        raise LookupError

    thing = Thing()
    watched = weakref.ref(thing)
    gc.disable()
    try:
        future = pool.submit(fail, thing)
        await trio.to_thread.run_sync(wait, [future])
        del thing, future
        await pool.run_sync(int)
        assert watched() is None
    finally:
        gc.enable()


async def test_a_future_that_was_cancelled_before_its_call_began_keeps_it_from_running(
    pool: dromon.Pool,
) -> None:
    ran = threading.Event()
    with busy(pool):
        future = pool.submit(ran.set)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
    await pool.run_sync(int)
    assert not ran.is_set()


async def test_a_future_whose_call_runs_cannot_be_cancelled(pool: dromon.Pool) -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        release.wait()
        return "done"

    future = pool.submit(work)
    await trio.to_thread.run_sync(begun.wait)
    assert future.running()
    assert not future.cancel()
    release.set()
    assert await outcome_of(future) == "done"


async def test_a_future_that_somebody_else_has_set_is_told_and_harms_nobody(
    pool: dromon.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    future = pool.submit(work)
    await trio.to_thread.run_sync(begun.wait)
    future.set_result(None)
    release.set()
    assert await outcome_of(pool.submit(int)) == 0
    assert [each.exc_type for each in told] == [InvalidStateError]
    assert pool.statistics().completed == 2
    told.clear()


async def test_a_submitted_call_sees_the_context_variables_of_its_submitter(
    submit: Callable[..., Future[Any]],
) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")

    def change() -> str:
        value = variable.get()
        variable.set("theirs")
        return value

    assert await outcome_of(submit(change)) == "mine"
    assert await outcome_of(submit(variable.get)) == "mine"
    assert variable.get() == "mine"


async def test_a_submitted_call_is_not_inside_an_async_library(
    submit: Callable[..., Future[Any]],
) -> None:
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await outcome_of(submit(sniffio.current_async_library))
    assert sniffio.current_async_library() == "trio"


async def test_what_is_submitted_must_be_callable(
    submit: Callable[..., Future[Any]], pool: dromon.Pool
) -> None:
    with pytest.raises(TypeError, match="fn must be callable, not 5"):
        submit(5)
    assert pool.statistics().completed == 0


async def test_a_submitted_call_counts_as_any_other(pool: dromon.Pool) -> None:
    with busy(pool):
        futures = [pool.submit(int) for _ in range(3)]
        statistics = pool.statistics()
        assert (statistics.running, statistics.queued, statistics.completed) == (1, 3, 0)
    await trio.to_thread.run_sync(wait, futures)
    await pool.run_sync(int)
    statistics = pool.statistics()
    assert (statistics.running, statistics.queued, statistics.completed) == (0, 0, 5)


# ---- A full queue --------------------------------------------------------------------------------


async def test_an_async_submitter_waits_as_a_task_while_the_queue_is_full() -> None:
    async with full_pool() as (pool, release):
        async with trio.open_nursery() as nursery:
            results: list[int] = []

            async def call() -> None:
                results.append(await pool.run_sync(int, "7"))

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().queued == 3  # two in the queue and one in line
            assert results == []
            release.set()
        assert results == [7]


async def test_an_async_submitter_in_line_is_cancelled_at_once_and_nothing_lingers() -> None:
    class Argument:
        pass

    def calls() -> int:
        return sum(type(each) is _bridge.Call for each in gc.get_objects())

    async with full_pool() as (pool, _):
        before = calls()
        argument = Argument()
        watched = weakref.ref(argument)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, print, argument)
                del argument
                await trio.testing.wait_all_tasks_blocked()
                assert pool.statistics().queued == 3
                scope.cancel()
        assert scope.cancelled_caught
        assert watched() is None
        assert calls() == before
        # The worker is still busy: nobody has come across the call, and it is not there.
        assert (pool.statistics().queued, pool.statistics().cancelled) == (2, 1)


async def test_those_in_line_keep_their_order_when_one_of_them_is_cancelled() -> None:
    order: list[int] = []
    async with full_pool() as (pool, release), trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(10)]

        async def call(number: int) -> None:
            with scopes[number]:
                await pool.run_sync(order.append, number)

        for number in range(10):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
        for number in (0, 4, 9):  # the first, one in the middle, the last
            scopes[number].cancel()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert order == [1, 2, 3, 5, 6, 7, 8]


async def test_submit_waits_for_room_without_the_gil() -> None:
    async with full_pool() as (pool, release):
        waits = threading.Event()

        def submit() -> Future[int]:
            waits.set()
            return pool.submit(int, "7")

        submitted: list[Future[int]] = []
        thread = threading.Thread(target=lambda: submitted.append(submit()))
        thread.start()
        waits.wait()
        # Python code runs here while the thread has its call in line, behind the two in the queue.
        while pool.statistics().queued < 3:
            await trio.lowlevel.checkpoint()
        assert submitted == []
        assert thread.is_alive()
        release.set()
        await trio.to_thread.run_sync(thread.join)
        assert await outcome_of(submitted[0]) == 7


def test_submit_that_waits_for_room_is_interrupted_by_ctrl_c_and_has_queued_nothing() -> None:
    check_child(
        """
        import os, signal, threading, trio, dromon

        pool_is_there, closing = threading.Event(), threading.Event()
        pools = []

        async def main():
            async with dromon.open_pool(1, queue_capacity=2) as pool:
                pools.append(pool)
                pool_is_there.set()
                await trio.to_thread.run_sync(closing.wait)

        def interrupt_once_it_waits():
            while pool.statistics().queued < 3:
                pass
            # One that comes before the system call would be seen when it is over.
            while not interrupted.wait(0.01):
                os.kill(os.getpid(), signal.SIGINT)

        trio_thread = threading.Thread(target=trio.run, args=(main,))
        trio_thread.start()
        pool_is_there.wait()
        pool = pools[0]
        begun, release, interrupted = (threading.Event() for _ in range(3))
        ran = []
        pool.submit(lambda: (begun.set(), release.wait()))
        begun.wait()
        for number in range(2):
            pool.submit(ran.append, number)
        interrupter = threading.Thread(target=interrupt_once_it_waits)
        try:
            interrupter.start()
            pool.submit(ran.append, "interrupted")
            print("queued")
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            interrupted.set()
            print("interrupted with", pool.statistics().queued, "in the queue")
        interrupter.join()
        release.set()
        print(pool.submit(int, "7").result(), ran)
        closing.set()
        trio_thread.join()
        """,
        "interrupted with 2 in the queue\n7 [0, 1]",
    )


async def test_a_signal_whose_handler_raises_nothing_does_not_end_the_wait() -> None:
    check_child(
        """
        import os, signal, threading, trio, dromon

        async def main():
            handled = threading.Event()
            signal.signal(signal.SIGUSR1, lambda *_: handled.set())
            begun, release = threading.Event(), threading.Event()

            def help():
                while pool.statistics().queued < 3:
                    pass
                while not handled.wait(0.01):
                    os.kill(os.getpid(), signal.SIGUSR1)
                release.set()

            async with dromon.open_pool(1, queue_capacity=2) as pool:
                pool.submit(lambda: (begun.set(), release.wait()))
                await trio.to_thread.run_sync(begun.wait)
                for _ in range(2):
                    pool.submit(int)
                helper = threading.Thread(target=help)
                helper.start()
                future = pool.submit(int, "7")
                assert handled.is_set()
                helper.join()
                print(future.result())

        trio.run(main)
        """,
        "7",
    )


async def test_submit_nowait_raises_queue_full_and_has_queued_nothing() -> None:
    ran = threading.Event()
    async with full_pool() as (pool, _):
        with pytest.raises(dromon.QueueFull, match="the pool's queue is full"):
            pool.submit_nowait(ran.set)
        with pytest.raises(trio.WouldBlock):  # trio's own word for it
            pool.submit_nowait(ran.set)
        assert pool.statistics().queued == 2
    assert not ran.is_set()
    assert pool.statistics().completed == 3


async def test_submit_nowait_does_not_overtake_those_in_line() -> None:
    async with full_pool() as (pool, release), trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, int)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(dromon.QueueFull):
            pool.submit_nowait(int)
        release.set()


async def test_closing_runs_what_a_waiting_submit_had_in_line() -> None:
    submitted: list[Future[int]] = []
    async with full_pool() as (pool, release):
        thread = threading.Thread(target=lambda: submitted.append(pool.submit(int, "7")))
        thread.start()
        while pool.statistics().queued < 3:
            await trio.lowlevel.checkpoint()
        release.set()
    await trio.to_thread.run_sync(thread.join)
    assert submitted[0].result(timeout=0) == 7


# ---- Workers that submit -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["submit", "submit_nowait"])
async def test_a_worker_that_submits_to_its_own_pool_is_never_refused_and_never_waits(
    method: str,
) -> None:
    """Else a pool whose workers all wait for room would be stuck."""
    counts: list[int] = []

    def submit_many() -> list[Future[int]]:
        submit = getattr(pool, method)
        return [submit(counts.append, number) for number in range(10_000)]

    async with dromon.open_pool(1, queue_capacity=2) as pool:
        futures = await pool.run_sync(submit_many)
        await trio.to_thread.run_sync(wait, futures)
    assert sorted(counts) == list(range(10_000))


async def test_a_worker_of_another_pool_is_a_submitter_like_any_other() -> None:
    async with full_pool() as (pool, _), dromon.open_pool(1) as other:
        with pytest.raises(dromon.QueueFull):
            await other.run_sync(pool.submit_nowait, int)


async def test_what_a_call_that_blocks_its_worker_has_submitted_is_run_by_the_other_one() -> None:
    def submit_and_block() -> tuple[int, int]:
        ended = threading.Event()
        future = pool.submit(threading.get_native_id)
        future.add_done_callback(lambda _: ended.set())
        ended.wait(60)
        return threading.get_native_id(), future.result()

    async with dromon.open_pool(2) as pool:
        tids = await pool.run_sync(submit_and_block)
        assert set(tids) == {worker.tid for worker in pool.statistics().workers}
        assert pool.statistics().steals == 1


async def test_a_fork_and_join_tree_of_calls_is_computed_by_all_workers() -> None:
    def count(depth: int) -> int:
        if depth == 0:
            return 1
        branches = [pool.submit(count, depth - 1) for _ in range(2)]
        return sum(branch.result() for branch in branches)

    # Each call on the way to a leaf holds a worker while it waits: enough workers for all of them.
    async with dromon.open_pool(32) as pool:
        assert await pool.run_sync(count, 4) == 16


# ---- All together --------------------------------------------------------------------------------


async def test_nothing_is_dropped_while_threads_and_runs_submit_in_all_ways_at_once() -> None:
    calls = 500
    ran: list[tuple[str, int]] = []  # append is atomic
    cancelled: list[tuple[str, int]] = []

    def submit(name: str) -> None:
        wait([pool.submit(ran.append, (name, number)) for number in range(calls)])

    def submit_again_and_again(name: str) -> None:
        futures = [pool.submit(int)]
        for number in range(calls):
            while True:
                try:
                    futures.append(pool.submit_nowait(ran.append, (name, number)))
                    break
                except dromon.QueueFull:
                    futures[-1].result()
        wait(futures)

    def submit_from_workers(name: str) -> None:
        def fan_out(number: int) -> None:
            ran.append((name, number))
            if number % 10 == 0:
                for more in range(number + 1, number + 10):
                    pool.submit(ran.append, (name, more))

        for number in range(0, calls, 10):
            pool.submit(fan_out, number).result()

    def run(name: str) -> None:
        async def call(number: int) -> None:
            with trio.CancelScope() as scope:
                if number % 7 == 0:
                    scope.deadline = trio.current_time()
                await pool.run_sync(ran.append, (name, number))
            if scope.cancelled_caught:
                cancelled.append((name, number))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(calls):
                    nursery.start_soon(call, number)

        trio.run(main)

    async with dromon.open_pool(3, queue_capacity=4) as pool:
        jobs = {
            "waits": submit,
            "waits, too": submit,
            "does not wait": submit_again_and_again,
            "from workers": submit_from_workers,
            "run": run,
            "another run": run,
        }
        threads = [threading.Thread(target=job, args=(name,)) for name, job in jobs.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
    expected = Counter((name, number) for name in jobs for number in range(calls))
    assert Counter(ran) + Counter(cancelled) == expected
    assert pool.statistics().queued == 0


# ---- Closed pools --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["submit", "submit_nowait"])
async def test_a_closed_pool_refuses_what_is_submitted(method: str) -> None:
    async with dromon.open_pool(1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
        getattr(pool, method)(int)


@pytest.mark.parametrize("method", ["submit", "submit_nowait"])
async def test_a_worker_that_submits_to_its_pool_after_the_closing_is_refused(method: str) -> None:
    begun, closing = threading.Event(), threading.Event()

    def submit_late() -> None:
        begun.set()
        closing.wait()
        getattr(pool, method)(int)

    async def release_once_closed() -> None:
        while True:
            try:
                await pool.run_sync(int, abandon_on_cancel=True)
            except dromon.ClosedPoolError:
                closing.set()
                return

    async with trio.open_nursery() as nursery:
        async with dromon.open_pool(2) as pool:
            late = pool.submit(submit_late)
            await trio.to_thread.run_sync(begun.wait)
            nursery.start_soon(release_once_closed)
        with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
            late.result(timeout=0)


def test_submitting_to_a_pool_of_the_parent_in_a_forked_child_names_the_fork() -> None:
    check_child(
        """
        import os, trio, warnings, dromon

        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with several threads

        async def main():
            async with dromon.open_pool(1) as pool:
                pool.submit(int).result()
                if os.fork() == 0:
                    for submit in (pool.submit, pool.submit_nowait):
                        try:
                            submit(int)
                        except dromon.ClosedPoolError as error:
                            print(error, flush=True)
                    os._exit(0)
                os.wait()
                print(pool.submit(int, "7").result())

        trio.run(main)
        """,
        "the pool belongs to the process that forked this one; open another pool here\n" * 2 + "7",
    )
