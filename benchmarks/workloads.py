"""What the workers run: a module of its own, so that all of them can import it by name."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from functools import cache


def nothing() -> None:
    """A task that costs nothing."""


def nothing_with(_: object) -> None:
    """The same for an item of a map."""


def same(data: bytes) -> bytes:
    """What is sent comes back."""
    return data


def count(times: int) -> int:
    """Work in pure Python."""
    number = 0
    for i in range(times):
        number += i % 7
    return number


def digest(rounds: int) -> None:
    """Work in C that lets go of the GIL, with nothing to copy to where it is done."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)


BLOCK = bytes(1 << 16)


def digest_block() -> None:
    """Some of it whose amount is always the same."""
    hashlib.sha256(BLOCK).digest()


def count_until(deadline: float, begun: str) -> None:
    """The same until a time of the monotonic clock. It adds a byte to a file when it begins."""
    with open(begun, "ab") as file:
        file.write(b"1")
    while time.monotonic() < deadline:
        count(1000)


# ---- How much of it takes how long ---------------------------------------------------------------

# All contenders have to do the same work, so that only the first process finds out how fast it is.
SPEEDS = "DROMON_BENCHMARKS_SPEEDS"


def find_speeds() -> None:
    """Let this process and its children know how fast the functions are, when nothing else runs."""
    counted, hashed = least_seconds(count, 100_000), least_seconds(digest, 10_000)
    os.environ[SPEEDS] = f"{100_000 / counted:.0f} {10_000 / hashed:.0f}"


def least_seconds(function: Callable[[int], object], argument: int) -> float:
    took = []
    for _ in range(20):
        start = time.perf_counter()
        function(argument)
        took.append(time.perf_counter() - start)
    return min(took)


@cache
def times_that_take(seconds: float) -> int:
    """The argument with which `count` takes so long."""
    return max(1, int(seconds * int(os.environ[SPEEDS].split()[0])))


@cache
def rounds_that_take(seconds: float) -> int:
    """The argument with which `digest` takes so long."""
    return max(1, int(seconds * int(os.environ[SPEEDS].split()[1])))
