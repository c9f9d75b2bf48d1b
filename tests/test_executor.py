"""What concurrent.futures.ThreadPoolExecutor does, dromon.Executor does: both are asked.

After the standard library's own tests (Lib/test/test_concurrent_futures).
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import gc
import itertools
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.thread import BrokenThreadPool
from functools import partial
from typing import Any

import pytest
import trio
from child import check_child
from free_threading import frees_at_once

import dromon
from dromon._futures import PoolFuture

Make = Callable[..., futures.ThreadPoolExecutor]
KINDS: list[Make] = [futures.ThreadPoolExecutor, dromon.Executor]

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(params=KINDS, ids=["stdlib", "dromon"])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


@pytest.fixture
def executor(make: Make) -> Iterator[futures.ThreadPoolExecutor]:
    with make(2) as executor:
        yield executor


class Thing:
    """Something that a weak reference can watch."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log = log

    def method(self, event: threading.Event | None = None) -> None:
        if event is not None:
            event.wait()


class Gate:
    """Keeps workers busy until it is opened."""

    def __init__(self, executor: futures.Executor, workers: int = 1) -> None:
        self._begun, self._opened = threading.Semaphore(0), threading.Event()
        self.futures = [executor.submit(self._block) for _ in range(workers)]
        for _ in range(workers):
            self._begun.acquire()

    def _block(self) -> None:
        self._begun.release()
        self._opened.wait()

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads bring about, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run_script(make: Make, script: str, expected: str) -> None:
    module = "concurrent.futures" if make is futures.ThreadPoolExecutor else "dromon"
    name = "ThreadPoolExecutor" if make is futures.ThreadPoolExecutor else "Executor"
    check_child(f"from {module} import {name} as Make\n{script}", expected)


# ---- What it is ----------------------------------------------------------------------------------


def test_it_is_an_executor_and_a_thread_pool_executor(make: Make) -> None:
    with make() as executor:
        assert isinstance(executor, futures.Executor)
        assert isinstance(executor, futures.ThreadPoolExecutor)
        assert isinstance(executor.submit(int), futures.Future)


def test_by_default_there_are_4_more_workers_than_cpus_and_32_at_most(make: Make) -> None:
    with make() as executor:
        assert 5 <= executor._max_workers <= 32


@pytest.mark.parametrize("workers", [0, -1])
def test_max_workers_must_be_above_zero(make: Make, workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be"):
        make(max_workers=workers)


def test_an_initializer_must_be_callable(make: Make) -> None:
    with pytest.raises(TypeError, match="initializer must be"):
        make(initializer=5)


# ---- submit --------------------------------------------------------------------------------------


def test_a_submitted_call_gives_its_result(executor: futures.Executor) -> None:
    assert executor.submit(pow, 2, 8).result() == 256


def test_keyword_arguments_of_all_names_are_passed_on(executor: futures.Executor) -> None:
    def capture(*args: object, **kwargs: object) -> object:
        return args, kwargs

    future = executor.submit(capture, 1, self=2, fn=3)
    assert future.result() == ((1,), {"self": 2, "fn": 3})
    assert executor.submit(int, "11", base=8).result() == 9


def test_the_function_is_positional_only(executor: futures.Executor) -> None:
    with pytest.raises(TypeError):
        executor.submit(fn=int)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_a_call_raises_comes_out_of_its_future_and_the_worker_lives_on(
    make: Make, kind: type[BaseException]
) -> None:
    error = kind("this one")

    def fail() -> None:
        raise error

    with make(1) as executor:
        future = executor.submit(fail)
        assert future.exception() is error
        with pytest.raises(kind):
            future.result()
        assert executor.submit(int).result() == 0


def test_an_exception_that_is_false_is_an_exception(
    executor: futures.Executor,
) -> None:
    class FalseError(Exception):
        def __bool__(self) -> bool:
            return False

    def fail() -> None:
        raise FalseError

    future = executor.submit(fail)
    assert isinstance(future.exception(), FalseError)


@frees_at_once
def test_a_failed_call_leaves_no_cycle(executor: futures.Executor) -> None:
    def fail(thing: Thing) -> None:
        raise LookupError

    thing = Thing()
    watched = weakref.ref(thing)
    gc.disable()
    try:
        future = executor.submit(fail, thing)
        futures.wait([future])
        del thing, future
        until(lambda: watched() is None)
    finally:
        gc.enable()


def test_the_arguments_are_let_go_of_when_the_call_has_ended(executor: futures.Executor) -> None:
    thing, done = Thing(), threading.Event()
    watched = weakref.ref(thing, lambda _: done.set())
    future = executor.submit(thing.method)
    del thing
    future.result()
    assert done.wait(60)
    assert watched() is None


def test_many_threads_may_submit_and_shut_down_at_once(make: Make) -> None:
    executor = make(3)
    accepted: list[futures.Future[int]] = []

    def submit() -> None:
        try:
            while True:
                accepted.append(executor.submit(int))
        except RuntimeError:
            return

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(accepted) > 100)
    executor.shutdown()
    for thread in threads:
        thread.join()
    assert all(future.result() == 0 for future in accepted)


