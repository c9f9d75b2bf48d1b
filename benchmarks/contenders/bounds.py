"""What bounds all contenders: what is left if all that a library does cost nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from ..model import Contender, Kind, Way
from .loops import in_no_loop
from .ways import TrioWay


@asynccontextmanager
async def trio_switches(_: int) -> AsyncIterator[TrioWay]:
    """A task that sleeps, and is woken by another one: what trio itself needs for any call."""
    sleeping: list[Task] = []

    async def wake() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            tasks = sleeping.copy()
            sleeping.clear()
            for task in tasks:
                reschedule(task)

    async def sleep(*_: object) -> None:
        sleeping.append(current_task())
        await wait_task_rescheduled(lambda _: Abort.FAILED)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake)
        yield TrioWay(sleep)
        nursery.cancel_scope.cancel()


class Hops(Way):
    """To another thread and back, with nothing but an eventfd each way and no event loop."""

    def __init__(self, there: int, back: int) -> None:
        self.there, self.back = there, back

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        for _ in range(count):
            os.eventfd_write(self.there, 1)
            os.eventfd_read(self.back)


@asynccontextmanager
async def eventfd_hops(_: int) -> AsyncIterator[Hops]:
    there, back = os.eventfd(0), os.eventfd(0)
    stop = False

    def echo() -> None:
        while os.eventfd_read(there) and not stop:
            os.eventfd_write(back, 1)

    thread = threading.Thread(target=echo)
    thread.start()
    yield Hops(there, back)
    stop = True
    os.eventfd_write(there, 1)
    thread.join()
    os.close(there)
    os.close(back)


class InThisThread(Way):
    """Each call in a context of its own, one after the other: no threads, queues or futures."""

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        for _ in range(count):
            copy_context().run(fn, *args)

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        context = copy_context()
        for item in items:
            context.copy().run(fn, item)


@asynccontextmanager
async def in_this_thread(_: int) -> AsyncIterator[InThisThread]:
    yield InThisThread()


class Futures(Way):
    """Futures of the standard library, made, set and read in one thread, without an executor."""

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        while count > 0:
            futures: list[Future[object]] = [Future() for _ in range(min(count, concurrent))]
            for future in futures:
                future.set_running_or_notify_cancel()
                future.set_result(fn(*args))
            for future in futures:
                future.result()
            count -= concurrent


@asynccontextmanager
async def futures_alone(_: int) -> AsyncIterator[Futures]:
    yield Futures()


class TwoCopies(Way):
    """Of the bytes that a call has: one on the way there, one on the way back.

    Into memory that is there already: to get new one from the kernel takes longer than to copy.
    """

    def __init__(self) -> None:
        self.there = self.back = memoryview(bytearray())

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        (data,) = args
        assert isinstance(data, bytes)
        if len(self.there) != len(data):
            self.there, self.back = (memoryview(bytearray(len(data))) for _ in range(2))
        for _ in range(count):
            self.there[:] = data
            self.back[:] = self.there


@asynccontextmanager
async def two_copies(_: int) -> AsyncIterator[TwoCopies]:
    yield TwoCopies()


class Team:
    """Forked processes that have a function and, each, its share of the items; they wait for a word
    to go, and say when they are done. Nothing else goes to and fro.
    """

    def __init__(self, fn: Callable[[Any], object], items: Sequence[Any], workers: int) -> None:
        self.start = [os.eventfd(0) for _ in range(workers)]
        self.done = os.eventfd(0, os.EFD_SEMAPHORE)
        self.members = []
        for index, start in enumerate(self.start):
            member = os.fork()
            if member == 0:
                self._work(fn, items[index::workers], start)
            self.members.append(member)

    def _work(self, fn: Callable[[Any], object], items: Sequence[Any], start: int) -> None:
        try:
            while os.eventfd_read(start):
                for item in items:
                    fn(item)
                os.eventfd_write(self.done, 1)
        finally:
            os._exit(1)

    def go(self) -> None:
        for start in self.start:
            os.eventfd_write(start, 1)
        for _ in self.start:
            os.eventfd_read(self.done)

    def end(self) -> None:
        for member in self.members:
            os.kill(member, signal.SIGKILL)
            os.waitpid(member, 0)
        for event in [*self.start, self.done]:
            os.close(event)


class BareProcesses(Way):
    """A team for each map, forked when it is first asked for: that is in the warm-up."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.teams: dict[object, Team] = {}

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        key = (fn, tuple(items))
        if key not in self.teams:
            self.teams[key] = Team(fn, items, self.workers)
        self.teams[key].go()


@asynccontextmanager
async def bare_processes(workers: int) -> AsyncIterator[BareProcesses]:
    way = BareProcesses(workers)
    yield way
    for team in way.teams.values():
        team.end()


TRIO_SWITCHES = Contender("floor: trio task switches", trio_switches, Kind.BOUND)
EVENTFD_HOPS = Contender("floor: bare eventfd hops", eventfd_hops, Kind.BOUND, in_no_loop)
IN_THIS_THREAD = Contender(
    "floor: calls in contexts, one thread", in_this_thread, Kind.BOUND, in_no_loop
)
FUTURES = Contender("floor: standard futures alone", futures_alone, Kind.BOUND, in_no_loop)
TWO_COPIES = Contender("floor: two copies", two_copies, Kind.BOUND, in_no_loop)
BARE_PROCESSES = Contender("ceiling: bare processes", bare_processes, Kind.BOUND, in_no_loop)
