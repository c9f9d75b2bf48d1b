"""One call, and many at once."""

from __future__ import annotations

from functools import partial

from ..contenders import bounds, interpreters, ours, processes, threads
from ..model import Question, Timed, Way
from ..workloads import nothing

OURS = [ours.TO_THREAD, ours.TO_INTERPRETER, ours.EXECUTOR, ours.ISOLATED_EXECUTOR]
PEERS = [*threads.ALL, *interpreters.ALL, *processes.ALL]


async def calls(way: Way, count: int, concurrent: int) -> None:
    await way.calls(count, concurrent, nothing)


ONE_CALL = Question(
    name="one-call",
    title="How long does one call take?",
    about="An empty function is called again and again, each time when the result is there.",
    loads={"one after the other": Timed(partial(calls, concurrent=1))},
    contenders=[*OURS, *PEERS, bounds.EVENTFD_HOPS],
    base="trio.to_thread",
    aims={("one after the other", "dromon.to_thread"): "at least 2.86"},
)

CONCURRENT_CALLS = Question(
    name="concurrent-calls",
    title="How many calls can be made with many in flight?",
    about=(
        "As many tasks as are named each make one call of an empty function after the other."
        " Where there are futures, so many are submitted, and then all results are collected. The"
        " times are those of one call: a microsecond is a million calls per second. Each floor is"
        " one for some: trio's switches for calls of trio tasks, the standard library's futures for"
        " executors that have just these, which dromon's has not."
    ),
    loads={
        f"{tasks:,} at once": Timed(partial(calls, concurrent=tasks), step=tasks)
        for tasks in (1, 10, 100, 1000)
    },
    contenders=[*OURS, *PEERS, bounds.TRIO_SWITCHES, bounds.FUTURES, bounds.IN_THIS_THREAD],
    base="trio.to_thread",
    aims={
        ("100 at once", "dromon.to_thread"): "at least 18",
        ("1,000 at once", "dromon.to_thread"): "at least 18",
    },
)
