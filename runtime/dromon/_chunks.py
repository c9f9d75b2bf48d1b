"""The chunks of a map: what a worker does with one, and how long the next one should be."""

from __future__ import annotations

from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from outcome import Error, Value

from ._callables import refuse_coroutine

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from contextvars import Context

# Seconds that a chunk should take: short for whoever waits behind it, and long against what it
# costs the event loop, which wakes for each one and takes the GIL, and a CPU, from the workers.
CHUNK_SECONDS: Final = 2e-3

# Seconds after which a chunk ends, though there are items left, since it was planned too long.
CHUNK_SECONDS_MOST: Final = 2 * CHUNK_SECONDS

# Seconds above which a worker may wait for its next chunk until the event loop has heard that it
# has nothing to do: no chunk need wait at the pool, where it would hold up the calls of others.
LONG_CHUNK_SECONDS: Final = 20e-3

# Items whose results are handed out without a checkpoint.
CHUNK_ITEMS_MOST: Final = 512

# What a chunk has come to: results, the exception that ended it, and the seconds that it took.
ChunkResult: TypeAlias = tuple[list[Any], BaseException | None, float]


@attrs.frozen(eq=False)
class Work:
    """What is done with each item of a map."""

    fn: Callable[..., Any]
    star: bool  # whether an item is the arguments, and not the argument
    context: Context
    return_outcomes: bool
    seconds: float  # after which a chunk ends before its next item


class ChunkSize:
    """How many items the next chunk of a map gets."""

    def __init__(self, chunksize: int | None, most: int) -> None:
        """A fixed number, or one from 1 to `most` that follows what the chunks took."""
        self.is_fixed: bool = chunksize is not None
        self._most = most
        self.items: int = chunksize or 1
        self.chunks_are_long: bool = True  # for all that is known

    def learn(self, items: int, seconds: float) -> None:
        """A chunk of so many items took so long on a worker."""
        self.chunks_are_long = seconds > LONG_CHUNK_SECONDS
        if self.is_fixed or not items:
            return
        # At most doubled by each: a time that is short against the clock's noise says little.
        most = min(self._most, max(self.items, 2 * items))
        self.items = max(1, min(most, int(items * CHUNK_SECONDS / max(seconds, 1e-9))))

    def learn_reading(self, items: int, seconds: float) -> None:
        """To read so many items held up the loop for so long."""
        if not self.is_fixed and seconds > CHUNK_SECONDS:
            self.items = max(1, min(self.items, int(items * CHUNK_SECONDS / seconds)))


def run_chunk(work: Work, first: int, items: deque[Any]) -> ChunkResult:
    """Run items, the first of which has the index `first`, until none is left; on a worker.

    The event loop may take items from the right meanwhile, all of them to end the chunk. Those that
    are left when the time is up are the event loop's again.
    """
    results: list[Any] = []
    add: Callable[[Any], object] = results.append
    if work.return_outcomes:

        def add(value: object) -> None:
            results.append(Value(value))

    began = perf_counter()
    end = began + work.seconds
    while (error := _run_items(work, items, add, end)) is not None:
        error.add_note(f"raised for item {first + len(results)} of the map")
        if not work.return_outcomes:
            break
        results.append(Error(error))
        if perf_counter() >= end:
            error = None
            break
    return results, error, perf_counter() - began


def _run_items(
    work: Work, items: deque[Any], add: Callable[[Any], object], end: float
) -> BaseException | None:
    """Run items until none is left, the time is up, or one fails: then return the exception."""
    fn, star, take, copy_context = work.fn, work.star, items.popleft, work.context.copy
    try:
        while True:
            try:
                item = take()
            except IndexError:
                return None
            value = copy_context().run(fn, *item) if star else copy_context().run(fn, item)
            if type(value) is CoroutineType:
                refuse_coroutine("fn", fn, value)
            add(value)
            if perf_counter() >= end:
                return None
    except BaseException as error:
        # As after run_sync, the traceback has only the frames of `fn`.
        here = error.__traceback__
        return error.with_traceback(here and here.tb_next)
