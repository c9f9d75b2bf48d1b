"""How late a trio loop wakes up while two pure-Python calls keep threads busy.

A task sleeps for a millisecond again and again and notes how much later than that it goes on, while
two calls count in pure Python: on trio's threads, on a dromon pool, and on a pool whose workers are
nice. The ways take turns within each round. The floor is the loop alone; the least that a GIL costs
is the interval after which a thread has to give it up (`sys.getswitchinterval`), for each wake.

    python benchmarks/lateness.py [--rounds N] [--seconds S]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from calls import describe_machine
from rich.console import Console
from rich.table import Table

import dromon

SLEEP = 0.001
CALLS = 2
RunSync = Callable[..., Awaitable[Any]]


def count(begun: threading.Semaphore, stop: threading.Event) -> int:
    begun.release()
    number = 0
    while not stop.is_set():
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


async def beside(run_sync: RunSync | None, seconds: float) -> list[float]:
    """The lateness beside counting calls, or with nothing beside it."""
    if run_sync is None:
        return await sleep_and_note(seconds)
    begun, stop = threading.Semaphore(0), threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLS):
            nursery.start_soon(run_sync, count, begun, stop)
        for _ in range(CALLS):
            await trio.to_thread.run_sync(begun.acquire)
        lateness = await sleep_and_note(seconds)
        stop.set()
    return lateness


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    lateness: dict[str, list[list[float]]] = defaultdict(list)
    async with (
        dromon.open_pool(CALLS) as pool,
        dromon.open_pool(CALLS, nice=10) as nice_pool,
    ):
        ways: dict[str, RunSync | None] = {
            "floor: nothing beside it": None,
            "trio.to_thread": trio.to_thread.run_sync,
            "dromon": pool.run_sync,
            "dromon, nice=10": nice_pool.run_sync,
        }
        for _ in range(rounds):
            for name, run_sync in ways.items():
                lateness[name].append(await beside(run_sync, seconds))
    return lateness


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each (default: %(default)s)")
    options = parser.parse_args()
    lateness = trio.run(measure, options.rounds, options.seconds)
    table = Table(
        title=f"Lateness of a loop beside {CALLS} pure-Python calls",
        caption=f"Medians of {options.rounds} turns, ms; p99 over that of trio within each turn."
        f" Switch interval {sys.getswitchinterval() * 1e3:g} ms. {describe_machine()}",
    )
    for column in ("way", "p50", "p99", "worst", "p99 / trio's", "in the turns"):
        table.add_column(column, justify="left" if column == "way" else "right")
    peer = [percentile(turn, 99) for turn in lateness["trio.to_thread"]]
    for name, turns in lateness.items():
        p99 = [percentile(turn, 99) for turn in turns]
        ratios = [own / other for own, other in zip(p99, peer, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(percentile(turn, 50) for turn in turns):.2f}",
            f"{statistics.median(p99):.2f}",
            f"{max(max(turn) for turn in turns):.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
