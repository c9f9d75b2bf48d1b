"""What green threads cost, beside greenlets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

import dromon
from dromon import green

from ..contenders.loops import in_no_loop
from ..contenders.ours import keep_quiet
from ..machine import resident
from ..model import Contender, Kind, Measured, Question, Refused, Way
from ..workloads import nothing

THREADS = 100
SWITCHES = 200_000
JOINS = 20_000

# Below each switch: so many Python frames, and calls of sorted() with a key function.
DEPTHS = {
    "shallow": (0, 0),
    "10 frames, 1 sorted(key=)": (10, 1),
    "10 frames, 10 sorted(key=)": (10, 10),
}


def at_depth(frames: int, sorts: int, function: Callable[[], object]) -> Any:
    """Call a function below so many frames of Python, and C frames with one of Python each."""
    if frames:
        return at_depth(frames - 1, sorts, function)
    if sorts:
        return sorted([1], key=lambda _: at_depth(0, sorts - 1, function) or 1)
    return function()


class Threads(Way):
    """Threads that take turns where they wait."""

    async def switch(self, frames: int, sorts: int) -> float:
        """The seconds of a switch among many."""
        raise NotImplementedError

    async def checkpoint(self) -> float:
        """The seconds of a switch with nobody else to go on."""
        raise Refused("it has no checkpoints")

    async def join(self, in_place: bool) -> float:
        """The seconds of a child and its join, less a plain call."""
        raise NotImplementedError

    async def park(self, count: int) -> float:
        """So many wait, 10 frames and a sorted() deep: the bytes in memory of each."""
        raise NotImplementedError

    async def sleep(self, count: int) -> None:
        """So many sleep for a second."""
        raise NotImplementedError


def ten_times(step: Callable[[], object], done: list[int]) -> None:
    """Switch until all have done so often enough, with little else in between."""
    while done[0] < SWITCHES:
        step(), step(), step(), step(), step(), step(), step(), step(), step(), step()
        done[0] += 10


def seconds_of(times: int, function: Callable[[], object]) -> float:
    """Of the CPU, in this thread: what else the machine does counts little."""
    start = time.thread_time()
    function()
    return (time.thread_time() - start) / times


def repeat(times: int, function: Callable[[], object]) -> None:
    for _ in range(times):
        function()


# ---- dromon's ------------------------------------------------------------------------------------


class GreenThreads(Threads):
    """On the worker of a pool."""

    def __init__(self, pool: dromon.Pool) -> None:
        self.pool = pool

    async def switch(self, frames: int, sorts: int) -> float:
        def run() -> None:
            done = [0]
            turns = partial(ten_times, green.checkpoint, done)
            with green.open_scope() as scope:
                for _ in range(THREADS):
                    scope.spawn(at_depth, frames, sorts, turns)

        return await self.pool.run_sync(seconds_of, SWITCHES, run)

    async def checkpoint(self) -> float:
        run = partial(repeat, SWITCHES, green.checkpoint)
        return await self.pool.run_sync(seconds_of, SWITCHES, run)

    async def join(self, in_place: bool) -> float:
        # With a timeout it parks: the child could take longer, so it does not run in its place.
        timeout = None if in_place else 1e6

        def run() -> None:
            with green.open_scope() as scope:
                for _ in range(JOINS):
                    scope.spawn(nothing).result(timeout)

        return await self.pool.run_sync(joins, run)

    async def park(self, count: int) -> float:
        return await self.pool.run_sync(park_green_threads, count)

    async def sleep(self, count: int) -> None:
        def sleep() -> None:
            dromon.from_thread.run(trio.sleep, 1)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.pool.run_sync, at_depth, 10, 1, sleep)


def joins(run: Callable[[], object]) -> float:
    calls = seconds_of(JOINS, partial(repeat, JOINS, nothing))
    return seconds_of(JOINS, run) - calls


def park_green_threads(count: int) -> float:
    arrived, gate = green.Semaphore(0), green.Event()

    def wait() -> None:
        arrived.release()
        gate.wait()

    before = resident()
    with green.open_scope() as scope:
        for _ in range(count):
            scope.spawn(at_depth, 10, 1, wait)
        for _ in range(count):
            arrived.acquire()
        # On the same worker: they are all parked.
        each = (resident() - before) / count
        gate.set()
    return each


@asynccontextmanager
async def green_threads(_: int, workers: int = 1) -> AsyncIterator[GreenThreads]:
    keep_quiet()
    async with dromon.open_pool(workers) as pool:
        yield GreenThreads(pool)


# ---- greenlet's ----------------------------------------------------------------------------------


class Greenlets(Threads):
    """Bare ones, each of which says who is next."""

    async def switch(self, frames: int, sorts: int) -> float:
        import greenlet

        ring: list[greenlet.greenlet] = []
        main = greenlet.getcurrent()
        done = [0]

        def run(index: int) -> None:
            main.switch()
            ten_times(ring[(index + 1) % THREADS].switch, done)
            main.switch()

        for index in range(THREADS):
            ring.append(greenlet.greenlet(partial(at_depth, frames, sorts, partial(run, index))))
            ring[-1].switch()
        return seconds_of(SWITCHES, ring[0].switch)

    async def join(self, in_place: bool) -> float:
        import greenlet

        if in_place:
            raise Refused("a greenlet always has a stack of its own")
        return joins(partial(repeat, JOINS, lambda: greenlet.greenlet(nothing).switch()))

    async def park(self, count: int) -> float:
        import greenlet

        before, main = resident(), greenlet.getcurrent()
        parked = [greenlet.greenlet(partial(at_depth, 10, 1, main.switch)) for _ in range(count)]
        for one in parked:
            one.switch()
        each = (resident() - before) / count
        for one in parked:
            one.switch()
        return each

    async def sleep(self, count: int) -> None:
        raise Refused("it has no event loop; gevent has")


@asynccontextmanager
async def greenlets(_: int) -> AsyncIterator[Greenlets]:
    import greenlet  # noqa: F401  # if it is missing, say so now

    yield Greenlets()


# ---- gevent's ------------------------------------------------------------------------------------


class Gevents(Threads):
    """Greenlets that take turns by gevent's loop."""

    async def switch(self, frames: int, sorts: int) -> float:
        import gevent

        turns = partial(ten_times, partial(gevent.sleep, 0), [0])

        def run() -> None:
            gevent.joinall([gevent.spawn(at_depth, frames, sorts, turns) for _ in range(THREADS)])

        return seconds_of(SWITCHES, run)

    async def checkpoint(self) -> float:
        import gevent

        return seconds_of(SWITCHES, partial(repeat, SWITCHES, partial(gevent.sleep, 0)))

    async def join(self, in_place: bool) -> float:
        import gevent

        if in_place:
            raise Refused("a greenlet always has a stack of its own")
        return joins(partial(repeat, JOINS, lambda: gevent.spawn(nothing).join()))

    async def park(self, count: int) -> float:
        import gevent
        from gevent.event import Event

        gate, before = Event(), resident()
        parked = [gevent.spawn(at_depth, 10, 1, gate.wait) for _ in range(count)]
        gevent.sleep(0)
        each = (resident() - before) / count
        gate.set()
        gevent.joinall(parked)
        return each

    async def sleep(self, count: int) -> None:
        import gevent

        sleep = partial(gevent.sleep, 1)
        gevent.joinall([gevent.spawn(at_depth, 10, 1, sleep) for _ in range(count)])


