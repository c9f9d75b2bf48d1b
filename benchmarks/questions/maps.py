"""Maps: of items that cost nothing, and of items that work in C and in Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..contenders import bounds, interpreters, ours, processes, threads
from ..model import Question, Timed, Way
from ..workloads import count, digest, nothing_with, rounds_that_take, times_that_take

ISOLATED = [
    ours.ISOLATED_POOL,
    ours.ISOLATED_OPEN_MAP,
    ours.ISOLATED_EXECUTOR,
    ours.TO_INTERPRETER,
]
OURS = [ours.POOL, ours.OPEN_MAP, ours.EXECUTOR, *ISOLATED]
PEERS = [*threads.ALL, *interpreters.ALL, *processes.MAPS]

# What an item takes, and of how many the number of items is a multiple. The fewest of those that
# take longest keep several workers equally busy.
SECONDS = {"10 µs": 10e-6, "1 ms": 1e-3, "50 ms": 50e-3}
STEPS = {"10 µs": 1000, "1 ms": 40, "50 ms": 16}


async def map_nothing(way: Way, items: int) -> None:
    await way.map(nothing_with, range(items))


async def map_equal(
    way: Way,
    items: int,
    fn: Callable[[int], object],
    item_that_takes: Callable[[float], int],
    seconds: float,
) -> None:
    await way.map(fn, [item_that_takes(seconds)] * items)


def loads(fn: Callable[[int], object], item_that_takes: Callable[[float], int]) -> dict[str, Timed]:
    work = partial(map_equal, fn=fn, item_that_takes=item_that_takes)
    return {
        f"items of {name}": Timed(partial(work, seconds=seconds), STEPS[name])
        for name, seconds in SECONDS.items()
    }


HOW = (
    " The times are those of one item. Where there are only single calls, each item has a task"
    " that makes one."
)

EMPTY = Question(
    name="map-empty",
    title="What does a map cost?",
    about=(
        "An empty function is mapped over a range, so that what is left is what the map costs."
        + HOW
    ),
    loads={"empty items": Timed(map_nothing, step=1000)},
    contenders=[*OURS, *PEERS, bounds.IN_THIS_THREAD],
    base="ThreadPoolExecutor",
    aims={("empty items", "dromon pool.map"): "at least 20"},
)

WORKING = (
    " The ceiling is a process for each worker that has its share of the items before the time"
    " begins, and only says when it is done. Nothing can share work out at less cost; but where"
    " something else slows a CPU down, who shares it out later may be faster."
)

IN_C = Question(
    name="map-c",
    title="How busy does a map keep the workers with C code?",
    about=(
        "The items are numbers of rounds of a hash in C, which lets go of the GIL meanwhile."
        + HOW
        + WORKING
    ),
    loads=loads(digest, rounds_that_take),
    contenders=[*OURS, *PEERS, bounds.BARE_PROCESSES],
    base="ceiling: bare processes",
    rounds=10,
)

IN_PYTHON = Question(
    name="map-python",
    title="How busy does a map keep the workers with pure Python?",
    about=(
        "The items are numbers, to which a loop in Python counts. Threads share the GIL, and stand"
        " here for what that means." + HOW + WORKING
    ),
    loads=loads(count, times_that_take),
    contenders=[
        *ISOLATED,
        ours.POOL,
        threads.EXECUTOR,
        *interpreters.ALL,
        *processes.MAPS,
        bounds.BARE_PROCESSES,
    ],
    base="ceiling: bare processes",
    rounds=10,
    aims={
        ("items of 10 µs", "dromon pool.map, interpreters"): "at least 0.85",
        ("items of 50 ms", "dromon pool.map, interpreters"): "at least 0.95",
        ("items of 50 ms", "dromon.to_interpreter"): "at least 0.95",
    },
)
