"""Fixtures of several tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
