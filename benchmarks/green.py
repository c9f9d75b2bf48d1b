"""What green threads cost, beside greenlet and beside the limits that the project sets itself.

Switches and joins are measured by the CPU time of the worker, so that what else the machine does
counts little. Beside a hundred green threads that give each other the turn as many greenlets do the
same at the same depth, in a process of their own: where greenlet is imported, each park first asks
whether it is in a user's greenlet. Memory, and the many that wait for trio, are measured in a new
process each time. The ways take turns; medians are shown. What a call costs that never parks shows
calls.py.

    python benchmarks/green.py [--rounds N]
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from calls import describe_machine, nothing
from interpreters import take_turns
from rich.console import Console
from rich.table import Table

import dromon
from dromon import green

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interpreters import Times

THREADS = 100
SWITCHES = 200_000
JOINS = 20_000

# (title, Python frames, calls of sorted() with a key function) below each green thread's switch
DEPTHS = [
    ("shallow", 0, 0),
    ("10 frames, 1 sorted(key=)", 10, 1),
    ("10 frames, 10 sorted(key=)", 10, 10),
]


def at_depth(frames: int, sorts: int, function: Callable[[], object]) -> Any:
    """Call a function below so many frames of Python, and C frames with one of Python each."""
    if frames:
        return at_depth(frames - 1, sorts, function)
    if sorts:
        return sorted([1], key=lambda _: at_depth(0, sorts - 1, function) or 1)
    return function()


# ---- On a worker: each returns nanoseconds -------------------------------------------------------


def switch(frames: int, sorts: int) -> float:
    """Green threads that give each other the turn: each time one parks, and the next is resumed."""
    done = 0

    def run() -> None:
        nonlocal done
        step = green.checkpoint
        while done < SWITCHES:
            step(), step(), step(), step(), step(), step(), step(), step(), step(), step()
            done += 10

    start = time.thread_time()
    with green.open_scope() as scope:
        for _ in range(THREADS):
            scope.spawn(at_depth, frames, sorts, run)
    return (time.thread_time() - start) / SWITCHES * 1e9


def ask_alone() -> float:
    """A checkpoint with nobody else to go on."""
    step = green.checkpoint
    start = time.thread_time()
    for _ in range(SWITCHES):
        step()
    return (time.thread_time() - start) / SWITCHES * 1e9


def join(timeout: float | None) -> float:
    """A child and its join, less a plain call. If the join has a timeout it parks: the child could
    take longer, so it does not run in its place.
    """
    start = time.thread_time()
    for _ in range(JOINS):
        nothing()
    middle = time.thread_time()
    with green.open_scope() as scope:
        for _ in range(JOINS):
            scope.spawn(nothing).result(timeout)
    return ((time.thread_time() - middle) - (middle - start)) / JOINS * 1e9


# ---- In another process --------------------------------------------------------------------------


def switch_greenlets(frames: int, sorts: int) -> float:
    """As switch(), with greenlets in a ring."""
    import greenlet

    ring: list[greenlet.greenlet] = []
    main = greenlet.getcurrent()
    done = 0

    def run(index: int) -> None:
        nonlocal done
        main.switch()
        step = ring[(index + 1) % THREADS].switch
        while done < SWITCHES:
            step(), step(), step(), step(), step(), step(), step(), step(), step(), step()
            done += 10
        main.switch()

    for index in range(THREADS):
        ring.append(greenlet.greenlet(partial(at_depth, frames, sorts, partial(run, index))))
        ring[-1].switch()
    start = time.thread_time()
    ring[0].switch()
    return (time.thread_time() - start) / SWITCHES * 1e9


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def park_many(count: int) -> float:
    """Green threads that wait, 10 frames and a sorted() deep: the KiB in memory of each."""
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
        kibibytes = (resident() - before) / count / 1024
        gate.set()
    return kibibytes


def memory(count: int) -> float:
    with dromon.Pool(1) as pool:
        return pool.submit(park_many, count).result()


def sleep_in_trio(count: int) -> float:
    """Calls on two workers that each sleep a second in trio: the seconds until all are done."""

    def sleep() -> None:
        dromon.from_thread.run(trio.sleep, 1)

    async def run() -> float:
        logging.getLogger("dromon").setLevel(logging.ERROR)  # that there is much to do is meant so
        async with dromon.open_pool(2) as pool:
            start = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(pool.run_sync, at_depth, 10, 1, sleep)
            return time.perf_counter() - start

    return trio.run(run)


def cpu_time(function: Callable[..., object], *args: object) -> float:
    """The CPU seconds that this process spends on it."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


