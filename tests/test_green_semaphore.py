"""`Semaphore` of dromon.green: permits that green threads and other threads wait for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import dromon
from dromon import green


def test_its_values_can_be_read() -> None:
    semaphore = green.Semaphore(2, max_value=3)
    assert (semaphore.value, semaphore.max_value) == (2, 3)
    semaphore.acquire()
    assert semaphore.value == 1
    assert green.Semaphore(0).max_value is None


def test_values_that_are_not_whole_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="initial_value must be an int"):
        green.Semaphore(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_value must be None or an int"):
        green.Semaphore(1, max_value=1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        green.Semaphore(1, 2)  # type: ignore[call-arg]


def test_values_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="initial_value must be >= 0"):
        green.Semaphore(-1)
    with pytest.raises(ValueError, match="max_value must be >= initial_value"):
        green.Semaphore(1, max_value=0)
    with pytest.raises(ValueError, match="max_value must be >= initial_value"):
        green.Semaphore(0, max_value=-1)


def test_no_more_hold_it_than_it_has_permits(place: ThreadPoolExecutor) -> None:
    semaphore, entered, leave = green.Semaphore(3), threading.Semaphore(0), green.Event()
    holders: set[int] = set()
    most = 0

    def hold(number: int) -> None:
        nonlocal most
        with semaphore:
            holders.add(number)
            most = max(most, len(holders))
            entered.release()
            leave.wait()
            holders.remove(number)

    calls = [place.submit(hold, number) for number in range(10)]
    for _ in range(3):
        entered.acquire()
    leave.set()
    for call in calls:
        call.result()
    assert most == 3
    assert semaphore.value == 3


def test_a_permit_goes_to_who_has_waited_longest(one_worker: dromon.Executor) -> None:
    semaphore = green.Semaphore(0)
    order: list[int] = []

    def take(number: int) -> None:
        semaphore.acquire()
        order.append(number)

    calls = [one_worker.submit(take, number) for number in range(5)]
    for _ in calls:
        one_worker.submit(semaphore.release)
    for call in calls:
        call.result()
    assert order == list(range(5))


def test_a_permit_that_was_handed_over_is_nobody_elses(one_worker: dromon.Executor) -> None:
    semaphore = green.Semaphore(0)

    def release_and_take() -> None:
        semaphore.release()
        with pytest.raises(green.WouldBlock):
            semaphore.acquire_nowait()

    first, second = one_worker.submit(semaphore.acquire), one_worker.submit(release_and_take)
    first.result()
    second.result()
    assert semaphore.value == 0


def test_acquire_nowait_does_not_wait() -> None:
    semaphore = green.Semaphore(1)
    semaphore.acquire_nowait()
    with pytest.raises(green.WouldBlock, match="the Semaphore has no permit left"):
        semaphore.acquire_nowait()


def test_acquire_raises_timeout_error_and_takes_nothing(place: ThreadPoolExecutor) -> None:
    semaphore = green.Semaphore(0)
    with pytest.raises(TimeoutError, match=r"Semaphore\.acquire\(\) timed out"):
        place.submit(semaphore.acquire, 0.01).result()
    semaphore.release()
    assert semaphore.value == 1


def test_more_than_the_maximum_cannot_be_released() -> None:
    semaphore = green.Semaphore(1, max_value=1)
    with pytest.raises(ValueError, match="semaphore released too many times"):
        semaphore.release()
    assert semaphore.value == 1


def test_a_permit_for_who_waits_does_not_count_for_the_maximum(
    one_worker: dromon.Executor,
) -> None:
    semaphore = green.Semaphore(0, max_value=0)
    wait = one_worker.submit(semaphore.acquire)
    one_worker.submit(semaphore.release).result()
    assert wait.result() is None


async def test_the_thread_of_an_event_loop_is_refused_and_told_of_trio() -> None:
    semaphore = green.Semaphore(1)
    with pytest.raises(RuntimeError, match=r"trio\.Semaphore"):
        semaphore.acquire()
    with pytest.raises(RuntimeError, match=r"trio\.Semaphore"), semaphore:
        pass
    assert semaphore.value == 1
    semaphore.acquire_nowait()
    semaphore.release()


async def test_a_cancelled_one_takes_nothing() -> None:
    semaphore, begun = green.Semaphore(0), trio.Event()

    def take() -> None:
        dromon.from_thread.run_sync(begun.set)
        semaphore.acquire()

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, take)
        await begun.wait()
        nursery.cancel_scope.cancel()
    semaphore.release()
    assert semaphore.value == 1
