"""Tasks in workers with an interpreter of their own, beside processes and other interpreters.

Four things: tasks of pure Python on several workers, beside bare forked processes that do the same
work; tasks that cost nothing, all at once, one after the other, and as a map; bytes there and back;
and memory that is only looked at. (What such workers leave of the event loop's time shows
lateness.py.) The ways take turns, so that a machine that gets slower or faster gives each the same
share of it; what is compared is the ratio within a turn, and its median is shown. The best peer is
the one with the least median. Beside each load stands a ceiling of
its speed-up, or a floor of its time.

An executor's futures are waited for in a thread where a trio task would have to ("one by one"), and
nowhere else.

    python benchmarks/interpreters.py [--rounds N] [--workers N] [--seconds S]
"""

from __future__ import annotations

import argparse
import os
import signal
import site
import socket
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import work
from calls import describe_machine, thread_hops
from executor import make_futures_alone
from rich.console import Console
from rich.table import Table

import dromon

Call = Callable[..., Awaitable[Any]]

BUSY_TASKS, BUSY_SECONDS = 16, 0.05
IN_FLIGHT = 1000
ITEMS = 20_000
CHUNK_SIZES = (100, 1000, 5000)
MEGABYTE = 1 << 20
VIEWED = {"64 KB": 1 << 16, "1 MB": MEGABYTE, "8 MB": 8 * MEGABYTE, "64 MB": 64 * MEGABYTE}


@dataclass
class Way:
    """How tasks get to some workers."""

    name: str
    call: Call  # one, awaited in a trio task
    start_all: Callable[..., Awaitable[object]]  # (count, fn, *args): all at once, and waits
    call_alone: Call  # one, where nothing else is in the loop
    executor: Executor | None = None

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("dromon")


# ---- The ways ------------------------------------------------------------------------------------


def way_of_calls(name: str, call: Call) -> Way:
    async def start_all(count: int, fn: Callable[..., object], *args: object) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(call, fn, *args)

    return Way(name, call, start_all, call)


def way_of_executor(name: str, executor: Executor) -> Way:
    async def call(fn: Callable[..., object], *args: object) -> object:
        return await trio.to_thread.run_sync(executor.submit(fn, *args).result)

    async def start_all(count: int, fn: Callable[..., object], *args: object) -> None:
        for future in [executor.submit(fn, *args) for _ in range(count)]:
            future.result()

    async def call_alone(fn: Callable[..., object], *args: object) -> object:
        return executor.submit(fn, *args).result()

    return Way(name, call, start_all, call_alone, executor)


@asynccontextmanager
async def processes(workers: int) -> AsyncIterator[Way]:
    with ProcessPoolExecutor(workers) as executor:
        yield way_of_executor("ProcessPoolExecutor", executor)


@asynccontextmanager
async def loky_processes(workers: int) -> AsyncIterator[Way]:
    from loky import ProcessPoolExecutor as Loky

    with Loky(workers) as executor:
        yield way_of_executor("loky", executor)


@asynccontextmanager
async def trio_parallel_processes(workers: int) -> AsyncIterator[Way]:
    import trio_parallel

    limiter = trio.CapacityLimiter(workers)
    async with trio_parallel.open_worker_context() as context:

        async def call(fn: Callable[..., object], *args: object) -> object:
            return await context.run_sync(fn, *args, limiter=limiter)

        yield way_of_calls("trio_parallel", call)


@asynccontextmanager
async def interpreter_executor(workers: int) -> AsyncIterator[Way]:
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined]  # 3.14

    with InterpreterPoolExecutor(
        workers, initializer=site.addsitedir, initargs=(HERE,)
    ) as executor:
        yield way_of_executor("InterpreterPoolExecutor", executor)


@asynccontextmanager
async def anyio_interpreters(workers: int) -> AsyncIterator[Way]:
    from anyio import CapacityLimiter, to_interpreter

    limiter = CapacityLimiter(workers)
    turns = trio.CapacityLimiter(workers)  # else it makes an interpreter for each call in flight

    async def call(fn: Callable[..., object], *args: object) -> object:
        async with turns:
            return await to_interpreter.run_sync(fn, *args, limiter=limiter)

    way = way_of_calls("anyio.to_interpreter", call)
    await way.start_all(workers, site.addsitedir, HERE)  # they do not know where the script is
    yield way


HERE = os.path.dirname(os.path.abspath(__file__))
# Processes first: they fork while there are few threads.
PEERS = {
    "ProcessPoolExecutor": processes,
    "loky": loky_processes,
    "trio_parallel": trio_parallel_processes,
    "anyio.to_interpreter": anyio_interpreters,
    "InterpreterPoolExecutor": interpreter_executor,
}


