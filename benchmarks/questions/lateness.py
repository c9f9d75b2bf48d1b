"""How late an event loop is while workers are busy with pure Python."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio

import dromon

from ..contenders import interpreters, ours, processes, threads
from ..contenders.loops import in_asyncio, in_no_loop
from ..contenders.ways import AsyncioWay, ExecutorWay
from ..model import Contender, Kind, Measured, Question, Refused, Way
from ..workloads import count_until

CALLS = 2
SECONDS = 1.0
SLEEP = 0.001

# ---- Ways beside which a loop goes on ------------------------------------------------------------


class Nothing(Way):
    """Calls that end at once."""

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        _, *others = args
        for _ in range(count):
            fn(0.0, *others)


@asynccontextmanager
async def nothing(_: int) -> AsyncIterator[Nothing]:
    yield Nothing()


@asynccontextmanager
async def pool(workers: int, **options: Any) -> AsyncIterator[ours.PoolWay]:
    async with dromon.open_pool(workers, **options) as pool:
        yield ours.PoolWay(pool)


def from_asyncio(contender: Contender) -> Contender:
    """Its futures, awaited in asyncio's loop."""

    @asynccontextmanager
    async def open_way(workers: int) -> AsyncIterator[AsyncioWay]:
        async with contender.open(workers) as way:
            loop = asyncio.get_running_loop()
            yield AsyncioWay(partial(loop.run_in_executor, executor_of(way)))

    return Contender(f"{contender.name}, from asyncio", open_way, contender.kind, in_asyncio)


def executor_of(way: Any) -> Any:
    return way.executor if isinstance(way, ExecutorWay) else way.client.get_executor(pure=False)


class Gevent:
    """What is used of anyio, for gevent's loop."""

    @asynccontextmanager
    async def create_task_group(self) -> AsyncIterator[Gevent]:
        from gevent.pool import Group

        self.group = Group()
        yield self
        self.group.join(raise_error=True)

    def start_soon(self, function: Callable[..., object], *args: object) -> None:
        self.group.spawn(in_no_loop, function, *args)

    async def sleep(self, seconds: float) -> None:
        import gevent

        gevent.sleep(seconds)


# ---- The load ------------------------------------------------------------------------------------


async def sleep_and_note(loop: Any, deadline: float) -> list[float]:
    """How late each sleep ended."""
    lateness = []
    while (before := time.monotonic()) < deadline:
        await loop.sleep(SLEEP)
        lateness.append(time.monotonic() - before - SLEEP)
    return lateness


def calls_begun(path: str) -> int:
    return os.path.getsize(path)


async def lateness_beside(way: Way) -> list[float]:
    loop: Any = Gevent() if isinstance(way, threads.GeventWay) else anyio
    group: AbstractAsyncContextManager[Any] = loop.create_task_group()
    await way.calls(CALLS, CALLS, time.sleep, 0.1)  # now there are all workers
    deadline = time.monotonic() + SECONDS
    lateness: list[float] = []
    # All sorts of workers share files with this process, and not all anything else.
    with tempfile.NamedTemporaryFile() as begun:
        async with group as tasks:
            tasks.start_soon(way.calls, CALLS, CALLS, count_until, deadline, begun.name)
            while calls_begun(begun.name) < CALLS and time.monotonic() < deadline:
                await loop.sleep(SLEEP)
            lateness += await sleep_and_note(loop, deadline)
    if not lateness:
        raise Refused(f"it did not run {CALLS} calls at once")
    return lateness


async def measure(way: Way) -> dict[str, float]:
    lateness = await lateness_beside(way)
    percentiles = statistics.quantiles(lateness, n=100, method="inclusive")
    return {"p50": percentiles[49], "p99": percentiles[98], "worst": max(lateness)}


LOAD = f"beside {CALLS} calls"
FLOOR = Contender("floor: trio, nothing beside it", nothing, Kind.BOUND)
ASYNCIO_FLOOR = Contender("floor: asyncio, nothing beside it", nothing, Kind.BOUND, in_asyncio)

LATENESS = Question(
    name="lateness",
    title="How late is an event loop while workers are busy?",
    about=(
        f"A task sleeps for {SLEEP * 1e3:g} ms again and again, and notes how much later than that"
        f" it goes on, while {CALLS} calls count in pure Python. The loop is trio's, but for"
        " asyncio's and gevent's where they are named: they sleep in ways of their own, and a floor"
        " is that of its loop. Where workers share the loop's GIL, each wake waits for the interval"
        " after which a thread has to give it up (`sys.getswitchinterval`). Left out is joblib,"
        " whose calls block the loop itself."
    ),
    loads={LOAD: Measured(measure)},
    contenders=[
        Contender("dromon", pool, Kind.OURS),
        Contender("dromon, nice=10", partial(pool, nice=10), Kind.OURS),
        Contender("dromon, interpreters", ours.isolated_pool, Kind.OURS),
        from_asyncio(ours.EXECUTOR),
        from_asyncio(ours.ISOLATED_EXECUTOR),
        threads.TRIO,
        threads.ANYIO,
        threads.ASYNCIO,
        threads.GEVENT,
        from_asyncio(threads.DASK),
        interpreters.ANYIO,
        from_asyncio(interpreters.EXECUTOR),
        processes.TRIO_PARALLEL,
        processes.ANYIO,
        from_asyncio(processes.EXECUTOR),
        from_asyncio(processes.LOKY),
        from_asyncio(processes.DASK),
        FLOOR,
        ASYNCIO_FLOOR,
    ],
    base={
        f"{LOAD}, p50": FLOOR.name,
        f"{LOAD}, p99": threads.TRIO.name,
        f"{LOAD}, worst": threads.TRIO.name,
    },
    rounds=10,
)