def test_calls_submit_to_their_own_executor(executor: futures.Executor) -> None:
    def outer() -> int:
        return executor.submit(int, "7").result()

    assert executor.submit(outer).result() == 7


# ---- Futures -------------------------------------------------------------------------------------


def test_a_future_goes_through_the_standard_states(make: Make) -> None:
    with make(1) as executor:
        with Gate(executor) as gate:
            (running,) = gate.futures
            pending = executor.submit(int)
            cancelled = executor.submit(int)
            assert cancelled.cancel()
            assert (running.running(), running.done(), running.cancel()) == (True, False, False)
            assert (pending.running(), pending.done()) == (False, False)
            assert (cancelled.cancelled(), cancelled.done()) == (True, True)
            assert "state=pending" in repr(pending)
            assert "state=running" in repr(running)
            assert "state=cancelled" in repr(cancelled)
        assert pending.result() == 0
        assert "state=finished returned int" in repr(pending)
        failed = executor.submit(int, "x")
        assert isinstance(failed.exception(), ValueError)
        assert "state=finished raised ValueError" in repr(failed)


def test_a_cancelled_call_never_runs(make: Make) -> None:
    ran = threading.Event()
    with make(1) as executor:
        with Gate(executor):
            future = executor.submit(ran.set)
            assert future.cancel()
            assert future.cancel()
            with pytest.raises(futures.CancelledError):
                future.result()
            with pytest.raises(futures.CancelledError):
                future.exception()
        executor.submit(int).result()
    assert not ran.is_set()


def test_waiting_for_a_result_may_time_out(make: Make) -> None:
    with make(1) as executor, Gate(executor) as gate:
        for method in (gate.futures[0].result, gate.futures[0].exception):
            with pytest.raises(TimeoutError):
                method(timeout=0)
            with pytest.raises(TimeoutError):
                method(0.001)


def test_a_thread_waits_for_a_result_that_comes_later(make: Make) -> None:
    with make(1) as executor, futures.ThreadPoolExecutor(1) as waiters:
        with Gate(executor):
            future = executor.submit(int, "7")
            waiting = waiters.submit(future.result)
            until(lambda: bool(future._condition._waiters))  # type: ignore[attr-defined]
        assert waiting.result() == 7


def test_callbacks_are_called_in_order_on_the_worker_with_the_future(make: Make) -> None:
    seen: list[tuple[str, object, str]] = []

    def note(word: str, future: futures.Future[int]) -> None:
        seen.append((word, future.result(), threading.current_thread().name))

    with make(1, "noted") as executor, Gate(executor):
        future = executor.submit(int, "7")
        future.add_done_callback(partial(note, "first"))
        future.add_done_callback(partial(note, "second"))
    assert [(word, result) for word, result, _ in seen] == [("first", 7), ("second", 7)]
    assert all(thread.startswith("noted") for *_, thread in seen)


def test_a_callback_of_a_done_future_is_called_at_once(executor: futures.Executor) -> None:
    future = executor.submit(int, "7")
    future.result()
    seen: list[object] = []
    future.add_done_callback(seen.append)
    assert seen == [future]


