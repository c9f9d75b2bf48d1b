"""Many calls, interrupted at random moments: each ends in one way, and nothing else is hit.

`DROMON_STRESS` sets how many.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import trio

import dromon

CALLS = int(os.environ.get("DROMON_STRESS", "50000")) // 2  # of each of the two tests
LONGEST = 1e-3  # seconds until an interrupt: enough for most calls
DATA = bytes(2_000)
MORE_DATA = bytes(200_000)  # for these functions of zlib let go of the GIL


class Works:
    """What calls do: each adds to `ends` by itself how it ended, in whatever way that is."""

    def __init__(self) -> None:
        self.ends: list[str] = []  # list.append is one step

    def run(self, work: Callable[[], int]) -> int:
        """Interrupted before it has begun, or when it has ended, a call is not counted here."""
        try:
            result = work()
        except dromon.Interrupted:
            self.ends.append("interrupted")
            raise
        except trio.Cancelled:
            self.ends.append("cancelled")
            raise
        except LookupError:
            self.ends.append("exception")
            raise
        self.ends.append("result")
        return result


def loop() -> int:
    total = 0
    for number in range(400):
        total += number
    return total


def nested(depth: int = 60) -> int:
    return 0 if depth == 0 else 1 + nested(depth - 1)


def generator() -> int:
    def numbers() -> Iterator[int]:
        try:
            yield from range(200)
        finally:
            zlib.crc32(DATA)

    return sum(numbers())


def unwinding() -> int:
    depth = 0
    try:
        depth += 1
        return loop()
    finally:
        depth -= 1
        assert depth <= 0


def fails() -> int:
    raise LookupError(loop())


def in_c() -> int:
    return sum(zlib.crc32(DATA) & 1 for _ in range(20))


def answer() -> int:
    return 7


async def answer_later() -> int:
    await trio.lowlevel.checkpoint()
    return 7


def asks() -> int:
    return dromon.from_thread.run_sync(answer) + dromon.from_thread.run(answer_later)


def asks_through_trio() -> int:
    return trio.from_thread.run_sync(answer) + trio.from_thread.run(answer_later)


def canary(number: int) -> int:
    """Called without interrupt_on_cancel: nothing may ever hit it."""
    return sum(n ^ number for n in range(60))


WORKS = (loop, nested, generator, unwinding, fails, in_c, asks, asks_through_trio)


@pytest.fixture(autouse=True)
def stray(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Exceptions that came up where nobody is to get them."""
    stray: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: stray.append(hook.exc_value))
    monkeypatch.setattr(threading, "excepthook", lambda hook: stray.append(hook.exc_value))
    return stray


@pytest.mark.parametrize("workers", [1, 3])
async def test_each_of_many_interrupted_calls_ends_in_one_way_and_nothing_else_is_hit(
    workers: int, stray: list[object]
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    works, ends = Works(), Counter[str]()
    limiter = trio.CapacityLimiter(workers)
    left = CALLS

    async def one_call(pool: dromon.Pool, work: Callable[[], int]) -> int:
        way = chance.randrange(5)
        if way == 4:
            # No bytecode comes after the C function: what is set meanwhile must be taken back.
            timeout = chance.random() * LONGEST
            result = await pool.run_sync(zlib.crc32, MORE_DATA, timeout=timeout)
            works.ends.append("result")
            return result
        if way == 0:
            return await pool.run_sync(works.run, work, timeout=chance.random() * LONGEST)
        if way == 1:
            return await pool.run_sync(
                works.run, work, timeout=chance.random() * LONGEST, limiter=limiter
            )
        with trio.move_on_after(chance.random() * LONGEST) as scope:
            return await pool.run_sync(works.run, work, interrupt_on_cancel=True)
        assert scope.cancelled_caught
        raise trio.TooSlowError

    async def caller(pool: dromon.Pool) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            number = left
            try:
                await one_call(pool, chance.choice(WORKS))
            except trio.TooSlowError:
                ends["interrupted"] += 1
            except LookupError:
                ends["exception"] += 1
            else:
                ends["result"] += 1
            if number % 4 == 0:
                assert await pool.run_sync(canary, number) == canary(number)

    async with dromon.open_pool(workers=workers) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(workers + 2):
                nursery.start_soon(caller, pool)
        threads = {worker.tid for worker in pool.statistics().workers}
        assert await pool.run_sync(threading.get_native_id) in threads
    inside = Counter(works.ends)
    assert ends.total() == CALLS
    # A call that has counted itself as ended may still be interrupted, and then only so.
    assert inside["result"] >= ends["result"]
    assert inside["exception"] >= ends["exception"]
    assert inside["interrupted"] + inside["cancelled"] <= ends["interrupted"]
    assert inside["interrupted"] > 0
    assert min(ends["result"], ends["exception"]) > 0
    assert stray == []
    assert limiter.borrowed_tokens == 0
