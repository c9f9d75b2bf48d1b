"""Empty tasks through an executor: dromon beside concurrent.futures, in one run.

Each turn submits tasks and then collects their results, with both executors after each other and as
many workers; what is compared is the ratio within a turn, and its median is shown. Beside them
stand, in one thread, the standard library's futures, made, set and read without any executor, and a
ceiling: each call in a context of its own, which is what would be left if futures, queues, threads
and their switches cost nothing.

    python benchmarks/executor.py [--rounds N] [--tasks N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

from calls import describe_machine
from rich.console import Console
from rich.table import Table

import dromon

if TYPE_CHECKING:
    from collections.abc import Callable

PEER, OURS = "ThreadPoolExecutor", "dromon.Executor"
FUTURES, CEILING = "standard futures alone", "ceiling: calls in contexts"


def nothing() -> None:
    """The function that all tasks run."""


# ---- Ways: each returns microseconds per task ----------------------------------------------------


def submit_and_collect(kind: type[ThreadPoolExecutor], workers: int, tasks: int) -> float:
    with kind(workers) as executor:
        executor.submit(nothing).result()  # now its threads are there
        start = time.perf_counter()
        futures = [executor.submit(nothing) for _ in range(tasks)]
        for future in futures:
            future.result()
        return (time.perf_counter() - start) / tasks * 1e6


def make_futures_alone(_: int, tasks: int) -> float:
    start = time.perf_counter()
    futures: list[Future[None]] = [Future() for _ in range(tasks)]
    for future in futures:
        future.set_running_or_notify_cancel()
        nothing()
        future.set_result(None)
    for future in futures:
        future.result()
    return (time.perf_counter() - start) / tasks * 1e6


def call_in_contexts(_: int, tasks: int) -> float:
    start = time.perf_counter()
    for _ in range(tasks):
        copy_context().run(nothing)
    return (time.perf_counter() - start) / tasks * 1e6


WAYS: dict[str, Callable[[int, int], float]] = {
    PEER: lambda workers, tasks: submit_and_collect(ThreadPoolExecutor, workers, tasks),
    OURS: lambda workers, tasks: submit_and_collect(dromon.Executor, workers, tasks),
    FUTURES: make_futures_alone,
    CEILING: call_in_contexts,
}


# ---- The comparison ------------------------------------------------------------------------------


def compare(table: Table, rounds: int, tasks: int) -> None:
    for workers in (1, 2, 4):
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for name, way in WAYS.items():
                times[name].append(way(workers, tasks))
        for name, values in times.items():
            ratios = [peer / value for peer, value in zip(times[PEER], values, strict=True)]
            median = statistics.median(values)
            table.add_row(
                str(workers),
                name,
                f"{median:.2f}",
                f"{1e6 / median:,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        table.add_section()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument(
        "--tasks", type=int, default=100_000, help="of a turn (default: %(default)s)"
    )
    options = parser.parse_args()
    table = Table(
        title=f"{options.tasks:,} empty tasks, submitted and collected",
        caption=f"Medians of {options.rounds} turns. {describe_machine()}",
    )
    for column in (
        "workers",
        "way",
        "µs a task",
        "tasks a second",
        "times the peer",
        "in the turns",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    compare(table, options.rounds, options.tasks)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