def test_a_callback_that_raises_is_logged_and_the_next_is_called(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()

    def fail(_: object) -> None:
        raise LookupError

    with make(1) as executor, Gate(executor):
        future = executor.submit(int)
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: called.set())
    assert called.is_set()
    assert "exception calling callback" in caplog.text


def test_a_callback_is_called_when_the_future_is_cancelled(make: Make) -> None:
    seen: list[object] = []
    with make(1) as executor, Gate(executor):
        future = executor.submit(int)
        future.add_done_callback(seen.append)
        future.cancel()
        assert seen == [future]


def test_a_finished_future_refuses_another_outcome(executor: futures.Executor) -> None:
    future = executor.submit(int)
    future.result()
    with pytest.raises(futures.InvalidStateError):
        future.set_result(1)
    with pytest.raises(futures.InvalidStateError):
        future.set_exception(LookupError())
    assert future.result() == 0


def test_a_future_that_nobody_looks_at_before_it_is_done_makes_no_condition() -> None:
    with dromon.Executor(1) as executor:
        future = executor.submit(int, "7")
    assert future.result() == 7
    assert not any(isinstance(each, threading.Condition) for each in gc.get_referents(future))


def test_a_future_made_by_hand_works_as_the_standard_one() -> None:
    future = PoolFuture()
    assert future.set_running_or_notify_cancel()
    future.set_result(7)
    assert (future.result(), future.exception(), future.done()) == (7, None, True)


def test_futures_are_told_from_another_as_always(executor: futures.Executor) -> None:
    made = [executor.submit(int) for _ in range(100)]
    assert len(set(made)) == 100
    assert weakref.ref(made[0])() is made[0]


# ---- wait and as_completed -----------------------------------------------------------------------


def fail_with(error: BaseException) -> None:
    raise error


