"""Maps: one function over many items, a chunk of them in each call.

A map has one task in the background, which reads the items. The rest happens in the task that takes
the results, and in the callbacks by which the run's port tells of chunks that have ended. An item
is first read, then it waits in a chunk, then it runs, then its result is finished (it may have to
wait for those of earlier items), then ready, and then it is handed out. `max_in_flight` bounds all
of that.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import attrs
import trio
from trio.lowlevel import (
    Abort,
    ParkingLot,
    checkpoint,
    current_task,
    disable_ki_protection,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ._bridge import WAIT
from ._chunks import (
    CHUNK_SECONDS,
    ChunkResult,
    ChunkSize,
    Work,
    outcomes_of,
    run_chunk,
)
from ._errors import ClosedPoolError
from ._functions import function_of
from ._isolated_chunks import run_chunk as run_isolated_chunk
from ._port import _deliver_calls, current_port, new_port, note_withdrawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import NoReturn

    from trio.lowlevel import Task

    from . import _bridge
    from ._pool import Pool

RetT = TypeVar("RetT")
Progress: TypeAlias = "Callable[[int, int | None], object]"

# Chunks at the pool, for each worker: one that it runs, and one that it finds when that has ended,
# unless chunks are long.
SUBMITTED_CHUNKS: Final = 2

# Chunks of which the items are in flight, for each worker, unless max_in_flight is given.
CHUNKS_IN_FLIGHT: Final = 4

IN_FLIGHT_MOST: Final = sys.maxsize


@attrs.define(eq=False)
class _Chunk:
    """Consecutive items: those from index `first` to before `end`."""

    first: int
    end: int
    items: deque[Any]


@attrs.define(eq=False)
class Bounds:
    """How much of a map may be under way at once."""

    size: ChunkSize
    workers: int
    max_in_flight: int | None

    def in_flight(self) -> int:
        if self.max_in_flight is not None:
            return self.max_in_flight
        return CHUNKS_IN_FLIGHT * self.workers * self.size.items

    def submitted(self) -> int:
        return self.workers * (1 if self.size.chunks_are_long else SUBMITTED_CHUNKS)


class Order(enum.Enum):
    """When a map gives its results."""

    AS_THE_ITEMS = enum.auto()
    AS_THEY_FINISH = enum.auto()
    ALL_AT_THE_END = enum.auto()  # and they count as handed out when they are there


@attrs.frozen(eq=False)
class Source:
    """Where the items come from: an iterator, or an async iterable."""

    items: Any
    is_async: bool
    total: int | None


class Map:
    """The state of one map; all of it belongs to the thread of its trio run."""

    def __init__(
        self, pool: Pool, work: Work, bounds: Bounds, source: Source, order: Order
    ) -> None:
        self._pool = pool
        self._is_isolated = pool._options.isolation == "interpreter"
        self._work = work
        self._bounds = bounds
        self.source = source
        self._order = order
        self._nursery: trio.Nursery | None = None
        self._port_at_the_end: _bridge.Port | None = None

        self._read = 0
        self._reading_since = 0.0  # without a checkpoint
        self._in_flight = 0
        self._exhausted = False
        self._ahead: list[Any] = []  # the last that were read, which are in no chunk yet
        self._rests: deque[_Chunk] = deque()  # of chunks whose time was up
        self._submitted: dict[_Chunk, _bridge.Call] = {}
        self._finished: dict[int, list[Any]] = {}  # by the index of the first item
        self._next_in_order = 0
        self._ready: deque[list[Any]] = deque()
        self.current: list[Any] = []  # results that are being handed out, the next one last
        self.done: int = 0

        self._cancelled = False
        self._hungry = 0  # tasks that wait for results
        self._for_room = ParkingLot()
        self._for_results = ParkingLot()
        self._for_progress = ParkingLot()
        self._watcher: Task | None = None
        self._outlasting = False  # whether the watcher waits for chunks after all was cancelled

    # ---- Its life --------------------------------------------------------------------------------

    def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        nursery.start_soon(self._watch)
        nursery.start_soon(_read_async if self.source.is_async else _read_sync, self)

    @enable_ki_protection
    async def _watch(self) -> None:
        """Wait until the nursery is cancelled, by whatever ends the map, and see that all ends.

        So this task outlasts all chunks, and the nursery is open as long.
        """
        self._watcher = current_task()
        await wait_task_rescheduled(self._withdraw)

    def _withdraw(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """Let nothing more begin; trio's abort function. What runs is waited for."""
        self._cancelled = True
        self._ahead.clear()
        self._rests.clear()
        for chunk, call in list(self._submitted.items()):
            chunk.items.clear()  # if it runs, it ends before its next item
            if call.abort(raise_cancel) is Abort.SUCCEEDED:
                del self._submitted[chunk]
                note_withdrawn(cast("_bridge.Port", call.port))
        self._for_results.unpark_all()
        self._outlasting = bool(self._submitted)
        return Abort.FAILED if self._outlasting else Abort.SUCCEEDED

    def cancel(self) -> None:
        assert self._nursery is not None
        self._cancelled = True
        self._nursery.cancel_scope.cancel()

    def _fail(self, error: BaseException) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(_raise, error)
        self.cancel()

    # ---- Items -----------------------------------------------------------------------------------

    def wants_items(self) -> int:
        """How many items may be read now, at once; 0 if none.

        They are read ahead, a chunk for each worker: so one that ends is followed at once, and the
        reader need not be woken for each.
        """
        size = self._bounds.size.items
        if self._cancelled or len(self._ahead) >= self._bounds.workers * size:
            return 0
        items = 1 if self.source.is_async else size
        room = self._bounds.in_flight() - self._in_flight
        return items if room >= items else 0

    async def wait_for_room(self) -> int:
        """Wait, if need be, until items may be read, and return how many.

        A checkpoint, unless the last one was a short time ago: to read an item need not be one.
        """
        if perf_counter() - self._reading_since > CHUNK_SECONDS:
            await checkpoint()
            self._reading_since = perf_counter()
        while not (items := self.wants_items()):
            await self._for_room.park()
            self._reading_since = perf_counter()
        return items

    @enable_ki_protection
    def add_items(self, items: list[Any]) -> None:
        self._ahead += items
        self._read += len(items)
        self._in_flight += len(items)
        self._dispatch()

    def learn_reading(self, items: int, seconds: float) -> None:
        """To read so many items held up the loop for so long."""
        self._bounds.size.learn_reading(items, seconds)

    @enable_ki_protection
    def end_reading(self) -> None:
        self._exhausted = True
        self._dispatch()
        self._wake()

    # ---- Chunks ----------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Submit what waits, as much as the workers need."""
        if self._cancelled:
            return
        try:
            while len(self._submitted) < self._bounds.submitted() and (chunk := self._next_chunk()):
                self._submit(chunk)
        except BaseException as error:  # the pool is closed
            self._fail(error)

    def _next_chunk(self) -> _Chunk | None:
        size = self._bounds.size.items
        if self._rests:
            chunk = self._rests.popleft()
            if len(chunk.items) > size:
                self._rests.appendleft(_split(chunk, size))
            return chunk
        is_idle = len(self._submitted) < self._bounds.workers  # a worker
        if len(self._ahead) >= size or (self._ahead and (is_idle or self._exhausted)):
            first = self._read - len(self._ahead)
            items = deque(self._ahead[:size])
            del self._ahead[:size]
            return _Chunk(first, first + len(items), items)
        may_share = (
            is_idle
            and self._hungry
            and not (self._is_isolated or self._bounds.size.is_fixed or self._can_read_on())
        )
        return self._share() if may_share else None

    def _can_read_on(self) -> bool:
        return not (self.source.is_async or self._exhausted) and self.wants_items() > 0

    def _share(self) -> _Chunk | None:
        """Take half of what the longest chunk still has before it."""
        chunk = max(self._submitted, key=lambda chunk: len(chunk.items), default=None)
        items: deque[Any] = deque()
        if chunk is not None:
            for _ in range((len(chunk.items) + 1) // 2):
                try:
                    items.appendleft(chunk.items.pop())
                except IndexError:  # its worker was faster
                    break
        if chunk is None or not items:
            return None
        shared = _Chunk(chunk.end - len(items), chunk.end, items)
        chunk.end = shared.first
        return shared

    def _submit(self, chunk: _Chunk) -> None:
        if self._is_isolated:
            call = self._isolated_call(chunk)
        else:
            arguments = (self._work, chunk.first, chunk.items)
            call = self._pool._bridge.call(run_chunk, arguments, WAIT, None, None)
        if not call.submit(self._port(), partial(self._end_chunk, chunk)):
            raise ClosedPoolError("the pool is closed")
        self._submitted[chunk] = call

    def _isolated_call(self, chunk: _Chunk) -> _bridge.Call:
        """A call that gets copies of the items."""
        work = self._work
        fn = function_of(work.fn)
        arguments = (
            fn,
            work.star,
            work.return_outcomes,
            work.seconds,
            chunk.first,
            tuple(chunk.items),
        )
        call = self._pool._bridge.call
        made: _bridge.Call = work.context.run(call, run_isolated_chunk, arguments, WAIT, None, None)
        return made

    def _take_isolated(self, chunk: _Chunk, call: _bridge.Call) -> ChunkResult:
        """What has become of the chunk, whose items that ran are still in it."""
        values, errors, error, seconds = call.unwrap()
        results = outcomes_of(values, errors) if self._work.return_outcomes else list(values)
        for _ in range(min(len(results), len(chunk.items))):
            chunk.items.popleft()
        return results, error, seconds

    def _port(self) -> _bridge.Port:
        port = current_port() or self._port_at_the_end
        if port is None:  # trio runs system tasks no longer, but still this map
            assert self._nursery is not None
            port = self._port_at_the_end = new_port()
            self._nursery.start_soon(_deliver_calls, port)
        return port

    def _end_chunk(self, chunk: _Chunk) -> None:
        """Called when a worker has done with a chunk. It must not raise."""
        try:
            call = self._submitted.pop(chunk)
            results, error, seconds = (
                self._take_isolated(chunk, call) if self._is_isolated else call.unwrap()
            )
        except BaseException as unexpected:
            results, error, seconds = [], unexpected, 0.0
        self._collect(chunk, results, seconds)
        if error is not None:
            self._fail(error)
        if not self._cancelled:
            self._dispatch()
            self._wake()
        elif self._outlasting and not self._submitted:
            self._outlasting = False
            reschedule(cast("Task", self._watcher))

    def _collect(self, chunk: _Chunk, results: list[Any], seconds: float) -> None:
        self._bounds.size.learn(len(results), seconds)
        self.done += len(results)
        if chunk.items:  # its time was up
            rest = _Chunk(chunk.first + len(results), chunk.end, chunk.items)
            self._rests.appendleft(rest)
        if not results:
            return
        if self._order is Order.AS_THEY_FINISH:
            self._ready.append(results)
            return
        self._finished[chunk.first] = results
        if self._order is Order.ALL_AT_THE_END:
            self._in_flight -= len(results)
            return
        while (part := self._finished.pop(self._next_in_order, None)) is not None:
            self._ready.append(part)
            self._next_in_order += len(part)

    # ---- Results ---------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Whether all items have been read and have ended."""
        return self._exhausted and self.done == self._read

    def _wake(self) -> None:
        """Wake whoever can go on, after chunks were read, have ended, or were handed out."""
        if self._for_room and len(self._ahead) < self._bounds.size.items and self.wants_items():
            self._for_room.unpark()
        if self._ready or self.is_over():
            self._for_results.unpark_all()
        self._for_progress.unpark_all()

    @enable_ki_protection
    async def wait_for_results(self) -> bool:
        """Wait until there are `current` results, or `take_results` has some; False if never again.

        A checkpoint in any case.
        """
        if self._ready or self.is_over():
            await checkpoint()
        self._hungry += 1
        try:
            self._dispatch()
            while not (self.current or self._ready or self.is_over() or self._cancelled):
                await self._for_results.park()
        finally:
            self._hungry -= 1
        if self._cancelled:
            await checkpoint()
            raise trio.ClosedResourceError("the block of the map was left, or the map has failed")
        return bool(self.current or self._ready)

    def take_results(self) -> list[Any]:
        """The results of consecutive items."""
        return self._ready.popleft()

    def take_all(self) -> list[Any]:
        """All results, where they are given at the end."""
        parts = sorted(self._finished.items(), key=itemgetter(0))
        return list(chain.from_iterable(results for _, results in parts))

    def release(self, items: int) -> None:
        """The results of so many items were handed out."""
        self._in_flight -= items
        self._wake()

    async def wait_for_progress(self, reported: int) -> bool:
        """Wait until more than `reported` items are done; False if these were all."""
        while self.done == reported and not self.is_over():
            await self._for_progress.park()
        return self.done != reported


def _split(chunk: _Chunk, items: int) -> _Chunk:
    """Leave so many items in a chunk, and return a chunk of the others."""
    first = deque(chunk.items.popleft() for _ in range(items))
    rest = _Chunk(chunk.first + items, chunk.end, chunk.items)
    chunk.items, chunk.end = first, rest.first
    return rest


async def _raise(error: BaseException) -> None:
    try:
        raise error
    finally:
        del error  # or the traceback, which leads here, would make a cycle


# ---- What runs code of the user in the trio thread: not protected from KeyboardInterrupt ---------


@disable_ki_protection
async def _read_sync(map: Map) -> None:
    iterator: Iterator[Any] = map.source.items
    wanted = items_read = 0
    while items_read == wanted:
        wanted = await map.wait_for_room()
        began = perf_counter()
        with _blaming("the iterable"):
            items = list(islice(iterator, wanted))
        items_read = len(items)
        if items:
            map.learn_reading(items_read, perf_counter() - began)
            map.add_items(items)
    map.end_reading()


@disable_ki_protection
async def _read_async(map: Map) -> None:
    iterable: AsyncIterable[Any] = map.source.items
    with _blaming("the iterable"):
        async for item in iterable:
            map.add_items([item])
            await map.wait_for_room()
    map.end_reading()


async def report(map: Map, progress: Progress | bool) -> None:
    total = map.source.total
    with _bar(total) if isinstance(progress, bool) else nullcontext(progress) as tell:
        reported = 0
        while await map.wait_for_progress(reported):
            reported = map.done
            with _blaming("the progress callable"):
                tell(reported, total)


@contextmanager
def _blaming(culprit: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"raised by {culprit} of the map")
        raise


def _bar(total: int | None) -> AbstractContextManager[Progress]:
    from ._progress import progress_bar  # here, since rich is slow to import

    return progress_bar(total)
