"""`Lock` and `RLock` of dromon.green, which belong to tasks."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import dromon
from dromon import green

AnyLock = green.Lock | green.RLock

either = pytest.mark.parametrize("kind", [green.Lock, green.RLock])


@either
def test_one_holds_it_at_a_time(kind: type[AnyLock], place: ThreadPoolExecutor) -> None:
    lock = kind()
    count = 0

    def add() -> None:
        nonlocal count
        with lock:
            before = count
            green.checkpoint()
            count = before + 1

    adds = [place.submit(add) for _ in range(20)]
    for each in adds:
        each.result()
    assert count == 20


@either
def test_it_stays_held_while_its_owner_waits(
    kind: type[AnyLock], place: ThreadPoolExecutor
) -> None:
    lock, held, event = kind(), threading.Event(), green.Event()
    order: list[str] = []

    def hold() -> None:
        with lock:
            held.set()
            event.wait()
            order.append("first")

    def take() -> None:
        with lock:
            order.append("second")

    first = place.submit(hold)
    held.wait()
    second = place.submit(take)
    assert lock.locked()
    event.set()
    first.result()
    second.result()
    assert order == ["first", "second"]
    assert not lock.locked()


@either
def test_another_task_of_the_same_worker_is_not_its_owner(
    kind: type[AnyLock], one_worker: dromon.Executor
) -> None:
    lock, event = kind(), green.Event()

    def hold() -> None:
        with lock:
            event.wait()

    first = one_worker.submit(hold)
    with pytest.raises(green.WouldBlock):
        one_worker.submit(lock.acquire_nowait).result()
    with pytest.raises(RuntimeError, match="you don't own"):
        one_worker.submit(lock.release).result()
    event.set()
    first.result()


@either
def test_it_goes_to_who_has_waited_longest(
    kind: type[AnyLock], one_worker: dromon.Executor
) -> None:
    lock, event = kind(), green.Event()
    order: list[int] = []

    def hold() -> None:
        with lock:
            event.wait()

    def take(number: int) -> None:
        with lock:
            order.append(number)

    calls = [one_worker.submit(hold), *(one_worker.submit(take, n) for n in range(5))]
    one_worker.submit(event.set)
    for call in calls:
        call.result()
    assert order == list(range(5))


@either
def test_who_comes_later_does_not_get_in_before_who_was_woken(
    kind: type[AnyLock], one_worker: dromon.Executor
) -> None:
    lock, held = kind(), green.Event()

    def release_and_take() -> None:
        with lock:
            held.wait()
        with pytest.raises(green.WouldBlock):
            lock.acquire_nowait()

    def take() -> None:
        with lock:
            pass

    first, second = one_worker.submit(release_and_take), one_worker.submit(take)
    one_worker.submit(held.set)
    first.result()
    second.result()
    assert not lock.locked()


@either
def test_acquire_nowait_takes_one_that_is_free(kind: type[AnyLock]) -> None:
    lock = kind()
    assert not lock.locked()
    lock.acquire_nowait()
    assert lock.locked()
    lock.release()
    assert not lock.locked()


@either
def test_acquire_nowait_does_not_wait(kind: type[AnyLock], place: ThreadPoolExecutor) -> None:
    lock = kind()
    with lock, pytest.raises(green.WouldBlock, match=f"the {kind.__name__} is held"):
        place.submit(lock.acquire_nowait).result()


@either
def test_acquire_raises_timeout_error(kind: type[AnyLock], place: ThreadPoolExecutor) -> None:
    lock = kind()
    with lock, pytest.raises(TimeoutError, match=rf"{kind.__name__}\.acquire\(\) timed out"):
        place.submit(lock.acquire, 0.01).result()
    assert not lock.locked()


@either
def test_other_arguments_of_acquire_are_refused(kind: type[AnyLock]) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\.acquire\(\) got an unexpected"):
        kind().acquire(blocking=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="timeout"):
        kind().acquire(False)


@either
def test_one_that_nobody_holds_cannot_be_released(kind: type[AnyLock]) -> None:
    with pytest.raises(RuntimeError, match=f"can't release a {kind.__name__} you don't own"):
        kind().release()


@either
def test_only_its_owner_can_release_it(kind: type[AnyLock], place: ThreadPoolExecutor) -> None:
    lock = kind()
    with lock, pytest.raises(RuntimeError, match="you don't own"):
        place.submit(lock.release).result()


@either
def test_it_is_released_by_an_exception(kind: type[AnyLock]) -> None:
    lock = kind()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


@either
def test_it_tells_the_task_that_holds_it(kind: type[AnyLock], one_worker: dromon.Executor) -> None:
    lock = kind()

    def look() -> bool:
        with lock:
            return lock.owner is green.current_task()

    assert one_worker.submit(look).result()
    assert lock.owner is None


@either
def test_it_tells_the_thread_that_holds_it(kind: type[AnyLock]) -> None:
    lock = kind()
    with lock:
        assert lock.owner == threading.get_ident()
    assert lock.owner is None


def test_the_owner_of_a_lock_cannot_acquire_it_again(place: ThreadPoolExecutor) -> None:
    lock = green.Lock()

    def acquire_twice() -> None:
        with lock:
            with pytest.raises(RuntimeError, match="re-acquire"):
                lock.acquire_nowait()
            with pytest.raises(RuntimeError, match="re-acquire"):
                lock.acquire()

    place.submit(acquire_twice).result()


def test_the_owner_of_an_rlock_releases_it_as_often_as_it_was_acquired(
    place: ThreadPoolExecutor,
) -> None:
    lock = green.RLock()

    def acquire_thrice() -> list[bool]:
        lock.acquire()
        lock.acquire()
        lock.acquire_nowait()
        held = []
        for _ in range(3):
            lock.release()
            held.append(lock.locked())
        return held

    assert place.submit(acquire_thrice).result() == [True, True, False]


def test_an_rlock_that_was_waited_for_can_be_acquired_again(one_worker: dromon.Executor) -> None:
    lock, event = green.RLock(), green.Event()

    def hold() -> None:
        with lock:
            event.wait()

    def take_twice() -> None:
        with lock, lock:
            pass

    first, second = one_worker.submit(hold), one_worker.submit(take_twice)
    one_worker.submit(event.set)
    first.result()
    second.result()
    assert not lock.locked()


@either
async def test_the_thread_of_an_event_loop_is_refused_and_told_of_trio(
    kind: type[AnyLock],
) -> None:
    lock = kind()
    with pytest.raises(RuntimeError, match=r"trio\.Lock"):
        lock.acquire()
    with pytest.raises(RuntimeError, match=r"trio\.Lock"), lock:
        pass
    assert not lock.locked()


@either
async def test_a_cancelled_one_does_not_get_it(kind: type[AnyLock]) -> None:
    lock, held, waits, event = kind(), trio.Event(), trio.Event(), green.Event()

    def hold() -> None:
        with lock:
            dromon.from_thread.run_sync(held.set)
            event.wait()

    def take() -> None:
        dromon.from_thread.run_sync(waits.set)
        with lock:
            raise AssertionError

    async def take_until_cancelled(scope: trio.CancelScope) -> None:
        with scope:
            await pool.run_sync(take)

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, hold)
        await held.wait()
        scope = trio.CancelScope()
        nursery.start_soon(take_until_cancelled, scope)
        await waits.wait()
        scope.cancel()
        while not scope.cancelled_caught:
            await trio.lowlevel.checkpoint()
        event.set()
    assert not lock.locked()


@either
def test_one_that_its_owner_has_left_held_stays_so(
    kind: type[AnyLock], place: ThreadPoolExecutor
) -> None:
    lock = kind()
    place.submit(lock.acquire).result()
    if isinstance(place, dromon.Executor):
        with pytest.raises(RuntimeError, match="you don't own"):
            place.submit(lock.release).result()
    assert lock.locked()


@either
def test_one_that_was_released_does_not_keep_its_owner(
    kind: type[AnyLock], one_worker: dromon.Executor
) -> None:
    lock = kind()

    class Argument:
        pass

    def take(_: object) -> None:
        with lock:
            pass

    argument = Argument()
    reference = weakref.ref(argument)
    one_worker.submit(take, argument).result()
    del argument
    gc.collect()
    assert reference() is None