def test_wait_returns_at_the_first_completed_one(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        (blocked,) = gate.futures
        quick = executor.submit(int)
        done, not_done = futures.wait([blocked, quick], return_when=futures.FIRST_COMPLETED)
        assert (done, not_done) == ({quick}, {blocked})


def test_wait_returns_at_once_if_some_are_completed_already(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        (blocked,) = gate.futures
        quick = executor.submit(int)
        quick.result()
        done, not_done = futures.wait([blocked, quick], return_when=futures.FIRST_COMPLETED)
        assert (done, not_done) == ({quick}, {blocked})


def test_wait_returns_at_the_first_exception(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        (blocked,) = gate.futures
        quick = executor.submit(int)
        failing = executor.submit(fail_with, LookupError())
        done, not_done = futures.wait(
            [blocked, quick, failing], return_when=futures.FIRST_EXCEPTION
        )
        assert (done, not_done) == ({quick, failing}, {blocked})


def test_wait_waits_for_all_also_cancelled_and_failed_ones(make: Make) -> None:
    with make(1) as executor:
        with Gate(executor) as gate:
            cancelled = executor.submit(int)
            cancelled.cancel()
            all_of_them = [
                *gate.futures,
                cancelled,
                executor.submit(int),
                executor.submit(fail_with, LookupError()),
            ]
        done, not_done = futures.wait(all_of_them, return_when=futures.ALL_COMPLETED)
        assert (done, not_done) == (set(all_of_them), set())


def test_wait_times_out_and_tells_what_is_done(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        quick = executor.submit(int)
        quick.result()
        done, not_done = futures.wait([*gate.futures, quick, quick], timeout=0.001)
        assert (done, not_done) == ({quick}, set(gate.futures))


def test_as_completed_gives_each_once_as_it_completes(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        (blocked,) = gate.futures
        quick = executor.submit(int)
        completed = futures.as_completed([blocked, quick, quick])
        assert next(completed) is quick
        gate.open()
        assert list(completed) == [blocked]


def test_as_completed_times_out(make: Make) -> None:
    with make(2) as executor, Gate(executor) as gate:
        quick = executor.submit(int)
        quick.result()
        completed = futures.as_completed([*gate.futures, quick], timeout=0.001)
        assert next(completed) is quick
        with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
            next(completed)


def test_as_completed_keeps_no_future_that_it_gave(executor: futures.Executor) -> None:
    watched: list[weakref.ref[Any]] = []
    for future in futures.as_completed([executor.submit(int) for _ in range(3)]):
        watched.append(weakref.ref(future))
        del future
        until(lambda: watched[-1]() is None)


def test_results_are_the_same_in_ten_thousand_mixed_futures(executor: futures.Executor) -> None:
    made = {executor.submit(int, str(number)): number for number in range(10_000)}
    assert all(future.result() == made[future] for future in futures.as_completed(made))


# ---- map -----------------------------------------------------------------------------------------


def test_map_gives_results_in_order(executor: futures.Executor) -> None:
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))


@pytest.mark.parametrize("chunksize", [1, 2, 3, 10, 100])
def test_map_takes_a_chunksize(executor: futures.Executor, chunksize: int) -> None:
    results = executor.map(pow, range(10), itertools.repeat(2), chunksize=chunksize)
    assert list(results) == [number**2 for number in range(10)]


def test_map_raises_what_a_call_raised_at_its_place(executor: futures.Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 3, 10])
def test_map_gives_what_came_before_a_failed_call_also_of_the_same_chunk(
    executor: futures.Executor, chunksize: int
) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_submits_before_it_is_iterated(executor: futures.Executor) -> None:
    ran: list[int] = []
    executor.map(ran.append, range(10))
    executor.shutdown()
    assert sorted(ran) == list(range(10))


def test_map_times_out(make: Make) -> None:
    opened = threading.Event()
    with make(1) as executor:
        results = executor.map(lambda _: opened.wait(), range(2), timeout=0.001)
        with pytest.raises(TimeoutError):
            next(results)
        opened.set()


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_cancels_the_rest_when_its_iterator_is_closed(make: Make, chunksize: int) -> None:
    ran: list[int] = []
    with make(1) as executor:
        with Gate(executor):
            results = executor.map(ran.append, range(10), chunksize=chunksize)
            results.close()  # type: ignore[attr-defined]  # a generator that has not begun
            results = executor.map(ran.append, range(10, 20), chunksize=chunksize)
            waiting = threading.Thread(target=partial(next, results))
            waiting.start()
        waiting.join()
        results.close()  # type: ignore[attr-defined]
    assert len(ran) <= 20


@frees_at_once
def test_map_lets_go_of_results_that_were_taken(executor: futures.Executor) -> None:
    watched: list[weakref.ref[Thing]] = []
    for thing in executor.map(lambda _: Thing(), range(3)):
        watched.append(weakref.ref(thing))
        del thing
        until(lambda: watched[-1]() is None)


@frees_at_once
def test_map_lets_go_of_results_of_a_chunk_that_were_taken() -> None:
    watched: list[weakref.ref[Thing]] = []
    with dromon.Executor(1) as executor:
        for thing in executor.map(lambda _: Thing(), range(3), chunksize=3):
            watched.append(weakref.ref(thing))
            del thing
            until(lambda: watched[-1]() is None)


def test_a_chunk_runs_as_one_call() -> None:
    with dromon.Executor(1) as executor:
        assert list(executor.map(int, "0123456789", chunksize=4)) == list(range(10))
        assert executor._pool is not None
        assert executor._pool.statistics().completed == 3


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_refuses_a_call_that_turns_out_asynchronous(chunksize: int) -> None:
    async def asynchronous(_: int) -> None: ...

    with dromon.Executor(1) as executor:
        results = executor.map(lambda item: asynchronous(item), [1], chunksize=chunksize)
        with pytest.raises(TypeError, match="appears to be asynchronous"):
            list(results)


BUFFERED = pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            futures.ThreadPoolExecutor,
            marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14"),
        ),
        dromon.Executor,
    ],
    ids=["stdlib", "dromon"],
)


@BUFFERED
@pytest.mark.parametrize("buffersize", [1, 2, 3, 10])
def test_map_reads_only_as_far_as_its_buffer(make: Make, buffersize: int) -> None:
    numbers = itertools.count()
    with make(1) as executor:
        results = executor.map(int, numbers, buffersize=buffersize)  # type: ignore[call-arg]
        read = next(numbers)
        assert read == buffersize
        assert next(results) == 0
        assert next(numbers) == buffersize + 2  # this test took one, and one result was taken
        results.close()  # type: ignore[attr-defined]


