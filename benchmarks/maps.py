"""Maps on a pool, beside `concurrent.futures.ThreadPoolExecutor.map` with as many threads.

First items that cost nothing: what a map itself costs. The ceiling is what such items cost in any
case, each called in a copy of the context, without a thread or an event loop. Then items that work
in C, without the GIL: how busy a map keeps the workers. There the ceiling is bare forked processes:
as many as workers, each with its share of the same items.

The ways take turns, so that a machine that gets slower or faster gives each the same share of it;
what is compared is the ratio within a turn, and its median is shown.

    python benchmarks/maps.py [--rounds N] [--workers N]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import trio
from calls import describe_machine
from rich.console import Console
from rich.table import Table

import dromon

Function = Callable[[Any], object]
Way = Callable[[Function, list[Any]], Awaitable[object]]

PEER, CEILING = "ThreadPoolExecutor.map", "ceiling"

# (title, seconds of an item, items)
LOADS = [("10 µs", 10e-6, 20_000), ("1 ms", 1e-3, 400), ("50 ms", 50e-3, 8)]
EMPTY_ITEMS = 20_000


def nothing(_: object) -> None:
    """What is called for items that cost nothing."""


def digest(data: bytes) -> None:
    """Work in C that lets go of the GIL."""
    hashlib.sha256(data).digest()


def data_of(seconds: float) -> bytes:
    """So many bytes that `digest` takes so long, when nothing else runs."""
    block = bytes(1 << 20)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        digest(block)
        times.append(time.perf_counter() - start)
    return bytes(int(seconds / statistics.median(times) * len(block)))


# ---- The ways: each calls a function for each item -----------------------------------------------


def ways(pool: dromon.Pool, executor: ThreadPoolExecutor) -> dict[str, Way]:
    async def peer(function: Function, items: list[Any]) -> None:
        for _ in executor.map(function, items):
            pass

    async def pool_map(function: Function, items: list[Any]) -> None:
        await pool.map(function, items)

    async def open_map(function: Function, items: list[Any]) -> None:
        async with pool.open_map(function, items) as results:
            async for _ in results:
                pass

    return {PEER: peer, "pool.map": pool_map, "pool.open_map": open_map}


async def in_copies_of_the_context(function: Function, items: list[Any]) -> None:
    context = copy_context()
    for item in items:
        context.copy().run(function, item)


def in_processes(workers: int) -> Way:
    async def run(function: Function, items: list[Any]) -> None:
        children = []
        for index in range(workers):
            child = os.fork()
            if child == 0:
                for item in items[index::workers]:
                    function(item)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)  # noqa: ASYNC222  # nothing else is in the loop

    return run


async def microseconds(way: Way, function: Function, items: list[Any]) -> float:
    start = time.perf_counter()
    await way(function, items)
    return (time.perf_counter() - start) / len(items) * 1e6


# ---- The comparisons -----------------------------------------------------------------------------


def add_rows(table: Table, title: str, times: dict[str, list[float]], base: str) -> None:
    """A row for each way; its ratios say how many times as fast as `base` it was."""
    for name, values in times.items():
        ratios = [base / value for base, value in zip(times[base], values, strict=True)]
        table.add_row(
            title,
            name,
            f"{statistics.median(values):,.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    table.add_section()


async def compare_empty(table: Table, rounds: int, chosen: dict[str, Way]) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, way in (chosen | {CEILING: in_copies_of_the_context}).items():
            times[name].append(await microseconds(way, nothing, [None] * EMPTY_ITEMS))
    add_rows(table, "nothing", times, PEER)


async def compare_busy(table: Table, rounds: int, chosen: dict[str, Way], workers: int) -> None:
    for title, seconds, count in LOADS:
        times: dict[str, list[float]] = defaultdict(list)
        items = [data_of(seconds)] * (count // workers * workers or workers)
        for _ in range(rounds):
            for name, way in (chosen | {CEILING: in_processes(workers)}).items():
                times[name].append(await microseconds(way, digest, items))
        add_rows(table, title, times, CEILING)


async def compare(rounds: int, workers: int) -> list[Table]:
    caption = f"{workers} workers. Medians of {rounds} turns. {describe_machine()}"
    empty, busy = Table(title="Empty items"), Table(title="Items that work", caption=caption)
    for table, base in ((empty, PEER), (busy, "the ceiling")):
        for column in ("an item", "way", "µs an item", f"times {base}", "in the turns"):
            table.add_column(column, justify="left" if column in ("an item", "way") else "right")
    with ThreadPoolExecutor(workers) as executor:
        async with dromon.open_pool(workers) as pool:
            chosen = ways(pool, executor)
            await compare_empty(empty, rounds, chosen)
            await compare_busy(busy, rounds, chosen, workers)
    return [empty, busy]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns (default: %(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cpus, help="(default: %(default)s)")
    arguments = parser.parse_args()
    # The children only compute and exit, so they need nothing that other threads hold.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    console = Console(width=None if sys.stdout.isatty() else 110)
    for table in trio.run(compare, arguments.rounds, arguments.workers):
        console.print(table)


if __name__ == "__main__":
    main()
