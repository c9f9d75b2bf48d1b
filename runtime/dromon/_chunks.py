"""The chunks of a map: what a worker does with one, and how long the next one should be."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from outcome import Error, Outcome, Value

from ._isolated_chunks import run_each

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable
    from contextvars import Context

# Seconds that a chunk should take: short for whoever waits behind it (as long as Python lets a
# thread keep the GIL), and long against what it costs the event loop, which wakes for each one and
# takes the GIL, and a CPU, from the workers.
CHUNK_SECONDS: Final = 5e-3

# Seconds after which a chunk ends, though there are items left, since it was planned too long.
CHUNK_SECONDS_MOST: Final = 2 * CHUNK_SECONDS

# Seconds above which a worker may wait for its next chunk until the event loop has heard that it
# has nothing to do: no chunk need wait at the pool, where it would hold up the calls of others.
LONG_CHUNK_SECONDS: Final = 20e-3

# Items whose results are handed out without a checkpoint.
CHUNK_ITEMS_MOST: Final = 512

# What was learnt from earlier chunks counts so much beside a new one.
_MEMORY: Final = 0.75

# How many times as many items as a chunk that has ended the next one may have.
_GROWTH_MOST: Final = 8

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
        # Of the chunks up to now, the later the more: one that lost its CPU for a while says
        # little.
        self._items = 0.0
        self._seconds = 0.0
        self._readable = most  # in CHUNK_SECONDS

    def learn(self, items: int, seconds: float) -> None:
        """A chunk of so many items took so long on a worker."""
        self.chunks_are_long = seconds > LONG_CHUNK_SECONDS
        if self.is_fixed or not items:
            return
        self._items = self._items * _MEMORY + items
        self._seconds = self._seconds * _MEMORY + seconds
        # A few items say little of many.
        most = min(self._most, self._readable, max(self.items, _GROWTH_MOST * items))
        fitting = int(self._items * CHUNK_SECONDS / max(self._seconds, 1e-9))
        self.items = max(1, min(most, fitting))

    def learn_reading(self, items: int, seconds: float) -> None:
        """To read so many items held up the loop for so long."""
        self._readable = max(1, int(items * CHUNK_SECONDS / max(seconds, 1e-9)))
        if not self.is_fixed:
            self.items = min(self.items, self._readable)


def run_chunk(work: Work, first: int, items: deque[Any]) -> ChunkResult:
    """Run items, the first of which has the index `first`, until none is left; on a worker.

    The event loop may take items from the right meanwhile, all of them to end the chunk. Those that
    are left when the time is up are the event loop's again.
    """
    began = perf_counter()
    end = began + work.seconds
    results, errors, failure = run_each(
        work.fn, work.star, work.return_outcomes, work.context, end, first, items
    )
    if work.return_outcomes:
        results = outcomes_of(results, errors)
    return results, failure, perf_counter() - began


def outcomes_of(results: Iterable[Any], errors: Iterable[int]) -> list[Outcome[Any]]:
    """The outcomes of items, of which some have raised what stands for their results."""
    outcomes: list[Outcome[Any]] = list(map(Value, results))
    for index in errors:
        outcomes[index] = Error(outcomes[index].unwrap())
    return outcomes
