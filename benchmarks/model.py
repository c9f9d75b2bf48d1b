"""What a benchmark is made of: ways to get work done, loads, contenders and questions."""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import trio


class Refused(Exception):
    """A contender cannot do what a load asks of it; the message says why."""


def reason(error: BaseException) -> str:
    """Why, in one line: the message of a refusal, or the name and message of another exception."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    if not isinstance(error, Refused):
        text = f"{type(error).__name__}: {without_folders(text)}"
    return text


def without_folders(text: str) -> str:
    """With the names of files, but not where they are on this machine."""
    return re.sub(r"(?<![\w/])/(?:[^\s/'\":]+/)+", "", text)


class Way:
    """How one contender gets work to its workers. What it does not define, it refuses."""

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        """Make so many calls and wait for their results, with so many in flight."""
        raise Refused("it has no single calls")

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        """Call a function for each item and go through the results in the order of the items."""
        raise Refused("it has no map")


@dataclass(frozen=True)
class Timed:
    """A load of a number of equal units; the time of one is what is looked for.

    The number is chosen for each contender, so that a turn takes long enough to be timed.
    """

    work: Callable[[Any, int], Awaitable[object]]
    step: int = 1
    """The number is a multiple of it."""

    async def values(self, way: Way, count: int) -> dict[str, float]:
        start = time.perf_counter()
        await self.work(way, count)
        return {"": (time.perf_counter() - start) / count}


@dataclass(frozen=True)
class Measured:
    """A load that measures itself, and gives a value or several, by name."""

    measure: Callable[[Any], Awaitable[dict[str, float]]]

    async def values(self, way: Way, _: int) -> dict[str, float]:
        return await self.measure(way)


Load = Timed | Measured


class Kind(enum.Enum):
    """What a contender stands for."""

    PEER = "peer"
    OURS = "ours"
    BOUND = "bound"
    """A floor of the time: what is left if all that a library does cost nothing."""


@dataclass(frozen=True)
class Contender:
    name: str
    open: Callable[[int], AbstractAsyncContextManager[Way]]
    """Opens the way, with so many workers."""
    kind: Kind = Kind.PEER
    run: Callable[..., object] = trio.run
    """What runs an async function: the event loop that the way is made for."""


@dataclass(frozen=True)
class Question:
    name: str
    title: str
    about: str
    """How it is measured, and how to read the numbers."""
    loads: Mapping[str, Load]
    contenders: Sequence[Contender]
    base: str | Mapping[str, str]
    """The contender to whose time the others' are compared; or one for each series: each load, or,
    as "LOAD, NAME", each of the values that a load measures by name."""
    unit: str = "second"
    """Of the values, as pyperf calls it: second, byte or integer."""
    rounds: int = 15
    anew: bool = False
    """Each turn has a new process, which opens the way, and no warm-up."""
    aims: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What the project wants of a series and a contender, as text: of the ratio, or with a unit of
    the value.
    """

    def base_of(self, series: str) -> str:
        return self.base if isinstance(self.base, str) else self.base[series]
