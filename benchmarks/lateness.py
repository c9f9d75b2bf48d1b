"""How late a trio loop wakes up while two pure-Python calls keep threads busy.

A task sleeps for a millisecond again and again and notes how much later than that it goes on, while
two calls count in pure Python: on trio's threads, on a dromon pool, on a pool whose workers are
nice, and on one whose workers have an interpreter of their own. The ways take turns within each
round. The floor is the loop alone; the least that a GIL costs is the interval after which a thread
has to give it up (`sys.getswitchinterval`), for each wake.

    python benchmarks/lateness.py [--rounds N] [--seconds S]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import trio
from calls import describe_machine
from rich.console import Console
from rich.table import Table

import dromon

SLEEP = 0.001
CALLS = 2
RunSync = Callable[..., Awaitable[Any]]
Share = Callable[[bytearray], object]  # makes the memoryview that a call gets


def count(begun: memoryview, stop: memoryview) -> int:
    """With memory for flags: other interpreters share nothing else."""
    begun[0] = 1
    number = 0
    while not stop[0]:
        for _ in range(1000):
            number += 1
    return number


async def sleep_and_note(seconds: float) -> list[float]:
    """How late each sleep ended, in milliseconds."""
    lateness = []
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end:
        await trio.sleep(SLEEP)
        lateness.append((time.perf_counter() - before - SLEEP) * 1e3)
    return lateness


async def beside(run_sync: RunSync | None, share: Share, seconds: float) -> list[float]:
    """The lateness beside counting calls, or with nothing beside it."""
    if run_sync is None:
        return await sleep_and_note(seconds)
    stop = bytearray(1)
    all_begun = [bytearray(1) for _ in range(CALLS)]
    async with trio.open_nursery() as nursery:
        for begun in all_begun:
            nursery.start_soon(run_sync, count, share(begun), share(stop))
        while not all(begun[0] for begun in all_begun):  # noqa: ASYNC110  # other interpreters set it
            await trio.sleep(SLEEP)
        lateness = await sleep_and_note(seconds)
        stop[0] = 1
    return lateness


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    lateness: dict[str, list[list[float]]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(dromon.open_pool(CALLS))
        nice_pool = await stack.enter_async_context(dromon.open_pool(CALLS, nice=10))
        ways: dict[str, tuple[RunSync | None, Share]] = {
            "floor: nothing beside it": (None, memoryview),
            "trio.to_thread": (trio.to_thread.run_sync, memoryview),
            "dromon": (pool.run_sync, memoryview),
            "dromon, nice=10": (nice_pool.run_sync, memoryview),
        }
        if sys.version_info >= (3, 12):
            isolated_pool = await stack.enter_async_context(
                dromon.open_pool(CALLS, isolation="interpreter")
            )
            ways["dromon, interpreters"] = (isolated_pool.run_sync, dromon.writable)
        for _ in range(rounds):
            for name, (run_sync, share) in ways.items():
                lateness[name].append(await beside(run_sync, share, seconds))
    return lateness


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each (default: %(default)s)")
    options = parser.parse_args()
    lateness = trio.run(measure, options.rounds, options.seconds)
    table = Table(
        title=f"Lateness of a loop beside {CALLS} pure-Python calls",
        caption=f"Medians of {options.rounds} turns, ms; p50 over the floor's and p99 over trio's"
        f" within each turn."
        f" Switch interval {sys.getswitchinterval() * 1e3:g} ms. {describe_machine()}",
    )
    for column in ("way", "p50", "p99", "worst", "p50 / floor's", "p99 / trio's", "in the turns"):
        table.add_column(column, justify="left" if column == "way" else "right")
    floor = [percentile(turn, 50) for turn in lateness["floor: nothing beside it"]]
    peer = [percentile(turn, 99) for turn in lateness["trio.to_thread"]]
    for name, turns in lateness.items():
        p50 = [percentile(turn, 50) for turn in turns]
        p99 = [percentile(turn, 99) for turn in turns]
        slower = [own / other for own, other in zip(p50, floor, strict=True)]
        ratios = [own / other for own, other in zip(p99, peer, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(p50):.2f}",
            f"{statistics.median(p99):.2f}",
            f"{max(max(turn) for turn in turns):.1f}",
            f"{statistics.median(slower):.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
