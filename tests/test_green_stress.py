"""Random trees of green tasks that park, fail, are cancelled and fork: nothing is lost or doubled.

`DROMON_STRESS` sets for how many seconds this goes on.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time

import green_stress_works as works
import pytest
import trio
from green_pools import ISOLATIONS, Isolation

import dromon

SECONDS = float(os.environ.get("DROMON_STRESS", "20"))
SORTS = 2 if sys.version_info >= (3, 12) else 1
TREES = 30  # in a pool
GROWTH_MOST = 48 << 20


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def _grow(pool: dromon.Pool, seed: int, isolation: Isolation) -> None:
    chosen = random.Random(seed)
    seconds = chosen.choice([math.inf, chosen.random() * 0.05])
    with trio.move_on_after(seconds):
        errors = await pool.run_sync(works.grow, seed, isolation == "thread")
        assert errors == [], f"of the tree {seed}"


async def _round(isolation: Isolation) -> None:
    workers = random.choice([1, 2, 4])
    async with dromon.open_pool(workers, isolation=isolation) as pool, trio.open_nursery() as trees:
        for _ in range(TREES):
            trees.start_soon(_grow, pool, random.getrandbits(32), isolation)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_nothing_is_lost_or_doubled_and_memory_is_steady(isolation: Isolation) -> None:
    begin = time.monotonic()
    sizes = []
    while (passed := (time.monotonic() - begin) * SORTS / SECONDS) < 1:
        await _round(isolation)
        if passed > 1 / 3:
            sizes.append(_resident())
    assert not sizes or sizes[-1] - sizes[0] < GROWTH_MOST, sizes
