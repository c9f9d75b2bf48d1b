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


class TrioWay(Way):
    """Calls awaited in trio tasks, each of which makes one after the other."""

    def __init__(self, run_sync: RunSync) -> None:
        self.run_sync = run_sync

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        async def task(times: int) -> None:
            for _ in range(times):
                await self.run_sync(fn, *args)

        if concurrent == 1:
            await task(count)
            return
        async with trio.open_nursery() as nursery:
            for times in share(count, concurrent):
                nursery.start_soon(task, times)

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        """In as many tasks as items: there is nothing else."""
        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(self.run_sync, fn, item)


class AsyncioWay(Way):
    """The same in asyncio's tasks."""

    def __init__(self, run_sync: RunSync) -> None:
        self.run_sync = run_sync

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        async def task(times: int) -> None:
            for _ in range(times):
                await self.run_sync(fn, *args)

        if concurrent == 1:
            await task(count)
            return
        await asyncio.gather(*map(task, share(count, concurrent)))

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        await asyncio.gather(*(self.run_sync(fn, item) for item in items))


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
