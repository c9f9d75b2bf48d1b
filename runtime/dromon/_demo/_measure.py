"""The measuring of the demo: the ways take turns on the same files, beside a task that watches."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

import dromon

from ._bar import Bar
from ._files import File, Work, crunch, total
from ._forked import Process, run_forked

ROUNDS = 3

NAP = 0.001
"""Seconds that the watching task sleeps at a time."""

TASKS_PER_WORKER = 2
"""With one task each, a worker would idle while its result is on the way to the trio loop."""

RunSync = Callable[[Callable[[str], Work], str], Awaitable[Work]]


@attrs.frozen
class Round:
    """One way, once through all files."""

    seconds: float
    work: Work
    lateness: Sequence[float] = ()
    """By how many seconds the watching task woke too late, each time; empty if none watched."""


@attrs.frozen
class Thread:
    """A worker of the pool, and how it was made."""

    name: str
    tid: int
    spawn: str
    spawn_error: str | None


@attrs.frozen
class _Way:
    name: str
    run: Callable[[], Awaitable[Work]]
    watched: bool = True


async def measure(
    files: Sequence[File], workers: int, processes: Sequence[Process], bar: Bar
) -> tuple[dict[str, list[Round]], list[Thread]]:
    """Do all files in each of the ways, and again, `ROUNDS` times.

    Args:
        files: The files, in the order in which they are to be done.
        workers: How many workers the pool gets.
        processes: The bare processes.
        bar: Shows how far it is.

    Returns:
        The rounds of each way, and the threads of the pool.
    """

    def driven(name: str, run_sync: RunSync, tasks: int) -> _Way:
        return _Way(name, lambda: _drive(run_sync, tasks, files, bar))

    async with dromon.open_pool(workers=workers) as pool:
        ways = [
            driven("serial", _in_the_task_itself, 1),
            driven("trio.to_thread", trio.to_thread.run_sync, workers * TASKS_PER_WORKER),
            driven("dromon pool", pool.run_sync, workers * TASKS_PER_WORKER),
            _Way(
                f"ceiling: {workers} bare forked processes",
                lambda: run_forked(processes, bar),
                watched=False,
            ),
        ]
        rounds = await _take_turns(ways, sum(file.size for file in files), bar)
        threads = [
            Thread(worker.name, worker.tid, worker.spawn, worker.spawn_error)
            for worker in pool.statistics().workers
        ]
    return rounds, threads


async def _take_turns(ways: Sequence[_Way], size: int, bar: Bar) -> dict[str, list[Round]]:
    rounds: dict[str, list[Round]] = {way.name: [] for way in ways}
    bar.start("", size * len(ways) * ROUNDS)
    for number in range(1, ROUNDS + 1):
        for way in ways:
            bar.name(f"round {number} of {ROUNDS}: {way.name}")
            rounds[way.name].append(await (_watched if way.watched else _timed)(way))
    return rounds


async def _timed(way: _Way) -> Round:
    began = time.perf_counter()
    work = await way.run()
    return Round(time.perf_counter() - began, work)


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
    # It ends by itself and is not cancelled, so the last nap counts: a way that blocks the loop
    # until it is done shows only there.
    while not over.is_set():
        await trio.sleep_until(due)
        lateness.append(trio.current_time() - due)
        due = trio.current_time() + NAP


async def _drive(run_sync: RunSync, tasks: int, files: Sequence[File], bar: Bar) -> Work:
    works: list[Work] = []
    todo = iter(files)

    async def take() -> None:
        for file in todo:  # One iterator for all tasks: each takes the next file.
            work = await run_sync(crunch, file.path)
            works.append(work)
            bar.advance(work.read)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(take)
    return total(works)


async def _in_the_task_itself(function: Callable[[str], Work], path: str) -> Work:
    await trio.lowlevel.checkpoint()
    return function(path)
