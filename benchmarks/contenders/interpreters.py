"""Peers whose workers are other interpreters of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..model import Contender, Refused
from .loops import in_no_loop
from .ways import ExecutorWay, TrioWay


@asynccontextmanager
async def anyio_to_interpreter(workers: int) -> AsyncIterator[TrioWay]:
    from anyio import CapacityLimiter, to_interpreter

    limiter = CapacityLimiter(workers)
    turns = trio.CapacityLimiter(workers)  # else it makes an interpreter for each call in flight

    async def run_sync(fn: Callable[..., object], *args: Any) -> object:
        async with turns:
            return await to_interpreter.run_sync(fn, *args, limiter=limiter)

    yield TrioWay(run_sync)


@asynccontextmanager
async def interpreter_pool_executor(workers: int) -> AsyncIterator[ExecutorWay]:
    try:
        from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined]  # 3.14
    except ImportError:
        raise Refused("new in Python 3.14") from None

    with InterpreterPoolExecutor(workers) as executor:
        yield ExecutorWay(executor)


ANYIO = Contender("anyio.to_interpreter", anyio_to_interpreter)
EXECUTOR = Contender("InterpreterPoolExecutor", interpreter_pool_executor, run=in_no_loop)

ALL = [ANYIO, EXECUTOR]
