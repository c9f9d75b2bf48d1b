"""How each cost grows with workers (1 to 256) and with tasks (to 10 million queued).

Every point is measured in a process of its own, and the medians of its rounds go into a file, from
which simulation.py takes its costs. A series that is measured anew replaces the one in the file.
Beyond the CPUs of the machine the workers take turns: what is memory, mappings, system calls or a
count holds anywhere, and what is a time holds for an oversubscribed machine.

    python -m benchmarks.scaling [--rounds N] [SERIES ...]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import trio
from rich.console import Console
from rich.table import Table

import dromon
from benchmarks import programs
from benchmarks.machine import processor, resident
from benchmarks.workloads import digest_block, nothing
from dromon import green

if TYPE_CHECKING:
    from collections.abc import Callable

Figures = dict[str, float]
"""What was measured at one point, by name."""
Series = dict[int, Figures]
"""The points, by their size."""

WORKERS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
TASKS = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]

T = TypeVar("T")


def in_new_process(function: Callable[..., T], *arguments: object) -> T:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as processes:
        return processes.submit(function, *arguments).result()


# ---- In C ----------------------------------------------------------------------------------------


PRIMITIVES = {
    "queues": [
        "one read-modify-write",
        "ring push + pop",
        "deque push + pop",
        "steal",
        "take of an empty port",
        "a word to another CPU",
        "steal beside a busy owner",
    ],
    "handoff": [
        "futex ping-pong, one CPU",
        "handoff, one CPU",
        "futex ping-pong, two CPUs",
        "handoff, two CPUs",
        "handoff with search, two CPUs",
    ],
}
"""The programs, and what each of them is asked for."""


def measure_primitives(_: int) -> Figures:
    """The costs of which all others are made."""
    figures: Figures = {}
    for program, things in PRIMITIVES.items():
        for thing in things:
            for name, value in programs.run(program, thing).items():
                figures[thing if name == "ns" else f"{thing}, {name}"] = value
    return figures


# ---- What a process holds ------------------------------------------------------------------------


def mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


def available_memory() -> int:
    with open("/proc/meminfo") as meminfo:
        sizes = dict(line.split(":") for line in meminfo)
    return int(sizes["MemAvailable"].split()[0]) * 1024


class Span:
    """What has passed, and what the process has got, since a moment."""

    def __init__(self) -> None:
        self.memory = resident()
        self.mappings = mappings()
        self.cpu = time.process_time()
        self.own_cpu = time.thread_time()
        self.start = time.perf_counter()

    def nanoseconds(self) -> float:
        return (time.perf_counter() - self.start) * 1e9

    def cpu_nanoseconds(self) -> float:
        return (time.process_time() - self.cpu) * 1e9

    def own_cpu_nanoseconds(self) -> float:
        return (time.thread_time() - self.own_cpu) * 1e9

    def bytes(self) -> int:
        return resident() - self.memory

    def new_mappings(self) -> int:
        return mappings() - self.mappings


# ---- Workers -------------------------------------------------------------------------------------


def await_parked(pool: dromon.Pool) -> None:
    while (now := pool.statistics()).parked < len(now.workers):
        time.sleep(0.0001)


def time_of_one(pool: dromon.Pool) -> float:
    """A call, when all workers sleep."""
    times = []
    for _ in range(100):
        await_parked(pool)
        span = Span()
        pool.submit(nothing).result()
        times.append(span.nanoseconds())
    return statistics.median(times)


async def stream(pool: dromon.Pool, function: Callable[[], None], calls: int) -> Figures:
    """Calls of trio tasks, of which 256 are under way."""

    async def run(count: int) -> None:
        for _ in range(count):
            await pool.run_sync(function)

    await run(1)
    span = Span()
    async with trio.open_nursery() as nursery:
        for _ in range(256):
            nursery.start_soon(run, calls // 256)
    calls = calls // 256 * 256
    return {
        "": span.nanoseconds() / calls,
        ", CPU of the loop": span.own_cpu_nanoseconds() / calls,
        ", CPU of all": span.cpu_nanoseconds() / calls,
    }


def measure_waits(workers: int) -> Figures:
    """A green thread parks, its worker falls asleep, and another thread lets it go on."""
    events = [(green.Event(), green.Event()) for _ in range(500)]

    def wait() -> None:
        for arrived, event in events:
            arrived.set()
            event.wait()

    with dromon.Pool(workers) as pool:
        await_parked(pool)
        future = pool.submit(wait)
        whole, sets = Span(), 0.0
        for arrived, event in events:
            arrived.wait()
            await_parked(pool)
            one = Span()
            event.set()
            sets += one.nanoseconds()
        future.result()
        of_workers = whole.cpu_nanoseconds() - whole.own_cpu_nanoseconds()
    return {"set": sets / len(events), "CPU of all workers": of_workers / len(events)}


def measure_python_workers(workers: int, isolation: Literal["thread", "interpreter"]) -> Figures:
    figures: Figures = {}

    async def run() -> None:
        span = Span()
        async with dromon.open_pool(workers=workers, isolation=isolation) as pool:
            figures["open, each worker"] = span.nanoseconds() / workers
            await_parked(pool)
            figures["memory, bytes each worker"] = span.bytes() / workers
            figures["mappings, each worker"] = span.new_mappings() / workers
            figures["one call"] = time_of_one(pool)
            for function, calls in [(nothing, 25_600), (digest_block, 5_120)]:
                for name, value in (await stream(pool, function, calls)).items():
                    figures[f"stream of {function.__name__}{name}"] = value
            await_parked(pool)
            span = Span()
        figures["close, each worker"] = span.nanoseconds() / workers

    span = Span()
    for _ in range(500):
        digest_block()
    figures["digest_block alone"] = span.nanoseconds() / 500
    trio.run(run)
    return figures


# ---- Tasks ---------------------------------------------------------------------------------------


def measure_futures(count: int) -> Figures:
    """Calls that an executor has queued while its worker was held."""
    collecting, began = 0.0, 0.0

    def note_collection(phase: str, _: object) -> None:
        nonlocal collecting, began
        if phase == "start":
            began = time.perf_counter()
        else:
            collecting += time.perf_counter() - began

    gate = threading.Lock()
    gate.acquire()
    futures: list[object] = [None] * count
    with dromon.Executor(1) as executor:
        executor.submit(gate.acquire)
        gc.callbacks.append(note_collection)
        span = Span()
        for i in range(count):
            futures[i] = executor.submit(nothing)
        figures = {
            "submit": span.nanoseconds() / count,
            "of it in collections": collecting * 1e9 / count,
            "bytes each": span.bytes() / count,
        }
        gc.callbacks.remove(note_collection)
        span = Span()
        gc.collect()
        figures["one full collection"] = span.nanoseconds()
        span = Span()
        gate.release()
        last = executor.submit(nothing)
        last.result()
        figures["drain"] = span.nanoseconds() / count
    return figures


def measure_map(count: int) -> Figures:
    """The items of one map on two workers, which reads them as it needs them."""

    async def run() -> Figures:
        async with dromon.open_pool(workers=2) as pool:
            span = Span()
            async with pool.open_map(abs, iter(range(count))) as results:
                async for _ in results:
                    pass
            return {"each item": span.nanoseconds() / count, "bytes in all": span.bytes()}

    return trio.run(run)


def measure_parked(count: int) -> Figures:
    """Green threads on two workers that wait for one event."""
    arrived, gate = threading.Semaphore(0), green.Event()

    def wait() -> None:
        arrived.release()
        gate.wait()

    with dromon.Executor(2) as executor:
        executor.submit(nothing).result()
        span = Span()
        futures = [executor.submit(wait) for _ in range(count)]
        for _ in futures:
            arrived.acquire()
        figures = {
            "park": span.nanoseconds() / count,
            "bytes each": span.bytes() / count,
            "mappings each": span.new_mappings() / count,
        }
        span = Span()
        gate.set()
        for future in futures:
            future.result()
        figures["go on"] = span.nanoseconds() / count
    return figures


def medians(turns: list[Figures]) -> Figures:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


# ---- All of it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What is measured for each of the sizes."""

    title: str
    sizes: list[int]
    measure: Callable[[int], Figures]
    bytes_each: int = 0
    """How much memory it takes for each of the size, about: too large ones are left out."""

    def run(self, rounds: int) -> Series:
        most = available_memory() // 2
        sizes = [size for size in self.sizes if size * self.bytes_each <= most]
        turns = [{size: self.measure(size) for size in sizes} for _ in range(rounds)]
        return {size: medians([turn[size] for turn in turns]) for size in sizes}