async def open_peers(stack: AsyncExitStack, workers: int) -> tuple[list[Way], list[str]]:
    """Those that work here, and why others do not."""
    peers, missing = [], []
    for name, opener in PEERS.items():
        try:
            way = await stack.enter_async_context(opener(workers))
            await way.start_all(workers, time.sleep, 0.1)  # on each of the workers
            await way.call(work.nothing)
            peers.append(way)
        except (Exception, ExceptionGroup) as caught:
            error: BaseException = caught
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            missing.append(f"{name}: {error}")
    return peers, missing


# ---- Turns ---------------------------------------------------------------------------------------

# The seconds of each turn, by way.
Times = dict[str, list[float]]


async def take_turns(rounds: int, loads: dict[str, Callable[[], Awaitable[float]]]) -> Times:
    times: Times = defaultdict(list)
    for _ in range(rounds):
        for name, load in loads.items():
            times[name].append(await load())
    return times


async def seconds_of(
    seconds: float, function: Callable[..., Awaitable[object]], *args: Any
) -> float:
    """How long it takes, on average, again and again for so many seconds."""
    start = time.perf_counter()
    number = 0
    while True:
        await function(*args)
        number += 1
        if (spent := time.perf_counter() - start) >= seconds:
            return spent / number


def ratios(times: Times, base: str, name: str) -> str:
    """How many times as fast as `base` it was, in the median of the turns and in all of them."""
    values = [b / value for b, value in zip(times[base], times[name], strict=True)]
    return f"{statistics.median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"


def new_table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in ("load", "way") else "right")
    return table


def add_rows(table: Table, load: str, times: Times, ways: list[Way], tasks: int = 1) -> None:
    medians = {name: statistics.median(values) / tasks for name, values in times.items()}
    peers = [way.name for way in ways if not way.is_ours and way.name in times]
    best = min(peers, key=medians.__getitem__, default=None)
    for name, median in medians.items():
        ratio = "-" if best is None else ratios(times, best, name)
        table.add_row(load, name, f"{median * 1e6:,.2f}", f"{1 / median:,.0f}", ratio)
    table.add_section()


# ---- Work in pure Python -------------------------------------------------------------------------


def times_that_take(seconds: float) -> int:
    """For `work.count`, when nothing else runs."""
    took = []
    for _ in range(9):
        start = time.perf_counter()
        work.count(100_000)
        took.append(time.perf_counter() - start)
    return int(seconds / statistics.median(took) * 100_000)


async def in_this_process(times: int) -> None:
    for _ in range(BUSY_TASKS):
        work.count(times)


@asynccontextmanager
async def forked_processes(workers: int) -> AsyncIterator[Call]:
    """A function by which bare processes count, each its share of the tasks."""
    # Forked before there are interpreters: CPython 3.13.0 cannot fork beside them.
    children, ends = [], []
    for index in range(workers):
        end, other_end = socket.socketpair()
        child = os.fork()
        if child == 0:
            while order := other_end.recv(8):
                for _ in range(index, BUSY_TASKS, workers):
                    work.count(int.from_bytes(order))
                other_end.send(b"done")
            os._exit(0)
        other_end.close()
        children.append(child)
        ends.append(end)

    async def run(times: int) -> None:
        for end in ends:
            end.send(times.to_bytes(8))
        for end in ends:
            end.recv(8)

    yield run
    for end, child in zip(ends, children, strict=True):
        end.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once


async def compare_busy(ways: list[Way], rounds: int, run_in_processes: Call) -> Table:
    alone, ceiling = "one after the other, in this process", "ceiling: bare forked processes"
    times_of_task = times_that_take(BUSY_SECONDS)
    loads: dict[str, Callable[[], Awaitable[float]]] = {
        alone: lambda: seconds_of(0, in_this_process, times_of_task),
        ceiling: lambda: seconds_of(0, run_in_processes, times_of_task),
    }
    for way in ways:
        loads[way.name] = lambda way=way: seconds_of(  # type: ignore[misc]
            0, way.start_all, BUSY_TASKS, work.count, times_of_task
        )
    times = await take_turns(rounds, loads)
    title = f"{BUSY_TASKS} tasks of about {BUSY_SECONDS * 1e3:.0f} ms of pure Python"
    table = new_table(
        title, "way", "ms", "speed-up (in the turns)", "of the ceiling (in the turns)"
    )
    for name, values in times.items():
        median = f"{statistics.median(values) * 1e3:,.0f}"
        table.add_row(name, median, ratios(times, alone, name), ratios(times, ceiling, name))
    return table


# ---- Tasks that cost nothing ---------------------------------------------------------------------