@BUFFERED
def test_map_with_a_buffer_gives_all_results_in_order(make: Make) -> None:
    with make(2) as executor:
        results = executor.map(pow, range(10), range(10), buffersize=2)  # type: ignore[call-arg]
        assert list(results) == list(map(pow, range(10), range(10)))
        assert list(executor.map(int, [], buffersize=2)) == []  # type: ignore[call-arg]


@BUFFERED
def test_map_with_a_buffer_goes_on_when_its_executor_was_dropped(make: Make) -> None:
    results = make(1).map(int, itertools.count(), buffersize=2)  # type: ignore[call-arg]
    gc.collect()
    assert list(results) == [0, 1]


@BUFFERED
@pytest.mark.parametrize(
    ("buffersize", "error"), [("2", TypeError), (2.0, TypeError), (0, ValueError), (-1, ValueError)]
)
def test_a_bad_buffersize_is_refused(make: Make, buffersize: Any, error: type[Exception]) -> None:
    with make(1) as executor, pytest.raises(error, match="buffersize must be"):
        executor.map(int, "123", buffersize=buffersize)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("chunksize", "error"), [("2", TypeError), (True, TypeError), (0, ValueError)]
)
def test_a_bad_chunksize_is_refused(chunksize: Any, error: type[Exception]) -> None:
    with dromon.Executor(1) as executor, pytest.raises(error, match="chunksize must be"):
        executor.map(int, "123", chunksize=chunksize)


def test_chunks_and_buffer_work_together() -> None:
    numbers = itertools.count()
    with dromon.Executor(1) as executor:
        results = executor.map(int, numbers, chunksize=4, buffersize=2)
        assert next(numbers) == 8
        assert list(itertools.islice(results, 8)) == list(range(8))
        assert isinstance(results, Iterator)


# ---- Shutting down -------------------------------------------------------------------------------


def test_after_shutdown_submit_raises(make: Make) -> None:
    executor = make(1)
    executor.submit(int)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(int, "1")


def test_an_executor_that_was_never_used_shuts_down(make: Make) -> None:
    executor = make(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)


def test_leaving_the_block_waits_for_all_calls(make: Make) -> None:
    ran: list[int] = []
    with make(2) as executor:
        for number in range(100):
            executor.submit(ran.append, number)
    assert sorted(ran) == list(range(100))


def test_shutdown_without_waiting_lets_calls_end(make: Make) -> None:
    executor = make(1)
    with Gate(executor) as gate:
        queued = executor.submit(int, "7")
        executor.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(int)
        assert not gate.futures[0].done()
    assert queued.result() == 7
    executor.shutdown()


