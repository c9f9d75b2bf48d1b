"""`Future` of dromon.green: a result that green threads and other threads wait for."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import InvalidStateError, ThreadPoolExecutor

import pytest
import trio

import dromon
from dromon import green


def test_it_is_not_done_at_first() -> None:
    assert not green.Future[int]().done()


def test_its_result_is_what_was_set(place: ThreadPoolExecutor) -> None:
    future = green.Future[list[int]]()
    value = [1]
    wait = place.submit(future.result)
    future.set_result(value)
    assert wait.result() is value
    assert future.done()
    assert future.result() is value
    assert future.exception() is None


def test_its_result_raises_the_exception_that_was_set(place: ThreadPoolExecutor) -> None:
    future = green.Future[int]()
    wait, error = place.submit(future.result), KeyError("why")
    future.set_exception(error)
    with pytest.raises(KeyError) as caught:
        wait.result()
    assert caught.value is error
    assert future.exception() is error
    assert future.done()


def test_its_exception_can_be_waited_for(place: ThreadPoolExecutor) -> None:
    future = green.Future[int]()
    wait, error = place.submit(future.exception), KeyboardInterrupt()
    future.set_exception(error)
    assert wait.result() is error


def test_the_exception_has_the_one_that_was_handled_as_its_context() -> None:
    future = green.Future[int]()
    future.set_exception(KeyError())
    handled = ValueError()

    def handle() -> None:
        try:
            raise handled
        except ValueError:
            future.result()

    with pytest.raises(KeyError) as caught:
        handle()
    assert caught.value.__context__ is handled


def test_all_who_wait_get_it(place: ThreadPoolExecutor) -> None:
    future, begun = green.Future[str](), threading.Semaphore(0)

    def wait() -> str:
        begun.release()
        return future.result()

    waits = [place.submit(wait) for _ in range(10)]
    for _ in waits:
        begun.acquire()
    future.set_result("all")
    assert [wait.result() for wait in waits] == ["all"] * 10


def test_it_is_set_only_once() -> None:
    future = green.Future[int]()
    future.set_result(1)
    with pytest.raises(InvalidStateError, match="the Future is done already"):
        future.set_result(2)
    with pytest.raises(InvalidStateError, match="the Future is done already"):
        future.set_exception(KeyError())
    assert future.result() == 1


@pytest.mark.parametrize("error", [KeyError, "no", None])
def test_what_is_no_exception_is_refused(error: object) -> None:
    future = green.Future[int]()
    with pytest.raises(TypeError, match="must be an exception, not"):
        future.set_exception(error)  # type: ignore[arg-type]
    assert not future.done()


def test_a_wait_that_takes_too_long_raises_timeout_error(place: ThreadPoolExecutor) -> None:
    future = green.Future[int]()
    with pytest.raises(TimeoutError, match=r"Future\.result\(\) timed out"):
        place.submit(future.result, 0.01).result()
    with pytest.raises(TimeoutError, match=r"Future\.exception\(\) timed out"):
        future.exception(timeout=0)
    future.set_result(1)
    assert future.result(timeout=0) == 1


def test_a_cycle_through_one_is_collected() -> None:
    class Value:
        future: object

    future, value = green.Future[Value](), Value()
    value.future = future
    future.set_result(value)
    reference = weakref.ref(value)
    del future, value
    gc.collect()
    assert reference() is None


async def test_the_thread_of_an_event_loop_is_refused_and_told_of_trio() -> None:
    future = green.Future[int]()
    with pytest.raises(RuntimeError, match=r"trio\.Event"):
        future.result()
    with pytest.raises(RuntimeError, match=r"trio\.Event"):
        future.exception()
    future.set_result(1)
    assert future.done()


async def test_a_wait_ends_when_the_task_is_cancelled() -> None:
    future, begun = green.Future[int](), trio.Event()

    def wait() -> int:
        dromon.from_thread.run_sync(begun.set)
        return future.result()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, wait)
        await begun.wait()
        nursery.cancel_scope.cancel()
    future.set_result(1)
    assert future.done()
