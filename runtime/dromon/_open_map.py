"""What `Pool.map`, `Pool.starmap` and `Pool.open_map` give their users; `_map.py` does the work."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Sized
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from sniffio import current_async_library_cvar
from trio.lowlevel import checkpoint, enable_ki_protection

from ._callables import check_sync
from ._chunks import CHUNK_ITEMS_MOST, CHUNK_SECONDS_MOST, ChunkSize, Work
from ._errors import ClosedPoolError
from ._map import IN_FLIGHT_MOST, SUBMITTED_CHUNKS, Bounds, Map, Order, Progress, Source, report
from ._options import _check_range
from ._port import current_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from ._pool import Pool

RetT = TypeVar("RetT")


class MapResults(AsyncIterator[RetT], Generic[RetT]):
    """The results of a map, to be taken by ``async for``; given by `Pool.open_map`.

    Several tasks may take results from it; each result goes to one of them.
    """

    def __init__(self, map: Map) -> None:
        self._map = map
        self._current_items = 0

    def __aiter__(self) -> MapResults[RetT]:
        return self

    @enable_ki_protection
    async def __anext__(self) -> RetT:
        current: list[RetT] = self._map.current
        while not current:
            if not await self._map.wait_for_results():
                raise StopAsyncIteration
            if not current:  # else another task was here meanwhile
                current.extend(self._map.take_results())
                current.reverse()
                self._current_items = len(current)
        result = current.pop()
        if not current:
            self._map.release(self._current_items)
        return result


class OpenMap(AbstractAsyncContextManager[MapResults[RetT]]):
    """What `Pool.open_map` returns."""

    def __init__(self, map: Map, progress: Progress | bool | None) -> None:
        self._map = map
        self._progress = progress
        self._results: MapResults[RetT] = MapResults(map)
        self._nursery_manager = trio.open_nursery()
        self._entered = False

    @enable_ki_protection
    async def __aenter__(self) -> MapResults[RetT]:
        if self._entered:
            raise RuntimeError("a map can be entered once; call open_map again for another one")
        self._entered = True
        await checkpoint()
        current_port()  # if there can be none, that is no failure of the map
        nursery = await self._nursery_manager.__aenter__()
        self._map.start(nursery)
        if self._progress:
            nursery.start_soon(report, self._map, self._progress)
        return self._results

    @enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._map.cancel()
        self._map.current.clear()
        return await self._nursery_manager.__aexit__(exc_type, error, traceback)


def open_map(
    pool: Pool,
    fn: Callable[..., Any],
    iterable: Iterable[Any] | AsyncIterable[Any],
    *,
    max_in_flight: int | None,
    order: Order,
    chunksize: int | str,
    progress: Progress | bool | None,
    return_outcomes: bool = False,
    star: bool = False,
) -> OpenMap[Any]:
    """What `Pool.open_map` does, where the arguments are described."""
    check_sync("fn", fn)
    _check_progress(progress)
    bounds = _check_bounds(pool._workers, chunksize, max_in_flight)
    source = _check_source(iterable)
    if pool._bridge.closed:
        raise ClosedPoolError("the pool is closed")
    context = copy_context()
    context.run(current_async_library_cvar.set, None)
    seconds = CHUNK_SECONDS_MOST if chunksize == "auto" else math.inf
    work = Work(fn, star, context, bool(return_outcomes), seconds)
    return OpenMap(Map(pool, work, bounds, source, order), progress)


@enable_ki_protection
async def map_all(opened: OpenMap[RetT]) -> list[RetT]:
    """Wait for all results of a map that gives them at the end."""
    async with opened:
        await opened._map.wait_for_results()
        return opened._map.take_all()
    # The nursery has taken it for its own, which it has not: results are missing.
    raise RuntimeError("an item of the map has raised trio.Cancelled")


def _check_progress(progress: Progress | bool | None) -> None:
    if progress is None or isinstance(progress, bool):
        return
    if not callable(progress):
        raise TypeError(f"progress must be callable, a bool or None, not {progress!r}")
    check_sync("progress", progress)


def _check_bounds(workers: int, chunksize: int | str, max_in_flight: int | None) -> Bounds:
    most = CHUNK_ITEMS_MOST
    if max_in_flight is not None:
        allowed = "an integer or None"
        max_in_flight = _check_range("max_in_flight", max_in_flight, 1, IN_FLIGHT_MOST, allowed)
        # So that there is a chunk for each worker, and another one.
        most = min(most, max(1, max_in_flight // (SUBMITTED_CHUNKS * workers)))
    if chunksize == "auto":
        return Bounds(ChunkSize(None, most), workers, max_in_flight)
    if isinstance(chunksize, str):
        raise ValueError(f'chunksize must be "auto" or an integer, not {chunksize!r}')
    size = _check_range("chunksize", chunksize, 1, IN_FLIGHT_MOST, '"auto" or an integer')
    if max_in_flight is not None and size > max_in_flight:
        raise ValueError(
            f"chunksize must be at most max_in_flight, which is {max_in_flight}, not {size}"
        )
    return Bounds(ChunkSize(size, size), workers, max_in_flight)


def _check_source(iterable: Iterable[Any] | AsyncIterable[Any]) -> Source:
    total = len(iterable) if isinstance(iterable, Sized) else None
    if isinstance(iterable, AsyncIterable):
        return Source(iterable, is_async=True, total=total)
    try:
        iterator = iter(iterable)
    except TypeError as error:
        raise TypeError(
            f"iterable must be an iterable or an async iterable, not {iterable!r}"
        ) from error
    return Source(iterator, is_async=False, total=total)
