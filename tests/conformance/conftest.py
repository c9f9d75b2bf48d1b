"""What "the same as trio" means: every test in this folder runs on trio and on dromon.

It also runs on dromon's calls with trio's own `from_thread`, by which code that knows nothing of
dromon gets back into trio.

They are written from trio's documentation and from what its threads can be seen to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import trio.testing

import dromon
import dromon.testing
from dromon import _pool

# Enough for calls that wait for other calls, whatever the CPUs of the machine.
WORKERS = 8


@pytest.fixture(scope="module")
def large_pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(WORKERS) as pool:
        yield pool


def unchanged_code() -> ModuleType:
    """What code that knows only trio finds where it runs on a worker of dromon."""
    mixed = ModuleType("dromon")
    mixed.to_thread = dromon.to_thread  # type: ignore[attr-defined]
    mixed.from_thread = trio.from_thread  # type: ignore[attr-defined]
    mixed.testing = dromon.testing  # type: ignore[attr-defined]
    return mixed


@pytest.fixture(params=["trio", "dromon", "unchanged"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The library under test: its `to_thread`, `from_thread` and `testing`."""
    if request.param == "trio":
        return trio
    monkeypatch.setattr(_pool.thread_pool, "pool", request.getfixturevalue("large_pool"))
    return dromon if request.param == "dromon" else unchanged_code()
