"""Fixtures of several tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import dromon


@pytest.fixture
async def isolated_pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(2, isolation="interpreter") as pool:
        yield pool


@pytest.fixture
async def isolated_worker() -> AsyncIterator[dromon.Pool]:
    """A pool of one worker: each call finds what the last one has left."""
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        yield pool


@pytest.fixture(params=["threads", "one worker", "two workers"])
def place(request: pytest.FixtureRequest) -> Iterator[ThreadPoolExecutor]:
    """Where functions run that wait for each other: on threads, or as green threads of workers."""
    workers = {"one worker": 1, "two workers": 2}.get(request.param)
    executor = ThreadPoolExecutor(20) if workers is None else dromon.Executor(workers)
    with executor:
        yield executor


@pytest.fixture
def one_worker() -> Iterator[dromon.Executor]:
    """Where green threads run in the order in which they were submitted, until they wait."""
    with dromon.Executor(1) as executor:
        yield executor