async def compare_empty(ways: list[Way], rounds: int, seconds: float) -> Table:
    table = new_table(
        "Empty tasks",
        "load",
        "way",
        "µs a task",
        "tasks a second",
        "times the best peer (in the turns)",
    )

    async def futures_alone() -> None:
        make_futures_alone(0, IN_FLIGHT)

    async def checkpoint(_: object) -> None:
        await trio.lowlevel.checkpoint()

    trio_tasks = way_of_calls("floor: trio tasks alone", checkpoint)

    def all_at_once(way: Way) -> Callable[[], Awaitable[float]]:
        return lambda: seconds_of(seconds, way.start_all, IN_FLIGHT, work.nothing)

    def one(call: Call) -> Callable[[], Awaitable[float]]:
        return lambda: seconds_of(seconds, call, work.nothing)

    loads = {way.name: all_at_once(way) for way in ways}
    loads["floor: standard futures alone"] = lambda: seconds_of(seconds, futures_alone)
    loads[trio_tasks.name] = all_at_once(trio_tasks)
    add_rows(table, f"{IN_FLIGHT:,} at once", await take_turns(rounds, loads), ways, IN_FLIGHT)
    async with thread_hops() as hop:
        loads = {way.name: one(way.call) for way in ways}
        loads["floor: bare eventfd hops"] = lambda: seconds_of(seconds, hop)
        add_rows(table, "one by one", await take_turns(rounds, loads), ways)
    return table


async def compare_maps(ways: list[Way], rounds: int, pool: dromon.Pool) -> Table:
    table = new_table(
        "Maps of empty items",
        "load",
        "way",
        "µs an item",
        "items a second",
        "times the best peer (in the turns)",
    )

    def executor_map(executor: Executor, size: int) -> Callable[[], Awaitable[float]]:
        async def run() -> None:
            for _ in executor.map(work.nothing_with, range(ITEMS), chunksize=size):
                pass

        return lambda: seconds_of(0, run)

    maps: dict[str, Callable[[], Awaitable[float]]] = {}
    for way in ways:
        if (executor := way.executor) is None:
            continue
        took = {size: await executor_map(executor, size)() for size in CHUNK_SIZES}
        maps[way.name] = executor_map(executor, min(took, key=took.__getitem__))
    maps["dromon pool.map"] = lambda: seconds_of(0, pool.map, work.nothing_with, range(ITEMS))
    add_rows(table, f"{ITEMS:,} items", await take_turns(rounds, maps), ways, ITEMS)
    return table


# ---- Data ----------------------------------------------------------------------------------------


async def compare_data(ways: list[Way], rounds: int, seconds: float) -> Table:
    table = new_table(
        "Data", "load", "way", "µs a call", "calls a second", "times the best peer (in the turns)"
    )
    data = bytes(MEGABYTE)

    async def copy_twice() -> None:
        bytes(memoryview(bytes(memoryview(data))))

    loads: dict[str, Callable[[], Awaitable[float]]] = {}
    for way in ways:
        loads[way.name] = lambda way=way: seconds_of(seconds, way.call_alone, work.same, data)  # type: ignore[misc]
    loads["floor: two copies"] = lambda: seconds_of(seconds, copy_twice)
    add_rows(table, "1 MB there and back", await take_turns(rounds, loads), ways)
    async with thread_hops() as hop:
        for size_name, size in VIEWED.items():
            memory = bytearray(size)
            loads = {}
            for way in ways:
                argument: object = memoryview(memory)
                try:
                    await way.call_alone(len, argument)
                except Exception:
                    argument = bytes(memory)  # it cannot send views
                loads[way.name] = lambda way=way, argument=argument: seconds_of(  # type: ignore[misc]
                    seconds, way.call_alone, len, argument
                )
            loads["floor: bare eventfd hops"] = lambda: seconds_of(seconds, hop)
            add_rows(table, f"{size_name} looked at", await take_turns(rounds, loads), ways)
    return table


# ---- All of it -----------------------------------------------------------------------------------


async def compare(console: Console, rounds: int, workers: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        run_in_processes = await stack.enter_async_context(forked_processes(workers))
        peers, missing = await open_peers(stack, workers)
        executor = stack.enter_context(dromon.Executor(workers, isolation="interpreter"))
        pool = await stack.enter_async_context(
            dromon.open_pool(workers, isolation="interpreter", queue_capacity=4096)
        )
        tasks = way_of_calls("dromon pool.run_sync", pool.run_sync)
        futures = way_of_executor("dromon.Executor", executor)
        ways = [*peers, tasks, futures]
        for way in (tasks, futures):
            await way.start_all(workers, time.sleep, 0.1)
        console.print(await compare_busy(ways, rounds, run_in_processes))
        console.print(await compare_empty(ways, rounds, seconds))
        console.print(await compare_maps(ways, rounds, pool))
        console.print(await compare_data(ways, rounds, seconds))
    for reason in missing:
        console.print(f"Left out: {reason}")
    console.print(f"{workers} workers. Medians of {rounds} turns. {describe_machine()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns (default: %(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cpus, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="of a load in a turn (default: %(default)s)"
    )
    options = parser.parse_args()
    if sys.version_info < (3, 12):
        print("Interpreters with a GIL of their own need Python 3.12 or later.")
        return
    # The children only compute and exit, so they need nothing that other threads hold.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    console = Console(width=None if sys.stdout.isatty() else 110)
    trio.run(compare, console, options.rounds, options.workers, options.seconds)


if __name__ == "__main__":
    main()
