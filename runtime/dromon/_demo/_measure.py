"""The measuring of the demo: the ways take turns on the same files, beside a task that watches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from ._files import total
from ._forked import run_forked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from socket import socket
    from typing import TypeAlias

    from .. import Pool, WorkerStatistics
    from ._bar import Bar
    from ._files import Work
    from ._workloads import Workload

    RunSync: TypeAlias = Callable[[Callable[[str], Work], str], Awaitable[Work]]

ROUNDS: Final = 3

# Seconds that the watching task sleeps at a time: it takes CPU from the way that it watches, and
# the bare processes have nobody who does.
NAP: Final = 0.005


@attrs.frozen
class Round:
    """One way, once through all files.

    Attributes:
      way (str): The name of the way.
      calls_at_once (int): How many files were under way at a time.
      seconds (float): How long it took.
      work (Work): What came of the files.
      lateness (Sequence[float]): By how many seconds the watching task woke too late, each time.
          Empty if no task watched.
    """

    way: str
    calls_at_once: int
    seconds: float
    work: Work
    lateness: Sequence[float] = ()


@attrs.frozen
class _Way:
    name: str
    calls_at_once: int
    run: Callable[[], Awaitable[Work]]
    watched: bool = True


async def measure(
    workloads: Sequence[Workload],
    opening: AbstractAsyncContextManager[Pool],
    channels: Sequence[socket],
    bar: Bar,
) -> tuple[list[list[Sequence[Round]]], Sequence[WorkerStatistics]]:
    """Do all files of each workload in each of the ways in turn, `ROUNDS` times.

    Args:
      workloads (Sequence[Workload]): One is measured after the other.
      opening (AbstractAsyncContextManager[Pool]): Opens the pool, with as many workers as there are
          processes.
      channels (Sequence[socket]): Those to the bare processes.
      bar (Bar): Shows how far it is.

    Returns:
      For each workload the rounds of each way, those of ``serial`` first and of the ceiling last,
      and the workers of the pool.
    """
    async with opening as pool:
        measured = [
            await _rounds(workload, _ways(workload, number, pool, channels, bar), bar)
            for number, workload in enumerate(workloads)
        ]
        return measured, pool.statistics().workers


def _ways(
    workload: Workload, number: int, pool: Pool, channels: Sequence[socket], bar: Bar
) -> Sequence[_Way]:
    workers = len(channels)

    def driven(name: str, run_sync: RunSync, calls_at_once: int) -> _Way:
        return _Way(name, calls_at_once, lambda: _drive(run_sync, calls_at_once, workload, bar))

    return [
        driven("serial", _in_the_task_itself, 1),
        # trio has a thread for each call under way: this many calls make as many as the pool
        # has, and more of them were no faster but made the loop later.
        driven("trio.to_thread", trio.to_thread.run_sync, workers),
        # A pool has its threads whatever the number of calls: here a worker finds its next call
        # in the queue while its result is on the way.
        driven("dromon pool", pool.run_sync, workers * 2),
        _Way(
            f"ceiling: {workers} bare forks",
            workers,
            lambda: run_forked(channels, number, bar),
            watched=False,
        ),
    ]


async def _rounds(workload: Workload, ways: Sequence[_Way], bar: Bar) -> list[Sequence[Round]]:
    bar.start("", ROUNDS * len(ways) * sum(file.size for file in workload.files))
    rounds = [[await _round(way, number, bar) for way in ways] for number in range(ROUNDS)]
    return list(zip(*rounds, strict=True))


async def _round(way: _Way, number: int, bar: Bar) -> Round:
    bar.name(f"round {number + 1} of {ROUNDS}: {way.name}")
    return await (_watched if way.watched else _timed)(way)


async def _timed(way: _Way) -> Round:
    began = time.perf_counter()
    work = await way.run()
    return Round(way.name, way.calls_at_once, time.perf_counter() - began, work)


async def _watched(way: _Way) -> Round:
    over = trio.Event()
    lateness: list[float] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch, over, lateness)
        timed = await _timed(way)
        over.set()
    return attrs.evolve(timed, lateness=lateness)


async def _watch(
    over: trio.Event, lateness: list[float], task_status: trio.TaskStatus[None]
) -> None:
    due = trio.current_time() + NAP
    task_status.started()
    # It ends by itself and is not cancelled, so that the last nap counts: the lateness of a way
    # that blocks the loop until it is done shows only there.
    while not over.is_set():
        await trio.sleep_until(due)
        lateness.append(trio.current_time() - due)
        due = trio.current_time() + NAP


async def _drive(run_sync: RunSync, calls_at_once: int, workload: Workload, bar: Bar) -> Work:
    works: list[Work] = []
    todo = iter(workload.files)

    async def take() -> None:
        for file in todo:  # One iterator for all tasks: each takes the next file.
            work = await run_sync(workload.function, file.path)
            works.append(work)
            bar.advance(work.read)

    async with trio.open_nursery() as nursery:
        for _ in range(calls_at_once):
            nursery.start_soon(take)
    return total(works)


async def _in_the_task_itself(function: Callable[[str], Work], path: str) -> Work:
    await trio.lowlevel.checkpoint()
    return function(path)
