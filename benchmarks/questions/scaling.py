"""Pure Python on one worker, on as many as there are CPUs, and on more."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from ..contenders import bounds, interpreters, ours, processes, threads
from ..model import Contender, Question, Timed, Way
from ..workloads import count, times_that_take

NUMBERS: dict[str, Callable[[int], int]] = {
    "1 worker": lambda _: 1,
    "N/2 workers": lambda workers: max(1, workers // 2),
    "N workers": lambda workers: workers,
    "2N workers": lambda workers: 2 * workers,
}
if (os.cpu_count() or 1) < 4:
    del NUMBERS["N/2 workers"]  # there is one already

CONTENDERS = [
    ours.ISOLATED_POOL,
    ours.ISOLATED_EXECUTOR,
    ours.POOL,
    threads.EXECUTOR,
    *interpreters.ALL,
    *processes.ALL,
    bounds.BARE_PROCESSES,
]


def with_workers(contender: Contender, name: str) -> Contender:
    def open_way(workers: int) -> AbstractAsyncContextManager[Way]:
        return contender.open(NUMBERS[name](workers))

    return replace(contender, name=f"{contender.name}, {name}", open=open_way)


async def count_in_map(way: Way, items: int, seconds: float) -> None:
    await way.map(count, [times_that_take(seconds)] * items)


SCALING = Question(
    name="scaling",
    title="How much faster is pure Python on several workers?",
    about=(
        "A loop in Python is mapped over equal items that take 1 ms each; the times are those of"
        " one item. N workers are as many as there are CPUs: the number at the top. The ratios are"
        " the speed-up over one bare process, which has its items before the time begins; those of"
        " more bare processes are what this machine gives."
    ),
    loads={"items of 1 ms": Timed(partial(count_in_map, seconds=1e-3), step=40)},
    contenders=[with_workers(one, name) for one in CONTENDERS for name in NUMBERS],
    base="ceiling: bare processes, 1 worker",
)
