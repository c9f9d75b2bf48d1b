"""What type checkers are to know of maps; see check_to_thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import outcome

import dromon


def one_argument(number: int) -> bytes:
    raise NotImplementedError


def two_arguments(first: int, second: str) -> float:
    raise NotImplementedError


async def asynchronous(number: int) -> bytes:
    raise NotImplementedError


def progress(done: int, total: int | None) -> None:
    raise NotImplementedError


async def lists(pool: dromon.Pool, numbers: AsyncIterator[int]) -> None:
    assert_type(await pool.map(one_argument, [1, 2]), list[bytes])
    assert_type(await pool.map(one_argument, numbers, chunksize=5, max_in_flight=9), list[bytes])
    assert_type(await pool.map(one_argument, (), chunksize="auto", progress=True), list[bytes])
    assert_type(await pool.starmap(two_arguments, [(1, "2")], progress=progress), list[float])

    await pool.map(one_argument, ["1"])  # type: ignore[arg-type]
    await pool.map(two_arguments, [1])  # type: ignore[arg-type]
    await pool.map(one_argument, [1], chunksize="big")  # type: ignore[arg-type]
    await pool.map(one_argument, [1], progress=one_argument)  # type: ignore[arg-type]
    await pool.starmap(two_arguments, [(1, 2)])  # type: ignore[arg-type]


async def iterators(pool: dromon.Pool, numbers: AsyncIterator[int]) -> None:
    async with pool.open_map(one_argument, numbers, ordered=False) as results:
        assert_type(results, dromon.MapResults[bytes])
        async for result in results:
            assert_type(result, bytes)
    async with pool.open_map(one_argument, [1], return_outcomes=True) as outcomes:
        async for one in outcomes:
            assert_type(one, outcome.Outcome[bytes])

    pool.open_map(one_argument, 1)  # type: ignore[call-overload]
    pool.open_map(one_argument, [1], ordered=None)  # type: ignore[call-overload]
