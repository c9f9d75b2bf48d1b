"""dromon, by each of its faces."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import dromon

from ..model import Contender, Kind, Refused
from .loops import in_no_loop
from .ways import ExecutorWay, TrioWay


class PoolWay(TrioWay):
    """A pool that was opened in trio."""

    def __init__(self, pool: dromon.Pool) -> None:
        super().__init__(pool.run_sync)
        self.pool = pool

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        await self.pool.map(fn, items)


class OpenMapWay(PoolWay):
    """A map whose results are gone through while it runs."""

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        async with self.pool.open_map(fn, items) as results:
            async for _ in results:
                pass


def need_interpreters() -> None:
    if sys.version_info < (3, 12):
        raise Refused("interpreters with a GIL of their own need Python 3.12 or later")


def keep_quiet() -> None:
    """That there is much to do is meant so."""
    logging.getLogger("dromon").setLevel(logging.ERROR)


@asynccontextmanager
async def to_thread(workers: int) -> AsyncIterator[TrioWay]:
    keep_quiet()
    dromon.configure_default_pool(workers=workers)
    yield TrioWay(dromon.to_thread.run_sync)


@asynccontextmanager
async def to_interpreter(workers: int) -> AsyncIterator[TrioWay]:
    need_interpreters()
    keep_quiet()
    dromon.configure_default_pool(workers=workers, isolation="interpreter")
    yield TrioWay(dromon.to_interpreter.run_sync)


@asynccontextmanager
async def pool(
    workers: int, way: Callable[[dromon.Pool], PoolWay] = PoolWay
) -> AsyncIterator[PoolWay]:
    keep_quiet()
    async with dromon.open_pool(workers) as pool:
        yield way(pool)


@asynccontextmanager
async def isolated_pool(
    workers: int, way: Callable[[dromon.Pool], PoolWay] = PoolWay
) -> AsyncIterator[PoolWay]:
    need_interpreters()
    keep_quiet()
    async with dromon.open_pool(workers, isolation="interpreter") as pool:
        yield way(pool)


@asynccontextmanager
async def executor(workers: int) -> AsyncIterator[ExecutorWay]:
    keep_quiet()
    with dromon.Executor(workers) as executor:
        yield ExecutorWay(executor)


@asynccontextmanager
async def isolated_executor(workers: int) -> AsyncIterator[ExecutorWay]:
    need_interpreters()
    keep_quiet()
    with dromon.Executor(workers, isolation="interpreter") as executor:
        yield ExecutorWay(executor)


TO_THREAD = Contender("dromon.to_thread", to_thread, Kind.OURS)
TO_INTERPRETER = Contender("dromon.to_interpreter", to_interpreter, Kind.OURS)
POOL = Contender("dromon pool.map", pool, Kind.OURS)
OPEN_MAP = Contender("dromon pool.open_map", partial(pool, way=OpenMapWay), Kind.OURS)
ISOLATED_POOL = Contender("dromon pool.map, interpreters", isolated_pool, Kind.OURS)
ISOLATED_OPEN_MAP = Contender(
    "dromon pool.open_map, interpreters", partial(isolated_pool, way=OpenMapWay), Kind.OURS
)
EXECUTOR = Contender("dromon.Executor", executor, Kind.OURS, in_no_loop)
ISOLATED_EXECUTOR = Contender(
    "dromon.Executor, interpreters", isolated_executor, Kind.OURS, in_no_loop
)
