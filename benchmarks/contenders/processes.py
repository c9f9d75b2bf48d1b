"""Peers whose workers are processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import trio

from ..model import Contender
from .loops import in_no_loop
from .threads import dask, joblib
from .ways import ExecutorWay, TrioWay


@asynccontextmanager
async def process_pool_executor(
    workers: int, chunks_each: int | None = None
) -> AsyncIterator[ExecutorWay]:
    with ProcessPoolExecutor(workers) as executor:
        yield ExecutorWay(executor, chunks_each and chunks_each * workers)


@asynccontextmanager
async def loky(workers: int, chunks_each: int | None = None) -> AsyncIterator[ExecutorWay]:
    from loky import ProcessPoolExecutor as Loky

    with Loky(workers) as executor:
        yield ExecutorWay(executor, chunks_each and chunks_each * workers)


@asynccontextmanager
async def trio_parallel(workers: int) -> AsyncIterator[TrioWay]:
    import trio_parallel

    limiter = trio.CapacityLimiter(workers)
    async with trio_parallel.open_worker_context() as context:
        yield TrioWay(partial(context.run_sync, limiter=limiter))


@asynccontextmanager
async def anyio_to_process(workers: int) -> AsyncIterator[TrioWay]:
    from anyio import CapacityLimiter, to_process

    yield TrioWay(partial(to_process.run_sync, limiter=CapacityLimiter(workers)))


EXECUTOR = Contender("ProcessPoolExecutor", process_pool_executor, run=in_no_loop)
LOKY = Contender("loky", loky, run=in_no_loop)
JOBLIB = Contender("joblib, processes", partial(joblib, backend="loky"), run=in_no_loop)
TRIO_PARALLEL = Contender("trio-parallel", trio_parallel)
ANYIO = Contender("anyio.to_process", anyio_to_process)
DASK = Contender("Dask, processes", partial(dask, processes=True), run=in_no_loop)

ALL = [EXECUTOR, LOKY, JOBLIB, TRIO_PARALLEL, ANYIO, DASK]

CHUNKS_EACH = 4
"""How many chunks of a map `multiprocessing.Pool` has for each worker."""

# What does not choose the size of its chunks, with one that is good for maps.
CHUNKED_EXECUTOR = Contender(
    "ProcessPoolExecutor, in chunks",
    partial(process_pool_executor, chunks_each=CHUNKS_EACH),
    run=in_no_loop,
)
CHUNKED_LOKY = Contender("loky, in chunks", partial(loky, chunks_each=CHUNKS_EACH), run=in_no_loop)

MAPS = [*ALL, CHUNKED_EXECUTOR, CHUNKED_LOKY]
