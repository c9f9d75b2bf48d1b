"""Peers whose workers are threads of this interpreter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from ..model import Contender, Way
from .loops import in_asyncio, in_no_loop
from .ways import AsyncioWay, ExecutorWay, TrioWay, share


@asynccontextmanager
async def trio_to_thread(_: int) -> AsyncIterator[TrioWay]:
    yield TrioWay(trio.to_thread.run_sync)


@asynccontextmanager
async def limited_trio_to_thread(workers: int) -> AsyncIterator[TrioWay]:
    limiter = trio.CapacityLimiter(workers)
    yield TrioWay(partial(trio.to_thread.run_sync, limiter=limiter))


@asynccontextmanager
async def anyio_to_thread(_: int) -> AsyncIterator[TrioWay]:
    from anyio import to_thread

    yield TrioWay(to_thread.run_sync)


@asynccontextmanager
async def asyncio_to_thread(_: int) -> AsyncIterator[AsyncioWay]:
    import asyncio

    yield AsyncioWay(asyncio.to_thread)


@asynccontextmanager
async def thread_pool_executor(workers: int) -> AsyncIterator[ExecutorWay]:
    with ThreadPoolExecutor(workers) as executor:
        yield ExecutorWay(executor)


class GeventWay(Way):
    """Calls that greenlets wait for, each making one after the other."""

    def __init__(self, workers: int) -> None:
        from gevent import threadpool

        self.pool = threadpool.ThreadPool(workers)

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        import gevent

        def task(times: int) -> None:
            for _ in range(times):
                self.pool.apply(fn, args)

        if concurrent == 1:
            task(count)
            return
        tasks = [gevent.spawn(task, times) for times in share(count, concurrent)]
        gevent.joinall(tasks, raise_error=True)

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        self.pool.map(fn, items)


@asynccontextmanager
async def gevent_threadpool(workers: int) -> AsyncIterator[GeventWay]:
    way = GeventWay(workers)
    yield way
    way.pool.kill()


class JoblibWay(Way):
    """One `Parallel` for each group of calls, as its documentation has it."""

    def __init__(self, workers: int, backend: str) -> None:
        from joblib import Parallel, delayed

        self.parallel, self.delayed = Parallel(n_jobs=workers, backend=backend), delayed

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        call = self.delayed(fn)(*args)
        with self.parallel:
            while count > 0:
                self.parallel([call] * min(count, concurrent))
                count -= concurrent

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        call = self.delayed(fn)
        with self.parallel:
            self.parallel(call(item) for item in items)


@asynccontextmanager
async def joblib(workers: int, backend: str = "threading") -> AsyncIterator[JoblibWay]:
    yield JoblibWay(workers, backend)


class DaskWay(Way):
    """Futures of a client of a cluster on this machine."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        submit = partial(self.client.submit, fn, *args, pure=False)
        while count > 0:
            self.client.gather([submit() for _ in range(min(count, concurrent))])
            count -= concurrent

    async def map(self, fn: Callable[[Any], object], items: Sequence[Any]) -> None:
        self.client.gather(self.client.map(fn, items, pure=False))


@asynccontextmanager
async def dask(workers: int, processes: bool = False) -> AsyncIterator[DaskWay]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers if processes else 1,
            threads_per_worker=1 if processes else workers,
            processes=processes,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield DaskWay(client)


# The first three as they come, with up to 40 threads or so, and trio's also with as many threads as
# the others have workers.
TRIO = Contender("trio.to_thread", trio_to_thread)
LIMITED_TRIO = Contender("trio.to_thread, as many threads", limited_trio_to_thread)
ANYIO = Contender("anyio.to_thread", anyio_to_thread)
ASYNCIO = Contender("asyncio.to_thread", asyncio_to_thread, run=in_asyncio)
EXECUTOR = Contender("ThreadPoolExecutor", thread_pool_executor, run=in_no_loop)
GEVENT = Contender("gevent threadpool", gevent_threadpool, run=in_no_loop)
JOBLIB = Contender("joblib, threads", joblib, run=in_no_loop)
DASK = Contender("Dask, threads", dask, run=in_no_loop)

ALL = [TRIO, LIMITED_TRIO, ANYIO, ASYNCIO, EXECUTOR, GEVENT, JOBLIB, DASK]