# ---- The table -----------------------------------------------------------------------------------


@dataclass
class Row:
    """What one load measures, and what the project wants it to be."""

    load: Callable[[], Awaitable[float]]
    unit: str = "ns"
    limit: str = ""


Rows = dict[str, Row]


def elsewhere(
    processes: ProcessPoolExecutor, function: Callable[..., float], *args: object
) -> Callable[[], Awaitable[float]]:
    return lambda: trio.to_thread.run_sync(processes.submit(function, *args).result)


def short_rows(pool: dromon.Pool, processes: ProcessPoolExecutor) -> Rows:
    rows = {}
    for title, frames, sorts in DEPTHS:
        rows[f"switch, {title}"] = Row(partial(pool.run_sync, switch, frames, sorts), limit="300")
        rows[f"greenlet, {title}"] = Row(elsewhere(processes, switch_greenlets, frames, sorts))
    rows["a checkpoint alone"] = Row(partial(pool.run_sync, ask_alone))
    rows["spawn and join, in place"] = Row(partial(pool.run_sync, join, None), limit="250")
    rows["spawn and join, parks"] = Row(partial(pool.run_sync, join, 1e6), limit="1000")
    return rows


def long_rows(processes: ProcessPoolExecutor) -> Rows:
    return {
        "memory of each of 10,000 parked": Row(elsewhere(processes, memory, 10_000), "KiB", "20"),
        "memory of each of 40,000 parked": Row(
            elsewhere(processes, memory, 40_000), "KiB", "not to fail"
        ),
        "10,000 calls of from_thread.run(trio.sleep, 1)": Row(
            elsewhere(processes, sleep_in_trio, 10_000), "s", "3"
        ),
        "CPU time of as many": Row(elsewhere(processes, cpu_time, sleep_in_trio, 10_000), "s"),
    }


def add_row(table: Table, name: str, values: list[float], unit: str, limit: str) -> None:
    digits = 0 if unit == "ns" else 2
    numbers = min(values), statistics.median(values), max(values)
    low, median, high = (f"{number:.{digits}f}" for number in numbers)
    table.add_row(name, median, unit, limit, f"{low} to {high}")


async def add_rows(table: Table, rounds: int, rows: Rows) -> Times:
    times = await take_turns(rounds, {name: row.load for name, row in rows.items()})
    for name, row in rows.items():
        add_row(table, name, times[name], row.unit, row.limit)
    table.add_section()
    return times


def add_ratios(table: Table, times: Times) -> None:
    for title, *_ in DEPTHS:
        pairs = zip(times[f"greenlet, {title}"], times[f"switch, {title}"], strict=True)
        ratios = [peer / ours for peer, ours in pairs]
        add_row(table, f"greenlet by switch, {title}", ratios, "times", "3 at least")
    table.add_section()


async def measure(table: Table, rounds: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as processes:
        async with dromon.open_pool(1) as pool:
            add_ratios(table, await add_rows(table, rounds, short_rows(pool, processes)))
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
        await add_rows(table, max(1, rounds // 3), long_rows(processes))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns (default: %(default)s)")
    rounds: int = parser.parse_args().rounds
    table = Table(
        title="Green threads",
        caption=f"Medians of {rounds} turns; of the last three of a third. {describe_machine()}",
    )
    for column in ("load", "measured", "", "limit", "in the turns"):
        table.add_column(column, justify="left" if column in ("load", "") else "right")
    trio.run(measure, table, rounds)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
