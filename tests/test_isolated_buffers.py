"""Memory that isolated workers and the main interpreter share."""

from __future__ import annotations

import array
import gc
import mmap
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import hypothesis
import hypothesis.strategies as st
import isolated_calls as calls
import pytest
import trio

import dromon

pytestmark = pytest.mark.skipif(not calls.CAN_ISOLATE, reason=calls.WHY_NOT)


def is_locked(source: Any) -> bool:
    """Whether a bytearray or an array cannot be resized."""
    try:
        source.extend(b"x")
    except BufferError:
        return True
    del source[-1:]
    return False


@contextmanager
def gate() -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor from which a call can read when it shall go on, and what lets it."""
    reading, writing = os.pipe()
    try:
        yield reading, lambda: os.write(writing, b"x") and None  # type: ignore[func-returns-value]
    finally:
        os.close(reading)
        os.close(writing)


@asynccontextmanager
async def held(pool: dromon.Pool, view: object) -> AsyncIterator[None]:
    """A block during which a call runs that has got a view."""

    def hold(view: object, begun: int, go_on: int) -> None:
        os.write(begun, b"x")
        os.read(go_on, 1)

    begun_reading, begun_writing = os.pipe()
    with gate() as (reading, open_gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, hold, view, begun_writing, reading)
            await trio.lowlevel.wait_readable(begun_reading)
            yield
            open_gate()
    os.close(begun_reading)
    os.close(begun_writing)


# ---- What arrives --------------------------------------------------------------------------------


def make_mmap() -> mmap.mmap:
    made = mmap.mmap(-1, mmap.PAGESIZE)
    made[:5] = b"hello"
    return made


MAKERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"hello",
    "empty": lambda: b"",
    "bytearray": lambda: bytearray(b"hello"),
    "array": lambda: array.array("d", [1.5, -0.0]),
    "mmap": make_mmap,
    "view": lambda: memoryview(bytearray(b"hello"))[1:3],
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_a_view_arrives_as_a_read_only_view_of_the_same_form(
    isolated_pool: dromon.Pool, make: Callable[[], Any]
) -> None:
    view = memoryview(make())
    there = await isolated_pool.run_sync(calls.describe, view)
    assert there == calls.describe(view.toreadonly())


@hypothesis.strategies.composite
def views(draw: st.DrawFn) -> memoryview:
    """Views of all formats, of up to three dimensions, sliced in the first one."""
    format = draw(st.sampled_from("bBhHiIlLqQnNfdc?P"))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    size = memoryview(bytes(8)).cast(format).itemsize  # type: ignore[call-overload]
    for length in shape:
        size *= length
    view = memoryview(draw(st.binary(min_size=size, max_size=size)))
    made: memoryview = view.cast(format, shape) if len(shape) > 1 else view.cast(format)  # type: ignore[call-overload]
    if len(shape) == 1:
        step = draw(st.sampled_from([1, 2, 3, -1, -2]))
        return made[draw(st.integers(-4, 4)) :: step]
    return made


def test_views_of_any_form_arrive_and_come_back() -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:

        @hypothesis.settings(deadline=None, max_examples=150)
        @hypothesis.given(views())
        def check(view: memoryview) -> None:
            there, back = pool.submit(lambda v: (describe(v), v), view).result()
            assert there == calls.describe(view)
            assert calls.describe(back) == calls.describe(view)

        describe = calls.describe
        check()


async def test_a_view_of_no_dimensions_arrives(isolated_pool: dromon.Pool) -> None:
    view = memoryview(bytes(8)).cast("q", ())  # type: ignore[call-overload]
    assert await isolated_pool.run_sync(lambda view: (view.ndim, view[()]), view) == (0, 0)


@pytest.mark.parametrize("flags", ["ND_FORTRAN", "ND_PIL"])
async def test_views_of_unusual_memory_arrive(isolated_pool: dromon.Pool, flags: str) -> None:
    testbuffer = pytest.importorskip("_testbuffer")
    source = testbuffer.ndarray(
        list(range(6)), shape=[2, 3], format="h", flags=getattr(testbuffer, flags)
    )

    def look(view: memoryview) -> tuple[Any, ...]:
        return view.tolist(), view.strides, view.suboffsets, view.tobytes()

    view = memoryview(source)
    assert await isolated_pool.run_sync(look, view) == look(view)


async def test_a_buffer_that_is_not_contiguous_refuses_who_asks_for_that(
    isolated_pool: dromon.Pool,
) -> None:
    def ask(view: memoryview) -> None:
        import binascii

        binascii.crc32(view.obj)

    with pytest.raises(BufferError, match="not C-contiguous"):
        await isolated_pool.run_sync(ask, memoryview(b"abcdef")[::2])


async def test_a_callable_that_takes_bytes_works_on_a_view(isolated_pool: dromon.Pool) -> None:
    def work(view: memoryview) -> tuple[Any, ...]:
        import io
        import struct
        import zlib

        return zlib.crc32(view), struct.unpack_from("H", view), io.BytesIO(view).read(), view[0]

    data = b"abc" * 100_000
    assert await isolated_pool.run_sync(work, memoryview(data)) == work(memoryview(data))


async def test_a_worker_sees_what_is_written_to_the_source(isolated_worker: dromon.Pool) -> None:
    source = bytearray(100_000)
    await isolated_worker.run_sync(calls.keep, memoryview(source))
    source[:] = b"x" * 100_000
    assert await isolated_worker.run_sync(calls.look_at_kept) == source


async def test_a_worker_cannot_write_to_a_view(isolated_pool: dromon.Pool) -> None:
    with pytest.raises(TypeError, match="read-only"):
        await isolated_pool.run_sync(calls.fill, memoryview(bytearray(3)), 1)


async def test_a_worker_cannot_get_at_the_memory_to_write_to_it(
    isolated_pool: dromon.Pool,
) -> None:
    def write(view: memoryview) -> None:
        import io

        io.BytesIO(b"abc").readinto(view.obj)

    source = bytearray(3)
    with pytest.raises(TypeError, match="read-write"):
        await isolated_pool.run_sync(write, memoryview(source))
    assert source == bytes(3)


@pytest.mark.parametrize("name", ["bytearray", "array", "mmap", "view"])
async def test_a_worker_can_write_to_what_is_writable(
    isolated_pool: dromon.Pool, name: str
) -> None:
    view = memoryview(MAKERS[name]())
    await isolated_pool.run_sync(calls.fill, dromon.writable(view), 7)
    assert view.tolist() == [7] * len(view)


async def test_two_workers_write_to_parts_of_one_buffer(isolated_pool: dromon.Pool) -> None:
    source = bytearray(1_000)
    view = memoryview(source)
    parts = [(dromon.writable(view[at : at + 10]), at // 10) for at in range(0, 1_000, 10)]
    await isolated_pool.starmap(calls.fill, parts)
    assert source == b"".join(bytes([number]) * 10 for number in range(100))


async def test_views_arrive_inside_of_other_objects(isolated_pool: dromon.Pool) -> None:
    source = bytearray(b"abc" * 10_000)
    view = memoryview(source)
    given = [view, {"a": (view[::2], 1)}, calls.Record("x", dromon.writable(source))]

    def look(given: Any) -> tuple[Any, ...]:
        first, second, third = given[0], given[1]["a"][0], given[2].data
        third[0] = 0
        return [type(each) for each in (first, second, third)], first[0], second[0], given

    types, first, second, back = await isolated_pool.run_sync(look, given)
    assert types == [memoryview] * 3
    assert first == second == source[0] == 0
    source[3] = 9
    assert back[0][3] == back[2].data[3] == 9
    del back
    source[2] = 1


async def test_a_view_that_is_given_twice_inside_is_one_there(isolated_pool: dromon.Pool) -> None:
    view = memoryview(b"abc")
    assert await isolated_pool.run_sync(lambda pair: pair[0] is pair[1], [view, view])


async def test_buffers_that_a_type_gives_out_of_band_are_not_copied(
    isolated_worker: dromon.Pool,
) -> None:
    source = bytearray(b"a" * 100_000)

    def keep_memory(value: calls.OutOfBand) -> str:
        keep(value.memory)
        return type(value.memory).__name__

    keep = calls.keep
    assert await isolated_worker.run_sync(keep_memory, calls.OutOfBand(source)) == "memoryview"
    source[:] = b"b" * 100_000
    assert await isolated_worker.run_sync(calls.look_at_kept) == source


async def test_a_pickle_buffer_arrives_as_a_view(isolated_pool: dromon.Pool) -> None:
    import pickle

    source = pickle.PickleBuffer(bytearray(b"abc"))
    assert await isolated_pool.run_sync(calls.describe, source) == calls.describe(
        memoryview(b"abc")
    )


async def test_the_memory_of_a_numpy_array_is_shared(isolated_pool: dromon.Pool) -> None:
    numpy = pytest.importorskip("numpy")
    source = numpy.arange(12, dtype="f8").reshape(3, 4)

    def double(view: memoryview) -> float:
        total = 0.0
        for row in range(view.shape[0]):
            for column in range(view.shape[1]):
                total += view[row, column]
                view[row, column] *= 2
        return total

    expected = source.sum()
    assert await isolated_pool.run_sync(double, dromon.writable(source)) == expected
    assert source.sum() == 2 * expected
    there = await isolated_pool.run_sync(calls.describe, memoryview(source.T[::-1]))
    assert there == calls.describe(memoryview(source.T[::-1]).toreadonly())


# ---- How long the source is kept -----------------------------------------------------------------


async def test_the_source_cannot_be_resized_while_a_call_has_it(
    isolated_pool: dromon.Pool,
) -> None:
    source = bytearray(10)
    async with held(isolated_pool, memoryview(source)):
        assert is_locked(source)
    assert not is_locked(source)


async def test_the_source_cannot_be_resized_while_a_call_is_queued(
    isolated_worker: dromon.Pool,
) -> None:
    source = bytearray(10)
    async with held(isolated_worker, None):
        future = isolated_worker.submit(calls.describe, memoryview(source))
        assert is_locked(source)
    future.result()
    del future
    assert not is_locked(source)


@pytest.mark.parametrize("turn", range(30))
async def test_the_source_can_be_resized_once_the_result_is_there(
    isolated_pool: dromon.Pool, turn: int
) -> None:
    source = bytearray(turn * 1_000)
    await isolated_pool.run_sync(calls.describe, memoryview(source))
    assert not is_locked(source)
    await isolated_pool.run_sync(calls.type_of, [memoryview(source)])
    assert not is_locked(source)
    await isolated_pool.run_sync(calls.type_of, dromon.writable(source))
    assert not is_locked(source)
    assert isolated_pool.submit(calls.type_of, memoryview(source)).result() == "memoryview"
    assert not is_locked(source)


async def test_the_source_can_be_resized_after_a_call_that_failed(
    isolated_pool: dromon.Pool,
) -> None:
    source = bytearray(3)
    with pytest.raises(TypeError):
        await isolated_pool.run_sync(calls.fill, memoryview(source), 1)
    gc.collect()  # of the traceback, whose frames here have the view
    assert not is_locked(source)


async def test_the_source_can_be_resized_after_a_call_that_was_refused(
    isolated_pool: dromon.Pool,
) -> None:
    source = bytearray(3)
    with pytest.raises(TypeError):
        await isolated_pool.run_sync(calls.arguments, memoryview(source), gate())
    gc.collect()
    assert not is_locked(source)


async def test_the_source_can_be_resized_after_a_call_that_was_withdrawn(
    isolated_worker: dromon.Pool,
) -> None:
    source = bytearray(3)
    async with held(isolated_worker, None):
        with trio.move_on_after(0) as scope:
            await isolated_worker.run_sync(calls.describe, memoryview(source))
        assert scope.cancelled_caught
        future = isolated_worker.submit(calls.describe, memoryview(source))
        assert future.cancel()
        del future
    await isolated_worker.run_sync(calls.same, 1)
    assert not is_locked(source)


async def test_a_map_lets_go_of_the_sources_of_its_items(isolated_pool: dromon.Pool) -> None:
    sources = [bytearray(10) for _ in range(50)]
    await isolated_pool.map(calls.type_of, map(memoryview, sources))
    assert not any(map(is_locked, sources))


async def test_a_view_that_a_worker_keeps_outlives_its_call(isolated_worker: dromon.Pool) -> None:
    source = bytearray(b"abc" * 10_000)
    await isolated_worker.run_sync(calls.keep, memoryview(source))
    await isolated_worker.run_sync(calls.same, 1)
    assert is_locked(source)
    assert await isolated_worker.run_sync(calls.look_at_kept) == source
    await isolated_worker.run_sync(calls.drop)
    assert not is_locked(source)


async def test_a_slice_that_a_worker_keeps_keeps_the_source(isolated_worker: dromon.Pool) -> None:
    def keep_slice(view: memoryview) -> None:
        keep(view[1:2])
        view.release()

    keep = calls.keep
    source = bytearray(b"abc")
    await isolated_worker.run_sync(keep_slice, memoryview(source))
    assert is_locked(source)
    await isolated_worker.run_sync(calls.drop)
    assert not is_locked(source)


async def test_a_source_that_only_a_worker_keeps_lives_until_that_drops_it(
    isolated_worker: dromon.Pool,
) -> None:
    source = array.array("B", b"abc")
    ref = weakref.ref(source)
    await isolated_worker.run_sync(calls.keep, memoryview(source))
    del source
    gc.collect()
    assert ref() is not None
    assert await isolated_worker.run_sync(calls.look_at_kept) == b"abc"
    await isolated_worker.run_sync(calls.drop)
    assert ref() is None


async def test_a_view_in_a_circle_of_a_worker_is_let_go_by_its_collector(
    isolated_worker: dromon.Pool,
) -> None:
    def make_circle(view: memoryview) -> None:
        circle: list[Any] = [view]
        circle.append(circle)

    source = bytearray(3)
    await isolated_worker.run_sync(make_circle, memoryview(source))
    await isolated_worker.run_sync(gc.collect)
    assert not is_locked(source)


async def test_the_end_of_a_pool_lets_go_of_what_its_workers_kept() -> None:
    source = bytearray(b"abc")
    other = array.array("B", b"abc")
    ref = weakref.ref(other)
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        await pool.run_sync(calls.keep, memoryview(source), dromon.writable(other))
        del other
        assert is_locked(source)
        assert ref() is not None
    assert not is_locked(source)
    assert ref() is None


# ---- Results -------------------------------------------------------------------------------------


async def test_a_view_is_a_result_that_outlives_the_pool() -> None:
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        view = await pool.run_sync(lambda: memoryview(bytearray(b"abc" * 10_000)))
        inside = await pool.run_sync(lambda: [memoryview(b"xyz" * 10_000)])
        for _ in range(20):
            await pool.run_sync(bytes, 30_000)
        assert type(view) is memoryview
        assert view.readonly
        assert view == b"abc" * 10_000
    assert view == b"abc" * 10_000
    assert inside == [b"xyz" * 10_000]
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        assert await pool.run_sync(bytes, view) == view


async def test_the_worker_gets_its_memory_back_when_a_result_is_dropped(
    isolated_worker: dromon.Pool,
) -> None:
    view = await isolated_worker.run_sync(calls.lend_kept, 10)
    assert not await isolated_worker.run_sync(calls.can_resize_kept)
    part = view[2:]
    del view
    assert not await isolated_worker.run_sync(calls.can_resize_kept)
    del part
    assert await isolated_worker.run_sync(calls.can_resize_kept)


async def test_a_worker_gets_its_memory_back_in_the_middle_of_a_batch(
    isolated_worker: dromon.Pool,
) -> None:
    views = [await isolated_worker.run_sync(calls.lend_kept, 10)]

    def hold(fd: int) -> None:
        os.read(fd, 1)

    with gate() as (reading, open_gate):
        held_up = isolated_worker.submit(hold, reading)
        future = isolated_worker.submit(calls.can_resize_kept)
        while isolated_worker.statistics().running == 0:
            await trio.lowlevel.checkpoint()
        views.clear()
        open_gate()
        held_up.result()
        assert future.result()


async def test_a_result_can_be_writable(isolated_worker: dromon.Pool) -> None:
    view = await isolated_worker.run_sync(calls.lend_writable)
    view[:] = b"abc"
    assert await isolated_worker.run_sync(calls.look_at_kept) == b"abc"


async def test_a_view_goes_on_from_worker_to_worker() -> None:
    source = bytearray(b"abc")
    async with (
        dromon.open_pool(1, isolation="interpreter") as first,
        dromon.open_pool(1, isolation="interpreter") as second,
    ):
        view = await first.run_sync(calls.same, memoryview(source))
        view = await second.run_sync(calls.same, view)
        source[0] = ord("x")
        assert view == b"xbc"
        assert is_locked(source)
        del view
        await first.run_sync(calls.same, 1)
        await second.run_sync(calls.same, 1)
        await first.run_sync(calls.same, 1)
    assert not is_locked(source)


async def test_views_of_a_result_are_released_by_any_thread(isolated_worker: dromon.Pool) -> None:
    views = [await isolated_worker.run_sync(calls.lend_kept, 10)]
    await trio.to_thread.run_sync(views.clear)
    assert await isolated_worker.run_sync(calls.can_resize_kept)
