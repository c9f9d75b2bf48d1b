"""`Event` of dromon.green: a flag that green threads and other threads wait for."""

from __future__ import annotations

import math
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import dromon
from dromon import green


def test_it_is_not_set_at_first() -> None:
    assert not green.Event().is_set()


def test_it_takes_no_arguments() -> None:
    with pytest.raises(TypeError, match="Event"):
        green.Event(True)  # type: ignore[call-arg]


def test_a_wait_for_one_that_is_set_returns_at_once() -> None:
    event = green.Event()
    event.set()
    event.wait()
    event.wait(timeout=0)
    assert event.is_set()


def test_set_wakes_all_who_wait(place: ThreadPoolExecutor) -> None:
    begun, event = threading.Semaphore(0), green.Event()

    def wait() -> bool:
        begun.release()
        event.wait()
        return event.is_set()

    waits = [place.submit(wait) for _ in range(10)]
    for _ in waits:
        begun.acquire()
    event.set()
    assert all(wait.result() for wait in waits)


def test_a_green_thread_can_set_it_for_a_thread(one_worker: dromon.Executor) -> None:
    event = green.Event()
    one_worker.submit(event.set)
    event.wait()


def test_one_that_was_cleared_is_waited_for_again(place: ThreadPoolExecutor) -> None:
    event = green.Event()
    event.set()
    event.clear()
    assert not event.is_set()
    with pytest.raises(TimeoutError):
        event.wait(timeout=0)
    wait = place.submit(event.wait)
    event.set()
    assert wait.result() is None


def test_who_was_woken_goes_on_though_it_is_cleared_at_once(one_worker: dromon.Executor) -> None:
    event = green.Event()

    def set_and_clear() -> None:
        event.set()
        event.clear()

    wait = one_worker.submit(event.wait)
    one_worker.submit(set_and_clear)
    assert wait.result() is None
    assert not event.is_set()


def test_a_wait_that_takes_too_long_raises_timeout_error(place: ThreadPoolExecutor) -> None:
    event = green.Event()
    with pytest.raises(TimeoutError, match=r"Event\.wait\(\) timed out"):
        place.submit(event.wait, 0.01).result()
    event.set()
    event.wait()


def test_a_timeout_may_be_infinite() -> None:
    event = green.Event()
    event.set()
    event.wait(math.inf)


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_timeout_below_zero_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        green.Event().wait(timeout)


def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="timeout"):
        green.Event().wait("soon")  # type: ignore[arg-type]


def test_other_arguments_of_wait_are_refused() -> None:
    event = green.Event()
    with pytest.raises(TypeError, match=r"Event\.wait\(\) got more arguments"):
        event.wait(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Event\.wait\(\) got more arguments"):
        event.wait(1, timeout=2)  # type: ignore[misc]
    with pytest.raises(TypeError, match="unexpected keyword argument 'seconds'"):
        event.wait(seconds=1)  # type: ignore[call-arg]


def test_the_main_thread_that_waits_hears_signals() -> None:
    class Heard(Exception):
        pass

    def raise_heard(*_: object) -> None:
        raise Heard

    event, main = green.Event(), threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, raise_heard)
    sender = threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGUSR1))

    def wait() -> None:
        sender.start()
        event.wait()

    try:
        with pytest.raises(Heard):
            wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()
    event.set()
    event.wait()


async def test_the_thread_of_an_event_loop_is_refused_and_told_of_trio() -> None:
    event = green.Event()
    with pytest.raises(RuntimeError, match=r"trio\.Event"):
        event.wait()
    event.set()
    assert event.is_set()


async def test_a_wait_ends_when_the_task_is_cancelled() -> None:
    event, begun = green.Event(), trio.Event()
    ends: list[str] = []

    def wait() -> None:
        dromon.from_thread.run_sync(begun.set)
        try:
            event.wait()
        except green.Cancelled:
            ends.append("cancelled")
            raise

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, wait)
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert ends == ["cancelled"]
    event.set()  # and there is nobody to wake
