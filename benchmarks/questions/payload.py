"""Bytes that travel to the workers and back, and bytes that the workers only look at."""

from __future__ import annotations

from functools import cache, partial

from ..contenders import bounds, interpreters, ours, processes, threads
from ..model import Question, Timed, Way
from ..workloads import same

SIZES = {
    "0 B": 0,
    "1 KB": 1 << 10,
    "64 KB": 1 << 16,
    "1 MB": 1 << 20,
    "8 MB": 8 << 20,
    "64 MB": 64 << 20,
}

CONTENDERS = [
    ours.TO_INTERPRETER,
    ours.ISOLATED_EXECUTOR,
    ours.TO_THREAD,
    threads.TRIO,
    threads.EXECUTOR,
    *interpreters.ALL,
    *processes.ALL,
]


@cache
def data_of(size: int) -> bytes:
    return b"." * size


async def send_there_and_back(way: Way, count: int, size: int) -> None:
    await way.calls(count, 1, same, data_of(size))


# By size; of the one way that there is in this process.
viewed: dict[int, memoryview | bytes] = {}


async def look(way: Way, count: int, size: int) -> None:
    if size not in viewed:
        view = memoryview(bytearray(data_of(size)))
        try:
            await way.calls(1, 1, len, view)
        except Exception:
            viewed[size] = data_of(size)  # it cannot send views
        else:
            viewed[size] = view
    await way.calls(count, 1, len, viewed[size])


COST = Question(
    name="payload",
    title="What does a call with data cost?",
    about=(
        "Bytes are the argument and the result of a function, in one call after the other."
        " Threads hand over the object itself; all others copy it, at least there and back."
    ),
    loads={
        f"{name} there and back": Timed(partial(send_there_and_back, size=size))
        for name, size in SIZES.items()
    },
    contenders=[*CONTENDERS, bounds.TWO_COPIES, bounds.EVENTFD_HOPS],
    base="ProcessPoolExecutor",
    rounds=10,
)

VIEWS = Question(
    name="payload-views",
    title="What does a call cost that only looks at data?",
    about=(
        "The length of a memoryview is asked for, in one call after the other; of the same bytes"
        " where a contender cannot send a view."
    ),
    loads={f"{name} looked at": Timed(partial(look, size=size)) for name, size in SIZES.items()},
    contenders=[*CONTENDERS, bounds.EVENTFD_HOPS],
    base="ProcessPoolExecutor",
    rounds=10,
)
