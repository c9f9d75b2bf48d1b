"""`Pool.map`, `Pool.starmap` and `Pool.open_map`: items, results, order, bounds, failures, ends."""

from __future__ import annotations

import contextvars
import ctypes
import gc
import io
import math
import operator
import threading
import traceback
import weakref
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import hypothesis
import hypothesis.strategies as st
import outcome
import pytest
import sniffio
import trio
import trio.testing
from child import check_child

import dromon
from dromon import _bridge, _chunks
from dromon._chunks import CHUNK_ITEMS_MOST, ChunkSize


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=2) as pool:
        yield pool


class Gates:
    """A callable whose calls tell that they have begun, and end when they are let go."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self._lock = threading.Lock()
        self._events: dict[Any, threading.Event] = {}
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()

    def __call__(self, item: Any) -> Any:
        with self._lock:
            self.begun.append(item)
            event = self._events.setdefault(item, threading.Event())
        self._token.run_sync_soon(self._tell)
        event.wait()
        return item

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_begun(self, *items: Any) -> None:
        while not set(items) <= set(self.begun):
            await self._changed.wait()

    def open(self, *items: Any) -> None:
        with self._lock:
            for item in items:
                self._events.setdefault(item, threading.Event()).set()


async def items_of(*items: Any) -> AsyncGenerator[Any, None]:
    for item in items:
        await trio.lowlevel.checkpoint()
        yield item


class Failure(Exception):
    """What items raise here."""


def fail_at(bad: Any) -> Callable[[Any], Any]:
    def call(item: Any) -> Any:
        if item == bad:
            raise Failure(item)
        return item

    return call


def notes(error: BaseException) -> list[str]:
    found: list[str] = error.__notes__
    return found


# ---- Results -------------------------------------------------------------------------------------


async def test_map_returns_the_results_in_the_order_of_the_items(pool: dromon.Pool) -> None:
    assert await pool.map(str, range(1000)) == [str(number) for number in range(1000)]


async def test_starmap_gives_each_item_as_the_arguments(pool: dromon.Pool) -> None:
    assert await pool.starmap(divmod, [(17, 5), (9, 2)]) == [(3, 2), (4, 1)]


async def test_open_map_gives_the_results_in_the_order_of_the_items(pool: dromon.Pool) -> None:
    async with pool.open_map(str, range(1000)) as results:
        assert [result async for result in results] == [str(number) for number in range(1000)]


async def test_a_later_result_waits_for_an_earlier_one(pool: dromon.Pool) -> None:
    gates = Gates()
    gates.open(1)
    async with pool.open_map(gates, [0, 1], chunksize=1) as results:
        await gates.wait_begun(0, 1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, results)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        gates.open(0)
        assert [result async for result in results] == [0, 1]
    assert not scope.cancelled_caught


async def test_unordered_results_come_as_they_finish(pool: dromon.Pool) -> None:
    gates = Gates()
    gates.open(1)
    async with pool.open_map(gates, [0, 1], ordered=False, chunksize=1) as results:
        assert await anext(results) == 1
        gates.open(0)
        assert await anext(results) == 0


@pytest.mark.parametrize("items", [[], (), items_of])
async def test_a_map_over_nothing_has_no_results(pool: dromon.Pool, items: Any) -> None:
    source = items() if callable(items) else items
    assert await pool.map(str, source) == []
    async with pool.open_map(str, []) as results:
        assert [result async for result in results] == []


async def test_the_items_may_come_from_an_async_iterable(pool: dromon.Pool) -> None:
    assert await pool.map(str, items_of(1, 2, 3)) == ["1", "2", "3"]


async def test_an_item_of_an_async_iterable_runs_while_the_next_is_waited_for(
    pool: dromon.Pool,
) -> None:
    results_seen = trio.Event()

    async def answers() -> AsyncGenerator[int, None]:
        for number in range(100):  # enough for chunks of more than one
            yield number
        await results_seen.wait()
        yield 100

    async with aclosing(answers()) as items, pool.open_map(str, items) as results:
        for number in range(100):
            assert await anext(results) == str(number)
        results_seen.set()
        assert [result async for result in results] == ["100"]


async def test_tasks_that_share_the_results_get_each_of_them_once(pool: dromon.Pool) -> None:
    seen: list[int] = []

    async def take(results: dromon.MapResults[int]) -> None:
        async for result in results:
            seen.append(result)
            await trio.lowlevel.checkpoint()

    async with pool.open_map(abs, range(2000)) as results, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take, results)
    assert sorted(seen) == list(range(2000))


async def test_tasks_that_wait_share_the_results_of_a_chunk(pool: dromon.Pool) -> None:
    gate = threading.Event()
    async with (
        pool.open_map(lambda _: gate.wait(), range(2), chunksize=2) as results,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(results.__anext__)
        nursery.start_soon(results.__anext__)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()


async def test_several_maps_share_a_pool(pool: dromon.Pool) -> None:
    async def one(start: int) -> None:
        assert await pool.map(abs, range(start, start + 500)) == list(range(start, start + 500))

    async with trio.open_nursery() as nursery:
        for start in range(0, 5000, 500):
            nursery.start_soon(one, start)


async def test_a_single_call_is_made_while_a_map_runs_without_end(pool: dromon.Pool) -> None:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    async with pool.open_map(abs, numbers()) as results:
        await anext(results)
        assert await pool.run_sync(int, "1") == 1


@hypothesis.given(
    items=st.integers(0, 300),
    workers=st.integers(1, 3),
    chunksize=st.one_of(st.just("auto"), st.integers(1, 40)),
    spare=st.one_of(st.none(), st.integers(0, 50)),
    ordered=st.booleans(),
    is_async=st.booleans(),
    bad=st.sets(st.integers(0, 299), max_size=3),
    return_outcomes=st.booleans(),
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_every_item_is_called_at_most_once_and_the_results_are_those_of_map(
    items: int,
    workers: int,
    chunksize: Any,
    spare: int | None,
    ordered: bool,
    is_async: bool,
    bad: set[int],
    return_outcomes: bool,
) -> None:
    calls: Counter[int] = Counter()
    lock = threading.Lock()

    def call(item: int) -> int:
        with lock:
            calls[item] += 1
        if item in bad:
            raise Failure(item)
        return -item

    async def main() -> list[Any]:
        size = 1 if chunksize == "auto" else chunksize
        source = items_of(*range(items)) if is_async else range(items)
        async with (
            dromon.open_pool(workers=workers) as pool,
            pool.open_map(
                call,
                source,
                chunksize=chunksize,
                max_in_flight=None if spare is None else size + spare,
                ordered=ordered,
                return_outcomes=return_outcomes,
            ) as results,
        ):
            return [result async for result in results]

    failing = bad & set(range(items))
    if failing and not return_outcomes:
        with pytest.raises(ExceptionGroup) as info:
            trio.run(main)
        assert {error.args[0] for error in info.value.exceptions} <= failing
        assert max(calls.values()) == 1
        return
    got = trio.run(main)
    assert calls == Counter(range(items))
    if return_outcomes:
        failed = {int(str(one.error)) for one in got if isinstance(one, outcome.Error)}
        assert failed == failing
        got = [
            one.unwrap() if isinstance(one, outcome.Value) else -one.error.args[0] for one in got
        ]
    assert (got if ordered else sorted(got, reverse=True)) == list(map(operator.neg, range(items)))


# ---- What an item's call is like -----------------------------------------------------------------


async def test_each_item_runs_in_a_fresh_copy_of_the_context_of_open_map(
    pool: dromon.Pool,
) -> None:
    variable = contextvars.ContextVar("variable", default="nobody's")

    def call(item: int) -> str:
        seen = variable.get()
        variable.set(f"that of item {item}")
        return seen

    variable.set("that of open_map")
    opened = pool.open_map(call, range(100), chunksize=10)
    variable.set("a later one")
    async with opened as results:
        assert {result async for result in results} == {"that of open_map"}
    assert variable.get() == "a later one"


async def test_an_item_is_not_inside_an_async_library(pool: dromon.Pool) -> None:
    def library(_: int) -> str:
        return sniffio.current_async_library()

    with pytest.RaisesGroup(sniffio.AsyncLibraryNotFoundError):
        await pool.map(library, [0])
    sniffio.current_async_library_cvar.set("trio")
    with pytest.RaisesGroup(sniffio.AsyncLibraryNotFoundError):
        await pool.map(library, [0])


async def test_an_item_can_call_back_into_trio(pool: dromon.Pool) -> None:
    async def answer(item: int) -> int:
        await trio.lowlevel.checkpoint()
        return -item

    assert await pool.map(partial(dromon.from_thread.run, answer), range(3)) == [0, -1, -2]


async def test_an_item_that_turns_out_asynchronous_fails_and_its_coroutine_is_closed(
    pool: dromon.Pool,
) -> None:
    async def asynchronous(_: int) -> None: ...

    # A coroutine left alone would be a warning, and so an error.
    with pytest.RaisesGroup(
        pytest.RaisesExc(TypeError, match=r"expected a sync function, but .*asynchronous")
    ):
        await pool.map(lambda item: asynchronous(item), [0])


# ---- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", ["auto", 1, 5])
@pytest.mark.parametrize("is_async", [False, True])
async def test_no_more_than_max_in_flight_items_are_read_and_not_handed_out(
    pool: dromon.Pool, chunksize: Any, is_async: bool
) -> None:
    read = handed = most = 0

    def count() -> int:
        nonlocal read, most
        read += 1
        most = max(most, read - handed)
        return read

    def numbers() -> Iterator[int]:
        while read < 3000:
            yield count()

    async def async_numbers() -> AsyncGenerator[int, None]:
        while read < 3000:
            yield count()

    source = async_numbers() if is_async else numbers()
    async with pool.open_map(abs, source, max_in_flight=20, chunksize=chunksize) as results:
        async for _ in results:
            handed += 1
    assert handed == 3000
    assert most <= 20


async def test_a_consumer_that_takes_nothing_stops_the_reading(pool: dromon.Pool) -> None:
    items = iter(range(1000))
    async with pool.open_map(abs, items, max_in_flight=7, chunksize=1):
        while pool.statistics().completed < 7:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
    assert next(items) == 7


async def test_an_item_that_takes_long_does_not_stop_the_reading_of_map(pool: dromon.Pool) -> None:
    gates = Gates()
    gates.open(*range(1, 100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.map(gates, range(100), max_in_flight=4, chunksize=1))
        await gates.wait_begun(99)
        gates.open(0)


async def test_an_async_generator_is_left_open_where_it_is(pool: dromon.Pool) -> None:
    closed = False

    async def numbers() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            for number in range(1000):
                yield number
        finally:
            closed = True

    async with aclosing(numbers()) as source:
        async with pool.open_map(abs, source, max_in_flight=1) as results:
            await anext(results)
            await trio.testing.wait_all_tasks_blocked()
            await anext(results)
        assert not closed
        assert await anext(source) < 1000


async def test_reading_and_progress_are_not_protected_from_keyboard_interrupts(
    pool: dromon.Pool,
) -> None:
    protected = []

    def numbers() -> Iterator[int]:
        protected.append(trio.lowlevel.currently_ki_protected())
        yield 1

    async def async_numbers() -> AsyncGenerator[int, None]:
        protected.append(trio.lowlevel.currently_ki_protected())
        yield 1

    def progress(_done: int, _total: int | None) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    await pool.map(abs, numbers(), progress=progress)
    await pool.map(abs, async_numbers())
    assert protected == [False, False, False]


# ---- Chunks --------------------------------------------------------------------------------------


async def test_a_chunk_is_one_call_of_the_pool(pool: dromon.Pool) -> None:
    await pool.map(abs, range(95), chunksize=10)
    assert pool.statistics().completed == 10


async def test_chunks_of_short_items_grow(pool: dromon.Pool) -> None:
    await pool.map(abs, range(10_000))
    assert pool.statistics().completed < 1000


async def test_while_chunks_are_long_or_unknown_none_waits_at_the_pool(pool: dromon.Pool) -> None:
    gates = Gates()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.map, gates, range(10))
        await gates.wait_begun(0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().queued == 0
        gates.open(*range(10))


def test_chunks_are_long_until_one_has_ended_soon() -> None:
    size = ChunkSize(1, 1)
    assert size.chunks_are_long
    size.learn(1, _chunks.CHUNK_SECONDS)
    assert not size.chunks_are_long
    size.learn(1, 2 * _chunks.LONG_CHUNK_SECONDS)
    assert size.chunks_are_long


def test_a_chunk_size_follows_the_time_that_items_take() -> None:
    size = ChunkSize(None, CHUNK_ITEMS_MOST)
    assert size.items == 1
    while size.items < CHUNK_ITEMS_MOST:
        before = size.items
        size.learn(size.items, 1e-6)
        assert before < size.items <= 8 * before
    size.learn(1, 1e-9)  # a rest of another chunk: it says nothing
    assert size.items == CHUNK_ITEMS_MOST
    for _ in range(50):
        size.learn(10, 10 * _chunks.CHUNK_SECONDS / 20)
    assert size.items == pytest.approx(20, abs=1)
    size.learn(1, 1.0)
    assert size.items == 1


def test_a_chunk_that_lost_its_cpu_for_a_while_hardly_makes_the_next_shorter() -> None:
    size = ChunkSize(None, CHUNK_ITEMS_MOST)
    for _ in range(50):
        size.learn(100, _chunks.CHUNK_SECONDS)
    size.learn(3, _chunks.CHUNK_SECONDS)  # a rest, which took as long
    assert size.items > 70


def test_a_chunk_size_follows_the_time_that_reading_takes() -> None:
    size = ChunkSize(None, CHUNK_ITEMS_MOST)
    size.learn(16, _chunks.CHUNK_SECONDS)
    assert size.items == 16
    size.learn_reading(16, 4 * _chunks.CHUNK_SECONDS)
    assert size.items == 4
    size.learn(16, _chunks.CHUNK_SECONDS)
    assert size.items == 4
    size.learn_reading(4, _chunks.CHUNK_SECONDS / 2)
    size.learn(16, _chunks.CHUNK_SECONDS)
    assert size.items == 8


async def test_a_worker_with_nothing_to_do_takes_from_a_chunk_that_is_held_up(
    pool: dromon.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dromon._open_map.ChunkSize", lambda _size, most: grown(10, most))
    gates = Gates()
    gates.open(*range(1, 10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.map, gates, range(10))
        await gates.wait_begun(*range(10))
        gates.open(0)


async def test_the_items_of_a_chunk_that_proves_too_long_go_on_in_others(
    pool: dromon.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dromon._open_map.CHUNK_SECONDS_MOST", 0.0)
    monkeypatch.setattr("dromon._open_map.ChunkSize", lambda _size, most: grown(50, most))
    async with pool.open_map(abs, range(200)) as results:
        assert [result async for result in results] == list(range(200))
    assert pool.statistics().completed >= 200


def test_between_items_in_c_a_worker_sees_to_what_the_interpreter_asks_for() -> None:
    # Such as the GIL for another thread. An exception that is set is the one that can be seen.
    fail = partial(
        ctypes.pythonapi.PyThreadState_SetAsyncExc,
        ctypes.c_ulong(threading.get_ident()),
        ctypes.py_object(Failure),
    )
    results: list[Any] = []
    with pytest.raises(Failure):
        _bridge.run_items(
            fail, True, contextvars.copy_context(), deque([()] * 3), results, math.inf
        )
    assert results == [1]


def grown(items: int, most: int) -> ChunkSize:
    """The chunk size of a map whose items were short up to now."""
    size = ChunkSize(None, most)
    size.items = items
    return size


# ---- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", ["auto", 1, 30])
async def test_a_failing_item_ends_the_map_with_a_group_that_names_its_index(
    pool: dromon.Pool, chunksize: Any
) -> None:
    items = [f"item {number}" for number in range(100)]
    with pytest.RaisesGroup(Failure) as info:
        await pool.map(fail_at("item 70"), items, chunksize=chunksize)
    assert notes(info.value.exceptions[0]) == ["raised for item 70 of the map"]


async def test_a_failing_item_cancels_the_block(pool: dromon.Pool) -> None:
    with pytest.RaisesGroup(Failure):
        async with pool.open_map(fail_at(0), [0]):
            await trio.sleep_forever()


async def test_a_failing_item_ends_the_map_also_for_a_task_outside_of_the_block(
    pool: dromon.Pool,
) -> None:
    gates = Gates()

    async def take(results: dromon.MapResults[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await anext(results)

    def fail(item: int) -> None:
        gates(item)
        raise Failure

    async with trio.open_nursery() as nursery:
        with pytest.RaisesGroup(Failure):
            async with pool.open_map(fail, [0]) as results:
                nursery.start_soon(take, results)
                await gates.wait_begun(0)
                await trio.testing.wait_all_tasks_blocked()
                gates.open(0)
                await trio.sleep_forever()


async def test_the_traceback_of_an_item_shows_its_function(pool: dromon.Pool) -> None:
    def fail(_: int) -> None:
        raise Failure

    with pytest.RaisesGroup(Failure) as info:
        await pool.map(fail, [0])
    names = [entry.name for entry in traceback.extract_tb(info.value.exceptions[0].__traceback__)]
    assert names[-1] == "fail"
    assert "_run_items" not in names


async def test_after_a_failure_no_item_begins_and_those_that_run_are_waited_for() -> None:
    gates = Gates()

    def call(item: int) -> None:
        gates(item)
        if item == 0:
            raise Failure

    async def fail_and_let_go(pool: dromon.Pool) -> None:
        await gates.wait_begun(0, 1)
        gates.open(0)
        while pool.statistics().running > 1:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert not left
        gates.open(1)

    left = False
    async with dromon.open_pool(workers=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(fail_and_let_go, pool)
        with pytest.RaisesGroup(Failure):
            # Two chunks run, and have one more item each.
            async with pool.open_map(call, [0, 10, 1, 11], chunksize=2) as results:
                await anext(results)
        left = True
    assert sorted(gates.begun) == [0, 1]


async def test_items_that_fail_at_the_same_time_are_all_in_the_group(pool: dromon.Pool) -> None:
    barrier = threading.Barrier(2)

    def fail(item: int) -> None:
        barrier.wait()
        raise Failure(item)

    with pytest.RaisesGroup(Failure, Failure):
        await pool.map(fail, [0, 1])


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_any_base_exception_of_an_item_arrives(
    pool: dromon.Pool, error: BaseException
) -> None:
    def fail(_: int) -> None:
        raise error

    with pytest.RaisesGroup(type(error)) as info:
        await pool.map(fail, [0])
    assert info.value.exceptions[0] is error


async def test_outcomes_are_given_in_the_place_of_results_and_exceptions(
    pool: dromon.Pool,
) -> None:
    async with pool.open_map(fail_at(1), range(3), return_outcomes=True) as results:
        first, second, third = [result async for result in results]
    assert (first, third) == (outcome.Value(0), outcome.Value(2))
    assert isinstance(second, outcome.Error)
    assert isinstance(second.error, Failure)
    assert notes(second.error) == ["raised for item 1 of the map"]


async def test_the_exception_of_the_iterable_is_told_apart(pool: dromon.Pool) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise Failure

    async def async_numbers() -> AsyncGenerator[int, None]:
        yield 1
        raise Failure

    for source in (numbers(), async_numbers()):
        with pytest.RaisesGroup(Failure) as info:
            await pool.map(abs, source)
        assert notes(info.value.exceptions[0]) == ["raised by the iterable of the map"]


async def test_the_exception_of_progress_is_told_apart(pool: dromon.Pool) -> None:
    def progress(_done: int, _total: int | None) -> None:
        raise Failure

    with pytest.RaisesGroup(Failure) as info:
        await pool.map(abs, [1], progress=progress)
    assert notes(info.value.exceptions[0]) == ["raised by the progress callable of the map"]


async def test_the_exception_of_the_block_is_in_the_group(pool: dromon.Pool) -> None:
    with pytest.RaisesGroup(Failure):
        async with pool.open_map(abs, range(100)) as results:
            async for _ in results:
                raise Failure


# ---- Leaving early -------------------------------------------------------------------------------


async def test_leaving_the_block_withdraws_what_no_worker_has_started() -> None:
    gates, called = Gates(), threading.Event()
    async with dromon.open_pool(workers=1) as pool:
        pool.submit(gates, "something else")
        await gates.wait_begun("something else")
        async with pool.open_map(lambda _: called.set(), range(10)):
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().queued == 1
        gates.open("something else")
        await pool.run_sync(int)
    assert not called.is_set()


async def let_go_when_blocked(gates: Gates, item: Any) -> None:
    await trio.testing.wait_all_tasks_blocked()
    gates.open(item)


async def test_leaving_the_block_ends_a_chunk_before_its_next_item(pool: dromon.Pool) -> None:
    gates = Gates()
    async with trio.open_nursery() as nursery, pool.open_map(gates, range(10), chunksize=10):
        await gates.wait_begun(0)
        nursery.start_soon(let_go_when_blocked, gates, 0)
    assert gates.begun == [0]


async def test_cancellation_waits_for_items_that_run(pool: dromon.Pool) -> None:
    gates = Gates()
    ended = False

    async def one_map() -> None:
        nonlocal ended
        try:
            await pool.map(gates, range(10), chunksize=1)
        finally:
            ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_map)
        await gates.wait_begun(0, 1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not ended
            gates.open(0, 1)
    assert ended
    assert sorted(gates.begun) == [0, 1]


async def test_an_item_can_look_whether_the_map_was_cancelled(pool: dromon.Pool) -> None:
    begun, raised = trio.Event(), threading.Event()

    def call(_: int) -> None:
        dromon.from_thread.run_sync(begun.set)
        try:
            while not raised.wait(0.001):
                dromon.from_thread.check_cancelled()
        except trio.Cancelled:
            raised.set()
            raise

    with trio.CancelScope() as scope:
        async with pool.open_map(call, [0]):
            await begun.wait()
            scope.cancel()
    assert scope.cancelled_caught
    assert raised.is_set()
    raised.clear()
    begun = trio.Event()
    async with pool.open_map(call, [0]):
        await begun.wait()
    assert raised.is_set()


async def test_a_map_in_a_cancelled_scope_reads_nothing(pool: dromon.Pool) -> None:
    items = iter(range(10))
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.map(abs, items)
    assert scope.cancelled_caught
    assert next(items) == 0


async def test_a_step_that_is_cancelled_loses_no_result(pool: dromon.Pool) -> None:
    seen = []
    async with pool.open_map(abs, range(300), chunksize=2) as results:
        while len(seen) < 300:
            with trio.CancelScope() as scope:
                if len(seen) % 3:
                    scope.cancel()
                seen.append(await anext(results))
            if scope.cancelled_caught:
                seen.append(await anext(results))
    assert seen == list(range(300))


async def test_results_are_refused_after_the_block(pool: dromon.Pool) -> None:
    async with pool.open_map(abs, range(100), chunksize=10) as results:
        await anext(results)
    with pytest.raises(trio.ClosedResourceError):
        await anext(results)


async def test_a_map_is_a_checkpoint(pool: dromon.Pool) -> None:
    for items in ([], [1]):
        with trio.testing.assert_checkpoints():
            await pool.map(abs, items)


async def test_the_first_result_of_each_chunk_is_a_checkpoint(pool: dromon.Pool) -> None:
    async with pool.open_map(abs, range(6), chunksize=2) as results:
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                await anext(results)
            await anext(results)
        with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_a_map_keeps_nothing_when_it_is_over(pool: dromon.Pool) -> None:
    class Thing:
        pass

    class Function:
        def __call__(self, thing: Thing) -> Thing:
            return thing

    gc.disable()
    try:
        function, things = Function(), [Thing() for _ in range(10)]
        watched = [weakref.ref(function), *map(weakref.ref, things)]
        async with pool.open_map(function, things) as results:
            async for _ in results:
                pass
        del function, things, results, _
        assert [reference() for reference in watched] == [None] * 11
    finally:
        gc.enable()


async def test_what_a_map_left_running_or_withdrew_counts_as_completed(pool: dromon.Pool) -> None:
    async with pool.open_map(abs, range(100), chunksize=1):
        pass
    await dromon.testing.wait_all_threads_completed()
    assert dromon.testing.active_thread_count() == 0


# ---- The pool and the run end --------------------------------------------------------------------


async def test_a_closed_pool_refuses_a_map() -> None:
    async with dromon.open_pool(workers=1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
        await pool.map(abs, [])
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
        pool.open_map(abs, [])


async def test_a_pool_that_is_closed_meanwhile_ends_the_map() -> None:
    async with dromon.open_pool(workers=1) as pool:
        opened = pool.open_map(abs, range(10))
    with pytest.RaisesGroup(dromon.ClosedPoolError):
        async with opened as results:
            async for _ in results:
                pass


def test_a_pool_of_the_parent_refuses_a_map_in_a_forked_child() -> None:
    check_child(
        """
        import os, warnings, trio, dromon

        warnings.simplefilter("ignore")  # Python 3.12 and later warn of any fork with threads

        async def main():
            async with dromon.open_pool(workers=1) as pool:
                if os.fork() == 0:
                    try:
                        await pool.map(abs, [1])
                    except dromon.ClosedPoolError as error:
                        os._exit("forked" in str(error))
                assert os.waitstatus_to_exitcode(os.wait()[1]) == 1

        trio.run(main)
        """
    )


def test_an_async_generator_that_trio_finalises_maps() -> None:
    results = []

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                async with dromon.open_pool(workers=2) as pool:
                    results.extend(await pool.map(abs, range(100), chunksize=1))

    async def main() -> None:
        generators.append(generator())
        await anext(generators[0])

    generators: list[AsyncGenerator[None, None]] = []
    trio.run(main)
    assert results == list(range(100))


def test_ctrl_c_ends_a_map_and_waits_for_its_items() -> None:
    check_child(
        """
        import os, signal, threading, trio, dromon

        ended = threading.Event()

        def call(item):
            os.kill(os.getpid(), signal.SIGINT)
            release.wait()
            ended.set()

        release = threading.Event()

        async def main():
            async with dromon.open_pool(workers=1) as pool:
                try:
                    async with pool.open_map(call, range(10)) as results:
                        async for _ in results:
                            pass
                except* KeyboardInterrupt:
                    print("interrupted", ended.is_set())

        threading.Timer(0.2, release.set).start()
        trio.run(main)
        """,
        "interrupted True",
    )


# ---- Progress ------------------------------------------------------------------------------------


async def test_progress_is_told_of_the_items_that_are_done(pool: dromon.Pool) -> None:
    told: list[tuple[int, int | None]] = []
    await pool.map(abs, range(100), chunksize=10, progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1] == (100, 100)
    assert 1 <= len(told) <= 10


async def test_progress_knows_no_total_of_an_iterable_without_length(pool: dromon.Pool) -> None:
    told: list[tuple[int, int | None]] = []
    await pool.map(abs, iter(range(3)), progress=lambda *now: told.append(now))
    assert told[-1] == (3, None)


async def test_progress_is_told_in_the_trio_thread(pool: dromon.Pool) -> None:
    threads = set()
    await pool.map(abs, [1], progress=lambda *_: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
async def test_a_progress_bar_is_shown_on_a_terminal_alone(
    pool: dromon.Pool,
    monkeypatch: pytest.MonkeyPatch,
    stream: Callable[[], io.StringIO],
    shown: bool,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stderr := stream())
    await pool.map(abs, range(12), progress=True)
    assert ("12/12" in stderr.getvalue()) == shown


async def test_no_progress_bar_is_shown_unless_asked_for(
    pool: dromon.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stderr := Terminal())
    await pool.map(abs, range(12), progress=False)
    assert stderr.getvalue() == ""


# ---- Arguments -----------------------------------------------------------------------------------


async def an_async_function(_: object) -> None: ...


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "fn must be callable, not 3", {"fn": 3}),
        (
            TypeError,
            "expected a sync function, but .* appears to be asynchronous, given as fn",
            {"fn": an_async_function},
        ),
        (
            TypeError,
            "expected a sync function, but .* appears to be asynchronous, given as fn",
            {"fn": partial(an_async_function)},
        ),
        (TypeError, "iterable must be an iterable or an async iterable", {"iterable": 3}),
        (TypeError, 'chunksize must be "auto" or an integer', {"chunksize": 1.5}),
        (ValueError, 'chunksize must be "auto" or an integer', {"chunksize": "big"}),
        (ValueError, "chunksize must be from 1", {"chunksize": 0}),
        (TypeError, "max_in_flight must be an integer or None", {"max_in_flight": "1"}),
        (ValueError, "max_in_flight must be from 1", {"max_in_flight": 0}),
        (
            ValueError,
            "chunksize must be at most max_in_flight, which is 4, not 5",
            {"chunksize": 5, "max_in_flight": 4},
        ),
        (TypeError, "progress must be callable, a bool or None, not 3", {"progress": 3}),
        (
            TypeError,
            "expected a sync function, but .*, given as progress",
            {"progress": an_async_function},
        ),
    ],
)
async def test_a_bad_argument_is_named_at_the_call(
    pool: dromon.Pool, error: type[Exception], message: str, arguments: dict[str, Any]
) -> None:
    call: Callable[..., Any] = pool.open_map
    with pytest.raises(error, match=message):
        call(**{"fn": abs, "iterable": [1], **arguments})
    assert pool.statistics().completed == 0


async def test_a_map_that_was_entered_is_not_entered_again(pool: dromon.Pool) -> None:
    opened = pool.open_map(int, ["7"])
    async with opened as results:
        assert [result async for result in results] == [7]
    with pytest.raises(RuntimeError, match="a map can be entered once; call open_map again"):
        async with opened:
            pass