def test_shutdown_may_cancel_what_has_not_begun(make: Make) -> None:
    executor = make(2)
    gate = Gate(executor, 2)
    queued = [executor.submit(int) for _ in range(100)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    assert not any(future.done() for future in gate.futures)
    gate.open()
    executor.shutdown()
    assert all(future.done() and not future.cancelled() for future in gate.futures)


def test_shutdown_on_a_worker_of_its_own_is_refused(make: Make) -> None:
    with make(1) as executor, pytest.raises(RuntimeError, match=r"cannot (join|close)"):
        executor.submit(executor.shutdown).result()


def test_threads_bear_the_prefix_and_end_with_the_executor(make: Make) -> None:
    with make(3, thread_name_prefix="SpecialPool") as executor, Gate(executor, 3):
        names = [each.name for each in threading.enumerate()]
        assert sum(name.startswith("SpecialPool") for name in names) == 3
    assert not any(each.name.startswith("SpecialPool") for each in threading.enumerate())


def test_a_dropped_executor_ends_its_threads_when_its_calls_have_ended(make: Make) -> None:
    executor = make(2, thread_name_prefix="Dropped")
    watched = weakref.ref(executor)
    gate = Gate(executor)
    queued = executor.submit(int, "7")
    del executor
    gc.collect()
    assert watched() is None
    gate.open()
    assert queued.result() == 7
    until(lambda: not any(each.name.startswith("Dropped") for each in threading.enumerate()))


def test_a_dropped_executor_that_was_never_used_is_silent(make: Make) -> None:
    make(1)
    gc.collect()


def test_what_was_submitted_is_finished_when_the_interpreter_ends(make: Make) -> None:
    run_script(
        make,
        """
import time
def work():
    time.sleep(0.2)
    print("worked", flush=True)
executor = Make(1)
executor.submit(work)
executor.submit(work)
""",
        "worked\nworked",
    )


def test_a_dropped_executors_work_is_finished_when_the_interpreter_ends(make: Make) -> None:
    run_script(
        make,
        """
import time
def work():
    time.sleep(0.2)
    print("worked", flush=True)
Make(1).submit(work)
""",
        "worked",
    )


def test_what_is_submitted_when_the_interpreter_ends_is_refused(make: Make) -> None:
    run_script(
        make,
        """
import atexit, time, threading
@atexit.register
def submit():
    try:
        executor.submit(print, "ran")
    except RuntimeError as error:
        print(error)
executor = Make(1)
executor.submit(int).result()
fresh = Make(1)
@atexit.register
def start():
    try:
        fresh.submit(print, "ran")
    except RuntimeError as error:
        print(error)
""",
        "cannot schedule new futures after interpreter shutdown\n"
        "cannot schedule new futures after interpreter shutdown"
        if make is dromon.Executor
        else "cannot schedule new futures after interpreter shutdown\n"
        "cannot schedule new futures after shutdown",
    )


def test_an_executor_that_starts_while_the_interpreter_ends_refuses_its_first_call() -> None:
    check_child(
        """
        import threading
        ended, begun = threading.Event(), threading.Event()
        threading._register_atexit(ended.set)  # comes after what dromon has registered
        import dromon

        def initialize():
            begun.set()
            ended.wait()

        def submit():
            try:
                dromon.Executor(1, initializer=initialize).submit(print, "lost, perhaps")
            except RuntimeError as error:
                print(error)

        threading.Thread(target=submit).start()
        begun.wait()
        """,
        "cannot schedule new futures after interpreter shutdown",
    )


def test_many_executors_leave_nothing_behind(make: Make) -> None:
    before = threading.active_count()
    for _ in range(50):
        with make(2) as executor:
            executor.submit(int).result()
    until(lambda: threading.active_count() <= before)


# ---- Initializers --------------------------------------------------------------------------------


def test_the_initializer_runs_with_its_arguments_on_each_thread_first(make: Make) -> None:
    local = threading.local()

    def prepare(word: str) -> None:
        local.word = word

    with make(2, initializer=prepare, initargs=("ready",)) as executor:
        barrier = threading.Barrier(2)

        def work() -> str:
            barrier.wait()
            return str(local.word)

        assert [each.result() for each in [executor.submit(work) for _ in range(2)]] == [
            "ready",
            "ready",
        ]


def test_an_initializer_that_raises_breaks_the_executor(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise LookupError("in the initializer")

    def use() -> None:
        executor.submit(int).result()

    with make(2, initializer=fail) as executor:
        for _ in range(3):  # the standard library notices it a moment later
            with pytest.raises(BrokenThreadPool):
                use()
        until(lambda: "Exception in initializer:" in caplog.text)
        with pytest.raises(BrokenThreadPool, match="initializer failed"):
            executor.submit(int)
    assert "LookupError: in the initializer" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.CRITICAL}


@pytest.mark.parametrize("use", ["executor.submit(int)", "executor.shutdown()"])
def test_an_initializer_that_uses_its_own_executor_breaks_it_and_does_not_hang(use: str) -> None:
    check_child(
        f"""
        import logging, dromon
        from concurrent.futures.thread import BrokenThreadPool
        logging.disable()
        executor = dromon.Executor(1, initializer=lambda: {use})
        try:
            executor.submit(int)
        except BrokenThreadPool as error:
            print(error.__cause__)
        """,
        "an initializer cannot use its own executor, which waits for it",
    )


# ---- What is dromon's own ------------------------------------------------------------------------


def test_a_call_sees_the_context_variables_of_its_submitter() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    with dromon.Executor(1) as executor:
        variable.set("mine")
        assert executor.submit(variable.get).result() == "mine"
        assert list(executor.map(lambda _: variable.get(), "ab")) == ["mine", "mine"]


async def test_a_call_is_not_inside_an_async_library() -> None:
    import sniffio

    with dromon.Executor(1) as executor:
        future = executor.submit(sniffio.current_async_library)
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            await trio.to_thread.run_sync(future.result)


@pytest.mark.parametrize("function", [5, asyncio.sleep, partial(asyncio.sleep, 1)])
def test_what_cannot_be_run_is_refused_at_the_call(function: Any) -> None:
    with dromon.Executor(1) as executor:
        with pytest.raises(TypeError, match=r"must be callable|expected a sync"):
            executor.submit(function)
        with pytest.raises(TypeError, match=r"must be callable|expected a sync"):
            executor.map(function, [1])


def test_submit_never_waits_however_long_the_queue_is() -> None:
    with dromon.Executor(1) as executor:
        with Gate(executor):
            made = [executor.submit(int, "7") for _ in range(10_000)]
        assert {future.result() for future in made} == {7}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_workers": True}, TypeError, "max_workers must be an integer or None, not True"),
        ({"max_workers": 1025}, ValueError, "max_workers must be from 1 to 1024, not 1025"),
        ({"thread_name_prefix": 5}, TypeError, "thread_name_prefix must be a string, not 5"),
        ({"thread_name_prefix": "\0"}, ValueError, "thread_name_prefix must be printable"),
        ({"initializer": asyncio.sleep}, TypeError, "asynchronous, given as initializer"),
        ({"nice": 99}, ValueError, "nice must be from -39 to 39, not 99"),
    ],
)
def test_a_bad_option_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dromon.Executor(**options)


