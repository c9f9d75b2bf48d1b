"""A tree of calls, each of which waits for its children."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

import dromon

from .. import trees
from ..contenders import interpreters, ours, processes, threads
from ..contenders.loops import in_asyncio, in_no_loop
from ..contenders.ways import AsyncioWay, RunSync
from ..model import Contender, Kind, Question, Refused, Timed, Way

DEPTH = 6
CALLS = 2 ** (DEPTH + 1) - 1
STUCK_SECONDS = 3.0

Tree = Callable[[int], Awaitable[object]]
"""Counts the leaves of a tree of this depth."""


class Trees(Way):
    def __init__(self, tree: Tree) -> None:
        self.tree = tree


# ---- Trees of sync calls -------------------------------------------------------------------------


@asynccontextmanager
async def on_pool(workers: int, tree: Callable[[int], int], **options: Any) -> AsyncIterator[Trees]:
    async with dromon.open_pool(workers, **options) as pool:
        run: Tree = partial(pool.run_sync, tree)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            for _ in range(workers):  # each interpreter imports what it needs
                nursery.start_soon(run, DEPTH)
        yield Trees(run)


@asynccontextmanager
async def on_executor(
    workers: int, make: Callable[[int], Executor] = ThreadPoolExecutor
) -> AsyncIterator[Trees]:
    with make(workers) as executor:

        async def tree(depth: int) -> int:
            try:
                return executor.submit(trees.of_futures, executor, depth).result(STUCK_SECONDS)
            except TimeoutError:
                executor.shutdown(wait=False, cancel_futures=True)
                raise Refused("its threads wait for children that no thread is left for") from None

        yield Trees(tree)


@asynccontextmanager
async def on_threads_for_all(_: int) -> AsyncIterator[Trees]:
    async with on_executor(CALLS) as way:
        yield way


@asynccontextmanager
async def on_joblib(workers: int, backend: str) -> AsyncIterator[Trees]:
    async with threads.joblib(workers, backend) as way:

        async def tree(depth: int) -> None:
            await way.calls(1, 1, trees.of_parallels, depth)

        yield Trees(tree)


@asynccontextmanager
async def on_dask(workers: int, **options: Any) -> AsyncIterator[Trees]:
    async with threads.dask(workers, **options) as way:

        async def tree(depth: int) -> None:
            await way.calls(1, 1, trees.of_dask, depth)

        yield Trees(tree)


async def in_this_thread(depth: int) -> int:
    return trees.serial(depth)


@asynccontextmanager
async def plain(_: int) -> AsyncIterator[Trees]:
    yield Trees(in_this_thread)


# ---- Trees of tasks, whose leaves are calls ------------------------------------------------------


async def tree_in_trio(run_sync: RunSync, depth: int) -> int:
    if depth == 0:
        leaves: int = await run_sync(trees.leaf)
        return leaves
    counts = []

    async def child() -> None:
        counts.append(await tree_in_trio(run_sync, depth - 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child)
    return sum(counts)


async def tree_in_asyncio(run_sync: RunSync, depth: int) -> int:
    if depth == 0:
        leaves: int = await run_sync(trees.leaf)
        return leaves
    children = (tree_in_asyncio(run_sync, depth - 1) for _ in range(2))
    return sum(await asyncio.gather(*children))


def in_tasks(contender: Contender) -> Contender:
    @asynccontextmanager
    async def open_way(workers: int) -> AsyncIterator[Trees]:
        async with contender.open(workers) as opened:
            way: Any = opened
            tree = tree_in_asyncio if isinstance(way, AsyncioWay) else tree_in_trio
            yield Trees(partial(tree, way.run_sync))

    loop = "asyncio" if contender.run is in_asyncio else "trio"
    name = f"{loop} tasks, leaves by {contender.name}"
    return Contender(name, open_way, contender.kind, contender.run)


# ---- Those that cannot ---------------------------------------------------------------------------


@asynccontextmanager
async def unable(_: int, why: str) -> AsyncIterator[Trees]:
    raise Refused(why)
    yield


def cannot(contender: Contender, why: str) -> Contender:
    return Contender(contender.name, partial(unable, why=why))


# ---- The question --------------------------------------------------------------------------------


async def grow(way: Trees, count: int) -> None:
    for _ in range(count // CALLS):
        await way.tree(DEPTH)


THREADS_FOR_ALL = Contender(
    f"ThreadPoolExecutor, {CALLS} threads", on_threads_for_all, run=in_no_loop
)

FORK_JOIN = Question(
    name="fork-join",
    title="What does a call cost that waits for calls of its own?",
    about=(
        f"A binary tree of {CALLS} calls: each makes two and adds up what they return, and the"
        f" {2**DEPTH} leaves return 1. The time is that of the tree by the number of calls. Where"
        " calls cannot wait for each other, tasks of an event loop do, and the leaves alone are"
        " calls. Green threads of an isolated worker stay with it, so that these trees have one"
        " worker. joblib runs what is nested deeper than two in the same thread."
    ),
    loads={f"{CALLS} calls": Timed(grow, step=CALLS)},
    contenders=[
        Contender("dromon.green", partial(on_pool, tree=trees.of_green_threads), Kind.OURS),
        Contender("dromon.green.map", partial(on_pool, tree=trees.of_green_maps), Kind.OURS),
        Contender(
            "dromon.green, interpreters",
            partial(on_pool, tree=trees.of_green_threads, isolation="interpreter"),
            Kind.OURS,
        ),
        Contender(
            "dromon.green.map, interpreters",
            partial(on_pool, tree=trees.of_green_maps, isolation="interpreter"),
            Kind.OURS,
        ),
        Contender(
            "dromon.Executor", partial(on_executor, make=dromon.Executor), Kind.OURS, in_no_loop
        ),
        in_tasks(ours.TO_THREAD),
        in_tasks(ours.TO_INTERPRETER),
        THREADS_FOR_ALL,
        Contender("ThreadPoolExecutor", on_executor, run=in_no_loop),
        Contender("joblib, threads", partial(on_joblib, backend="threading"), run=in_no_loop),
        Contender("joblib, processes", partial(on_joblib, backend="loky"), run=in_no_loop),
        Contender("Dask, threads", on_dask, run=in_no_loop),
        Contender("Dask, processes", partial(on_dask, processes=True), run=in_no_loop),
        in_tasks(threads.TRIO),
        in_tasks(threads.ANYIO),
        in_tasks(threads.ASYNCIO),
        in_tasks(interpreters.ANYIO),
        in_tasks(processes.TRIO_PARALLEL),
        in_tasks(processes.ANYIO),
        cannot(threads.GEVENT, "only the thread that made its pool may use it"),
        *(
            cannot(one, "a call does not reach the pool that it runs on")
            for one in (interpreters.EXECUTOR, processes.EXECUTOR, processes.LOKY)
        ),
        Contender("floor: plain recursion", plain, Kind.BOUND, in_no_loop),
    ],
    base=THREADS_FOR_ALL.name,
    rounds=10,
)