@asynccontextmanager
async def gevents(_: int) -> AsyncIterator[Gevents]:
    import gevent  # noqa: F401

    yield Gevents()


# ---- Without green threads -----------------------------------------------------------------------


class Tasks(Threads):
    """Trio's, which need no thread to sleep."""

    async def sleep(self, count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(trio.sleep, 1)


@asynccontextmanager
async def trio_tasks(_: int) -> AsyncIterator[Tasks]:
    yield Tasks()


class TrioThreads(Threads):
    """Each waits in a thread of its own."""

    async def sleep(self, count: int) -> None:
        threads = trio.to_thread.current_default_thread_limiter().total_tokens
        raise Refused(f"its {threads} threads would take {count / threads:.0f} s")


@asynccontextmanager
async def trio_threads(_: int) -> AsyncIterator[TrioThreads]:
    yield TrioThreads()


# ---- The questions -------------------------------------------------------------------------------

GREEN = Contender("dromon.green", green_threads, Kind.OURS)
GREENLET = Contender("greenlet", greenlets, run=in_no_loop)
GEVENT = Contender("gevent", gevents, run=in_no_loop)

ALONE, IN_PLACE, PARKS = "a checkpoint alone", "spawn and join, in place", "spawn and join, parks"


async def switch(way: Threads, frames: int, sorts: int) -> dict[str, float]:
    return {"": await way.switch(frames, sorts)}


async def checkpoint(way: Threads) -> dict[str, float]:
    return {"": await way.checkpoint()}


async def join(way: Threads, in_place: bool) -> dict[str, float]:
    return {"": await way.join(in_place)}


SWITCHING = Question(
    name="green-switch",
    title="What do green threads cost?",
    about=(
        f"{THREADS} green threads give each other the turn, each from its depth; one does so alone;"
        " and one spawns children that do nothing, and joins each. Greenlets do the same: bare ones"
        " that say who is next, and gevent's. The time is the CPU time of their thread. A join in"
        " place runs the child on the stack of the one that waits."
    ),
    loads={
        **{
            f"switch, {title}": Measured(partial(switch, frames=frames, sorts=sorts))
            for title, (frames, sorts) in DEPTHS.items()
        },
        ALONE: Measured(checkpoint),
        IN_PLACE: Measured(partial(join, in_place=True)),
        PARKS: Measured(partial(join, in_place=False)),
    },
    contenders=[GREEN, GREENLET, GEVENT],
    base={
        **{f"switch, {title}": GREENLET.name for title in DEPTHS},
        ALONE: GEVENT.name,
        IN_PLACE: GREEN.name,
        PARKS: GREENLET.name,
    },
    rounds=10,
    aims={
        **{
            (f"switch, {title}", GREEN.name): "300 ns at most, a ratio of 3 at least"
            for title in DEPTHS
        },
        (IN_PLACE, GREEN.name): "250 ns at most",
        (PARKS, GREEN.name): "1 µs at most",
    },
)


async def park(way: Threads, count: int) -> dict[str, float]:
    return {"": await way.park(count)}


PARKING = Question(
    name="green-memory",
    title="How much memory does a green thread take that is parked?",
    about=(
        "They wait 10 Python frames and a sorted(key=) deep, in a new process each time. Each has"
        " its share of what the process has more in memory than before."
    ),
    loads={f"{count:,} parked": Measured(partial(park, count=count)) for count in (10_000, 40_000)},
    contenders=[GREEN, GREENLET, GEVENT],
    base=GREENLET.name,
    unit="byte",
    rounds=5,
    anew=True,
    aims={
        ("10,000 parked", GREEN.name): "20 KiB at most",
        ("40,000 parked", GREEN.name): "not to fail",
    },
)


async def sleep(way: Threads, count: int) -> dict[str, float]:
    start, busy = time.perf_counter(), time.process_time()
    await way.sleep(count)
    return {"": time.perf_counter() - start, "CPU time": time.process_time() - busy}


SLEEPING = "10,000 that sleep for a second"
TRIO_TASKS = Contender("floor: trio tasks", trio_tasks, Kind.BOUND)

WAITING = Question(
    name="green-wait",
    title="How long do 10,000 calls take that each wait a second for trio?",
    about=(
        "10,000 calls of `from_thread.run(trio.sleep, 1)`, 10 Python frames and a sorted(key=)"
        " deep, on two workers, in a new process each time. The floor is the second alone, in trio"
        " tasks; gevent's greenlets wait for gevent's own loop."
    ),
    loads={SLEEPING: Measured(partial(sleep, count=10_000))},
    contenders=[
        Contender("dromon.from_thread, 2 workers", partial(green_threads, workers=2), Kind.OURS),
        GREENLET,
        GEVENT,
        Contender("trio.from_thread", trio_threads),
        TRIO_TASKS,
    ],
    base=TRIO_TASKS.name,
    rounds=5,
    anew=True,
    aims={(SLEEPING, "dromon.from_thread, 2 workers"): "3 s at most"},
)

ALL = [SWITCHING, PARKING, WAITING]