def test_options_reach_the_workers() -> None:
    with dromon.Executor(2, "placed", stack_size=1 << 20) as executor:
        executor.submit(int).result()
        assert executor._pool is not None
        workers = executor._pool.statistics().workers
        assert [worker.name for worker in workers] == ["placed-0", "placed-1"]
        assert {worker.stack_size for worker in workers} == {1 << 20}


def test_an_executor_is_refused_in_a_forked_child_and_a_new_one_works_there() -> None:
    check_child(
        """
        import os, warnings, dromon

        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with several threads
        unused = dromon.Executor(1)
        with dromon.Executor(1) as executor:
            executor.submit(int).result()
            child = os.fork() == 0
            if child:
                try:
                    executor.submit(int)
                except RuntimeError as error:
                    print(error, flush=True)
                print(unused.submit(int, "7").result(), flush=True)
                with dromon.Executor(1) as another:
                    print(another.submit(int, "8").result(), flush=True)
        if child:
            unused.shutdown()
            os._exit(0)
        os.wait()
        print(unused.submit(int, "9").result())
        """,
        "the executor belongs to the process that forked this one; make another here\n7\n8\n9",
    )


def test_every_call_of_many_threads_is_run_once() -> None:
    ran: list[int] = []
    with dromon.Executor(4) as executor:

        def submit(start: int) -> None:
            for number in range(start, start + 5000):
                executor.submit(ran.append, number)

        threads = [threading.Thread(target=submit, args=(n * 5000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert collections.Counter(ran) == collections.Counter(range(20_000))


# ---- asyncio -------------------------------------------------------------------------------------


def test_it_serves_an_asyncio_loop(make: Make) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with make(2) as executor:
            calls = [loop.run_in_executor(executor, int, str(number)) for number in range(1000)]
            return await asyncio.gather(*calls)

    assert asyncio.run(main()) == list(range(1000))


def test_it_is_a_default_executor_of_asyncio(make: Make) -> None:
    async def main() -> tuple[int, str]:
        asyncio.get_running_loop().set_default_executor(make(2, "default"))
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        return await asyncio.to_thread(int, "7"), name

    result, name = asyncio.run(main())  # which shuts it down
    assert result == 7
    assert name.startswith("default")
    assert not any(each.name.startswith("default") for each in threading.enumerate())


def test_a_cancelled_asyncio_call_that_has_not_begun_never_runs(make: Make) -> None:
    ran = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with make(1) as executor, Gate(executor):
            waiting = loop.run_in_executor(executor, ran.set)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)  # a turn of the loop, which passes the cancellation on

    asyncio.run(main())
    assert not ran.is_set()
