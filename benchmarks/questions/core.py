"""The core alone, without Python: programs in C, each of which measures one thing at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from .. import programs
from ..contenders.loops import in_no_loop
from ..model import Contender, Kind, Measured, Question, Refused, Way


@dataclass(frozen=True)
class Program(Way):
    """What one of the programs measures."""

    program: str
    things: Mapping[str, Mapping[str, float]]
    """For each load the things that it consists of, and how many of each."""

    def sum_of(self, name: str, load: str) -> float:
        if load not in self.things:
            raise Refused("it is measured with another load only")
        total = 0.0
        for thing, number in self.things[load].items():
            values = programs.run(self.program, thing)
            if not values:
                raise Refused("it cannot be had on these CPUs, or with this kernel")
            total += number * values[name]
        return total


@asynccontextmanager
async def opened(way: Program, _: int) -> AsyncIterator[Program]:
    yield way


def contender(
    name: str, program: str, things: Mapping[str, str | Mapping[str, float]], kind: Kind = Kind.OURS
) -> Contender:
    counted = {load: {one: 1.0} if isinstance(one, str) else one for load, one in things.items()}
    return Contender(name, partial(opened, Program(program, counted)), kind, in_no_loop)


async def seconds(way: Program, load: str) -> dict[str, float]:
    return {"": way.sum_of("ns", load) * 1e-9}


def timed(*loads: str) -> dict[str, Measured]:
    return {load: Measured(partial(seconds, load=load)) for load in loads}


# ---- Queues --------------------------------------------------------------------------------------

ALONE, BESIDE = "nobody else at the queue", "beside a busy thread on another CPU"

QUEUES = Question(
    name="core-queues",
    title="What do the queues cost?",
    about=(
        "The floor is one atomic read-modify-write of a word that nobody else has, and the way of a"
        " word from one CPU to another. The owner of the deque that is stolen from pushes all the"
        " time, and takes one of four back. A value is the median of 4,000 laps."
    ),
    loads=timed(ALONE, BESIDE),
    contenders=[
        contender("deque, steal", "queues", {ALONE: "steal", BESIDE: "steal beside a busy owner"}),
        contender("deque, push and pop", "queues", {ALONE: "deque push + pop"}),
        contender("ring, push and pop", "queues", {ALONE: "ring push + pop"}),
        contender(
            "floor: one word",
            "queues",
            {ALONE: "one read-modify-write", BESIDE: "a word to another CPU"},
            Kind.BOUND,
        ),
    ],
    base="floor: one word",
    rounds=10,
    aims={
        (ALONE, "ring, push and pop"): "at most 25 ns",
        (ALONE, "deque, steal"): "at most 100 ns",
    },
)

# ---- Handoff -------------------------------------------------------------------------------------

ONE_CPU, TWO_CPUS = "one CPU", "two CPUs"


def on_each(thing: str) -> dict[str, str]:
    return {cpus: f"{thing}, {cpus}" for cpus in (ONE_CPU, TWO_CPUS)}


HANDOFF = Question(
    name="core-handoff",
    title="How long does a task take to a worker that sleeps, and back?",
    about=(
        "The floors are two bare threads that wake each other, by futex and by eventfd. On one CPU"
        " a wake-up is a switch; on two it is an interrupt to a processor that may have gone idle."
        " Either way all begin when the other side is about to sleep, but the worker that searches,"
        " which may be awake. A value is the median of 5,000."
    ),
    loads=timed(ONE_CPU, TWO_CPUS),
    contenders=[
        contender("handoff", "handoff", on_each("handoff")),
        contender("handoff with search", "handoff", {TWO_CPUS: "handoff with search, two CPUs"}),
        contender("floor: futex ping-pong", "handoff", on_each("futex ping-pong"), Kind.BOUND),
        contender("floor: eventfd ping-pong", "handoff", on_each("eventfd ping-pong"), Kind.BOUND),
    ],
    base="floor: futex ping-pong",
    rounds=10,
    aims={(cpus, "handoff"): "at least 0.77" for cpus in (ONE_CPU, TWO_CPUS)},
)

# ---- Threads -------------------------------------------------------------------------------------

MADE = "made and joined"
PTHREAD, BARE, STACK = "pthread, new stack", "bare thread, new stack", "a new stack alone"


def thread(name: str, kind: Kind = Kind.BOUND) -> Contender:
    return contender(name, "threads", {MADE: name}, kind)


SPAWN = Question(
    name="core-spawn",
    title="How long does it take to make a worker's thread, and to join it?",
    about=(
        "Beside a pthread of the same stack size. libc keeps the stacks of its threads that have"
        " ended for the next ones; a worker's is new each time, as is that of the pthread it is"
        " compared with. All run on one CPU: on several, what is measured is mostly how fast an"
        " idle one wakes. A worker by clone3 takes over from a pthread, its incubator. One more"
        " thread costs the kernel what a bare thread takes, less its stack: allowed are 1.5 times a"
        " pthread, and that. A value is the median of 500."
    ),
    loads=timed(MADE),
    contenders=[
        thread("worker by clone3", Kind.OURS),
        thread("worker by clone", Kind.OURS),
        thread("worker by pthread", Kind.OURS),
        thread(BARE),
        thread(STACK),
        thread(PTHREAD, Kind.PEER),
        thread("pthread, libc's stack", Kind.PEER),
        contender(
            "allowed: 1.5 pthreads and an incubator",
            "threads",
            {MADE: {PTHREAD: 1.5, BARE: 1.0, STACK: -1.0}},
            Kind.BOUND,
        ),
    ],
    base=PTHREAD,
    rounds=10,
    aims={(MADE, "worker by clone3"): "at most what is allowed"},
)

# ---- Tasks ---------------------------------------------------------------------------------------

MANY = "a million empty tasks"

TASKS = Question(
    name="core-tasks",
    title="How many native tasks can one thread get done?",
    about=(
        "One producer submits them and takes them back, 4,096 in flight. The floor is a bare ring"
        " between two threads, which goes one way only."
    ),
    loads=timed(MANY),
    contenders=[
        contender("one worker", "tasks", {MANY: "one worker"}),
        contender("two workers", "tasks", {MANY: "two workers"}),
        contender("floor: bare ring", "tasks", {MANY: "bare ring"}, Kind.BOUND),
    ],
    base="floor: bare ring",
    rounds=10,
    aims={(MANY, name): "at most 200 ns" for name in ("one worker", "two workers")},
)

# ---- Wake-ups ------------------------------------------------------------------------------------

THOUSAND = "1,000 tasks"


async def wakes(way: Program) -> dict[str, float]:
    return {"": 1000 * way.sum_of("wakes", THOUSAND)}


WAKES = Question(
    name="core-wakes",
    title="How many wake-ups do 1,000 native tasks need?",
    about=(
        "Each one is a system call. A task that is handed to a worker that sleeps needs one; of"
        " those that come at once few should."
    ),
    loads={THOUSAND: Measured(wakes)},
    contenders=[
        contender("handed over, one CPU", "handoff", {THOUSAND: "handoff, one CPU"}),
        contender("handed over, two CPUs", "handoff", {THOUSAND: "handoff, two CPUs"}),
        contender(
            "handed over, with search", "handoff", {THOUSAND: "handoff with search, two CPUs"}
        ),
        contender("a million, one worker", "tasks", {THOUSAND: "one worker"}),
        contender("a million, two workers", "tasks", {THOUSAND: "two workers"}),
    ],
    base="handed over, one CPU",
    unit="integer",
    rounds=10,
)

ALL = [QUEUES, HANDOFF, SPAWN, TASKS, WAKES]
