"""Questions for tests of benchmarks/, which are there where this module is imported."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.contenders.loops import in_no_loop
from benchmarks.model import Contender, Kind, Measured, Question, Refused, Way
from benchmarks.questions import QUESTIONS


class Fake(Way):
    """Each load does what is named."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def steady(self) -> dict[str, float]:
        return {"": self.seconds}

    async def parts(self) -> dict[str, float]:
        return {"small": self.seconds, "large": 2 * self.seconds}


class Dying(Fake):
    async def steady(self) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


class DyingForked(Fake):
    """It leaves a child that has its pipes open."""

    async def steady(self) -> dict[str, float]:
        if os.fork():
            os._exit(3)
        signal.pause()
        return {}


class Hanging(Fake):
    async def steady(self) -> dict[str, float]:
        signal.pause()
        return {}


class Refusing(Fake):
    async def parts(self) -> dict[str, float]:
        raise Refused("it has no parts")


class Failing(Fake):
    async def steady(self) -> dict[str, float]:
        raise ExceptionGroup("several", [ValueError("[red]it\nfailed[/]")])


class Zero(Fake):
    async def steady(self) -> dict[str, float]:
        return {"": 0.0}


class LeavingChild(Fake):
    """The value is the number of a process that would outlive it."""

    async def steady(self) -> dict[str, float]:
        child = os.fork()
        while child == 0:
            signal.pause()
        return {"": child}


@asynccontextmanager
async def opened(_: int, way: type[Fake] = Fake, seconds: float = 1.0) -> AsyncIterator[Fake]:
    yield way(seconds)


@asynccontextmanager
async def missing(_: int) -> AsyncIterator[Fake]:
    import no_such_package  # type: ignore[import-not-found]

    yield no_such_package


@asynccontextmanager
async def crashing(_: int) -> AsyncIterator[Fake]:
    print("a last word", file=sys.stderr, flush=True)
    os._exit(7)
    yield


def fake(
    name: str, way: type[Fake] = Fake, seconds: float = 1.0, kind: Kind = Kind.PEER
) -> Contender:
    return Contender(name, partial(opened, way=way, seconds=seconds), kind, in_no_loop)


BASE, OURS = fake("base", seconds=4.0), fake("ours", seconds=2.0, kind=Kind.OURS)


LOADS = {
    "steady": Measured(lambda way: way.steady()),
    "parts": Measured(lambda way: way.parts()),
}


def question(name: str, *contenders: Contender, anew: bool = False) -> None:
    QUESTIONS[name] = Question(
        name, f"How is {name}?", "Fakes.", LOADS, contenders, base="base", anew=anew
    )


question("fine", BASE, OURS)
question("missing", BASE, Contender("missing", missing, run=in_no_loop))
question("crashing", BASE, Contender("crashing", crashing, run=in_no_loop))
question("dying", fake("dying", Dying), BASE)
question("dying-forked", fake("dying", DyingForked), BASE)
question("hanging", fake("hanging", Hanging), BASE)
question("refusing", fake("refusing", Refusing), BASE)
question("failing", fake("failing", Failing), BASE)
question("zero", fake("zero", Zero), BASE)
question("leaving-child", fake("base", LeavingChild))
question("anew", BASE, OURS, anew=True)
