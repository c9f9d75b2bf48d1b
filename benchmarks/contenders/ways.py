"""The ways that several contenders share: calls in tasks, futures of an executor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import trio

from ..model import Way

RunSync = Callable[..., Awaitable[Any]]


def share(count: int, concurrent: int) -> list[int]:
    """How many of the calls each task makes."""
    return [count // concurrent + (index < count % concurrent) for index in range(concurrent)]


class TaskWay(Way):
    """Calls awaited in the tasks of an event loop, each of which makes one after the other."""

    def __init__(self, run_sync: RunSync) -> None:
        self.run_sync = run_sync

    async def each(self, function: Callable[..., Awaitable[object]], items: Sequence[Any]) -> None:
        """Run an async function for each item, each in a task of its own."""
        raise NotImplementedError

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        async def task(times: int) -> None:
            for _ in range(times):
                await self.run_sync(fn, *args)

        if concurrent == 1:
            await task(count)
            return
        await self.each(task, share(count, concurrent))

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        """In as many tasks as items: there is nothing else."""
        await self.each(partial(self.run_sync, fn), items)


class TrioWay(TaskWay):
    async def each(self, function: Callable[..., Awaitable[object]], items: Sequence[Any]) -> None:
        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(function, item)


class AsyncioWay(TaskWay):
    async def each(self, function: Callable[..., Awaitable[object]], items: Sequence[Any]) -> None:
        await asyncio.gather(*map(function, items))


class ExecutorWay(Way):
    """Futures, waited for in the main thread; so many are submitted, then all are collected."""

    def __init__(self, executor: Executor, chunks: int | None = None) -> None:
        self.executor = executor
        self.chunks = chunks
        """In how many a map goes to the workers; by default each item goes alone."""

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        submit = partial(self.executor.submit, fn, *args)
        while count > 0:
            for future in [submit() for _ in range(min(count, concurrent))]:
                future.result()
            count -= concurrent

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        size = 1 if self.chunks is None else math.ceil(len(items) / self.chunks)
        for _ in self.executor.map(fn, items, chunksize=size):
            pass
