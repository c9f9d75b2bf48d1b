"""Empty calls from trio tasks: dromon beside trio.to_thread, in one run.

Two loads: 100 tasks that call all the time, and one task that makes one call after the other. The
ways take turns, so that a machine that gets slower or faster gives each the same share of it; what
is compared is the ratio within a turn, and its median is shown. Beside each load stands a ceiling:
what would be left if the calls themselves cost nothing.

    python benchmarks/calls.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from rich.console import Console
from rich.table import Table
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Call = Callable[[], Awaitable[Any]]

TASKS = 100


def nothing() -> None:
    """The function that all calls run."""


# ---- Loads: each returns microseconds per call ---------------------------------------------------


async def many_tasks(call: Call, calls: int) -> float:
    each = max(1, calls // TASKS)

    async def task() -> None:
        for _ in range(each):
            await call()

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(task)
    return (time.perf_counter() - start) / (each * TASKS) * 1e6


async def one_task(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - start) / calls * 1e6


# ---- Ceilings ------------------------------------------------------------------------------------


@asynccontextmanager
async def task_switches() -> AsyncIterator[Call]:
    """A task that sleeps, and is woken by another one: what trio itself needs for any call."""
    sleeping: list[Task] = []

    async def wake() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            tasks = sleeping.copy()
            sleeping.clear()
            for task in tasks:
                reschedule(task)

    async def sleep() -> None:
        sleeping.append(current_task())
        await wait_task_rescheduled(lambda _: Abort.FAILED)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake)
        yield sleep
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def thread_hops() -> AsyncIterator[Call]:
    """To another thread and back, with nothing but an eventfd each way and no event loop."""
    there, back = os.eventfd(0), os.eventfd(0)
    stop = False

    def echo() -> None:
        while os.eventfd_read(there) and not stop:
            os.eventfd_write(back, 1)

    async def hop() -> None:
        os.eventfd_write(there, 1)
        os.eventfd_read(back)

    thread = threading.Thread(target=echo)
    thread.start()
    yield hop
    stop = True
    os.eventfd_write(there, 1)
    thread.join()
    os.close(there)
    os.close(back)


# ---- The comparison ------------------------------------------------------------------------------


async def trio_call() -> None:
    await trio.to_thread.run_sync(nothing)


async def dromon_call() -> None:
    await dromon.to_thread.run_sync(nothing)


PEER, OURS = "trio.to_thread.run_sync", "dromon.to_thread.run_sync"

# (title, load, name of the ceiling, ceiling, calls of the peer, calls of the others)
COMPARISONS = [
    ("100 tasks", many_tasks, "ceiling: trio task switches", task_switches, 2000, 10_000),
    ("one task", one_task, "ceiling: bare eventfd hops", thread_hops, 1000, 2000),
]


async def compare(table: Table, rounds: int) -> None:
    for title, load, ceiling_name, open_ceiling, peer_calls, calls in COMPARISONS:
        times: dict[str, list[float]] = defaultdict(list)
        async with open_ceiling() as ceiling:
            for _ in range(rounds):
                times[PEER].append(await load(trio_call, peer_calls))
                times[OURS].append(await load(dromon_call, calls))
                times[ceiling_name].append(await load(ceiling, calls))
        for name, values in times.items():
            ratios = [peer / value for peer, value in zip(times[PEER], values, strict=True)]
            median = statistics.median(values)
            table.add_row(
                title,
                name,
                f"{median:.1f}",
                f"{1e6 / median:,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        table.add_section()


def describe_machine() -> str:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return (
        f"CPython {platform.python_version()}, GIL {'on' if gil else 'off'}, trio"
        f" {trio.__version__}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns (default: %(default)s)")
    rounds: int = parser.parse_args().rounds
    table = Table(title="Empty calls", caption=f"Medians of {rounds} turns. {describe_machine()}")
    for column in ("load", "way", "µs a call", "calls a second", "times trio", "in the turns"):
        table.add_column(column, justify="left" if column in ("load", "way") else "right")
    trio.run(compare, table, rounds)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