def all_loads() -> dict[str, Load]:
    def elsewhere(function: Callable[..., Figures], *arguments: object) -> Callable[[int], Figures]:
        return lambda size: in_new_process(function, size, *arguments)

    def queued(workers: int) -> Callable[[int], Figures]:
        return lambda size: programs.run("queued", size, workers)

    python_workers = partial(elsewhere, measure_python_workers)
    return {
        "primitives": Load("Primitives", [1], measure_primitives),
        "native": Load("Native tasks, by workers", WORKERS, partial(programs.run, "workers")),
        "python": Load("Calls, by workers", WORKERS, python_workers("thread")),
        "isolated": Load(
            "Isolated workers", WORKERS, python_workers("interpreter"), bytes_each=20_000_000
        ),
        "waits": Load("One wait, by workers", WORKERS, elsewhere(measure_waits)),
        "queued-1": Load("Queued native tasks, one worker", TASKS, queued(1), bytes_each=100),
        "queued-2": Load("Queued native tasks, two workers", TASKS, queued(2), bytes_each=100),
        "futures": Load("An executor's queue", TASKS, elsewhere(measure_futures), bytes_each=1000),
        "map": Load("One map, by items", TASKS[:-1], elsewhere(measure_map)),
        "parked": Load(
            "Parked green threads",
            [1_000, 10_000, 20_000, 40_000, 49_000],
            elsewhere(measure_parked),
            bytes_each=50_000,
        ),
    }


