"""What "the same as trio" means: every test in this folder runs on trio and on dromon.

They are written from trio's documentation and from what its threads can be seen to do.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import trio.testing

import dromon
import dromon.testing
from dromon import _options, _pool

# Enough for calls that wait for other calls, whatever the CPUs of the machine.
WORKERS = 8


@pytest.fixture(scope="session")
def large_pool() -> dromon.Pool:
    return _pool.Pool._open(_options.PoolOptions(workers=WORKERS))


@pytest.fixture(params=[trio, dromon], ids=["trio", "dromon"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The library under test: its `to_thread`, `from_thread` and `testing`."""
    tested: ModuleType = request.param
    if tested is dromon:
        monkeypatch.setattr(_pool, "_default_pool", request.getfixturevalue("large_pool"))
    return tested
