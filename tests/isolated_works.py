"""What calls of test_isolated_stress do in isolated workers, where this is light to import.

Each call has a number, and adds to the byte of that number in memory that all interpreters map: so
it shows what ran twice, and what ran that should not.
"""

from __future__ import annotations

import gc
import mmap
import time
import zlib
from dataclasses import dataclass
from typing import Any

import dromon

runs: mmap.mmap


def open_runs(path: str) -> None:
    global runs
    with open(path, "r+b") as file:
        runs = mmap.mmap(file.fileno(), 0)
    assert runs.find(b"\1") < 0  # and all its pages are there, before memory is looked at


@dataclass
class Value:
    """One that travels by pickle."""

    number: int
    rest: object


class Stays:
    def __reduce__(self) -> str:
        raise TypeError("this does not travel")


class StaysError(Exception):
    """What cannot travel, and arrives as a RemoteError."""


def echo(number: int, value: object) -> object:
    runs[number] += 1
    return value


def loop(number: int, turns: int) -> int:
    runs[number] += 1
    total = 0
    for n in range(turns):
        total += n ^ number
    return total


def unwinding(number: int) -> int:
    runs[number] += 1
    depth = 0
    try:
        depth += 1
        return sum(n ^ number for n in range(200))
    finally:
        depth -= 1
        assert depth == 0


def survives(number: int) -> tuple[str, int]:
    try:
        runs[number] += 1
        return "unhurt", sum(n & 1 for n in range(1_000))
    except dromon.Interrupted:
        return "hurt", number


def checksum(number: int, view: memoryview) -> int:
    runs[number] += 1
    assert view.readonly
    return zlib.crc32(view)


def invert(number: int, view: memoryview) -> int:
    runs[number] += 1
    for at in range(len(view)):
        view[at] ^= 0xFF
    return len(view)


def view_back(number: int, view: memoryview, start: int) -> memoryview:
    """A view of the part of another interpreter's memory that begins there."""
    runs[number] += 1
    return view[start:]


def own_view(number: int, size: int) -> memoryview:
    runs[number] += 1
    return memoryview(pattern(number, size))


def pattern(number: int, size: int) -> bytes:
    return number.to_bytes(4, "little") * (size // 4)


def fails(number: int) -> object:
    runs[number] += 1
    try:
        raise KeyError(number)
    except KeyError as cause:
        error = LookupError(number, b"data")
        error.add_note(f"note {number}")
        raise error from cause


def fails_here(number: int) -> object:
    runs[number] += 1
    raise StaysError(Stays(), number)


def returns_what_stays(number: int) -> object:
    runs[number] += 1
    return Stays()


def call(item: tuple[Any, ...]) -> object:
    function, *arguments = item
    return function(*arguments)


# ---- Questions: `answer` and those after it run in the main interpreter ----


def asks(number: int, at: int) -> int:
    runs[number] += 1
    dromon.from_thread.check_cancelled()
    return dromon.from_thread.run_sync(answer, at) + 1


def asks_async(number: int, at: int) -> int:
    runs[number] += 1
    return dromon.from_thread.run(answer_later, at) + 1


def asks_in_vain(number: int, at: int) -> object:
    runs[number] += 1
    return dromon.from_thread.run_sync(refuse, at)


def answer(at: int) -> int:
    runs[at] += 1
    return at


async def answer_later(at: int) -> int:
    import trio

    await trio.lowlevel.checkpoint()
    return answer(at)


def refuse(at: int) -> object:
    runs[at] += 1
    raise LookupError(at)


def meet(first: int, count: int, index: int, turn: int) -> None:
    """Be one of as many calls as there are workers, each of which waits until all have begun."""
    runs[first + index] = turn
    while any(byte != turn for byte in runs[first : first + count]):
        time.sleep(1e-4)
    gc.collect()