def describe_machine() -> str:
    cpus = len(os.sched_getaffinity(0))
    kernel, python = platform.release(), platform.python_version()
    return f"{processor()}, {cpus} CPUs, Linux {kernel}, Python {python}"


def read_figures(path: Path) -> dict[str, Series]:
    """What was measured, and kept in a file."""
    loaded = json.loads(path.read_text())["series"]
    return {
        name: {int(size): figures for size, figures in series.items()}
        for name, series in loaded.items()
    }


def keep(path: Path, name: str, series: Series) -> None:
    kept = read_figures(path) if path.exists() else {}
    rounded = {
        size: {what: float(f"{value:.4g}") for what, value in figures.items()}
        for size, figures in series.items()
    }
    text = json.dumps({"machine": describe_machine(), "series": kept | {name: rounded}}, indent=1)
    path.write_text(text + "\n")


def show(console: Console, load: Load, series: Series) -> None:
    table = Table(title=load.title, caption=f"Nanoseconds, or as named. {describe_machine()}")
    table.add_column("")
    for size in series:
        table.add_column(f"{size:,}", justify="right")
    for name in series[max(series)]:
        cells = (figures.get(name) for figures in series.values())
        table.add_row(name, *("" if value is None else f"{value:,.4g}" for value in cells))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--figures", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--rounds", type=int, default=3, help="turns (default: %(default)s)")
    parser.add_argument("series", nargs="*", help="which to measure (default: all)")
    arguments = parser.parse_args()
    logging.getLogger("dromon").setLevel(logging.ERROR)  # that there is much to do is meant so
    loads = all_loads()
    console = Console(width=None if sys.stdout.isatty() else 160)
    for name in arguments.series or loads:
        series = loads[name].run(arguments.rounds)
        keep(arguments.figures, name, series)
        show(console, loads[name], series)


if __name__ == "__main__":
    main()
