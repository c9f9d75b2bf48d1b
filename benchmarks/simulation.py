"""The scheduler as a discrete simulation, for more workers than the machine has CPUs.

What is simulated is who waits for whom: an event loop that submits tasks and is told of their ends;
the ring and the line behind it; the workers' deques and steals; search, sleep and wake with the
constants of native/core; the GIL; and each cache line that several threads write, as a server that
one thread uses at a time. What each step costs comes from the figures that scaling.py has measured.
Threads that are awake share the CPUs in equal parts. Nothing here reads a clock: the same seed
gives the same numbers.

    python -m benchmarks.simulation [--figures FILE] [--tasks N]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import simpy
from rich.console import Console
from rich.table import Table

from benchmarks.scaling import WORKERS, read_figures

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.scaling import Series

    Step = Generator[simpy.Event, None, None]

# ---- Constants of the protocol -------------------------------------------------------------------

RING = 4096  # dromon.h: DROMON_QUEUE_CAPACITY_DEFAULT
DEQUE = 256  # worker.c: DEQUE_CAPACITY
BATCH_TASKS = 256  # dromon.h: batch_tasks
BATCH_NS = 500_000  # dromon.h: batch_ns
LONGEST_SEARCH_NS = 50_000  # pool.c
SHORTEST_PART = 16  # search.c, as the next one
TRY_AGAIN_AFTER = 32

Gil = Literal["none", "held", "released"]
"""Whether there is one, and what a task does with it while it works."""


@dataclass(frozen=True)
class Costs:
    """Nanoseconds."""

    submit: float
    """Of the loop, for a task: to submit it and to be told of its end."""
    take: float
    """Of the loop, to look what has ended."""
    run: float
    """Of a worker, for a task, besides its work."""
    write: float
    """Of a cache line that the thread wrote last itself."""
    move: float
    """Of one that another thread wrote last."""
    line: float
    """More, under the mutex, to take a task while others wait in line behind the ring."""
    wake: float
    """Of who wakes a thread."""
    lag: float
    """From the beginning of that until the thread runs."""
    look: float
    """At the deque of one worker."""


def costs_of(figures: dict[str, Series], series: str) -> Costs:
    """Those of tasks in C (`native`) or of calls in one of the series of Python."""
    primitives, native, queued = figures["primitives"][1], figures["native"], figures["queued-1"]
    if series == "native":
        submit = queued[min(queued)]["submit into the ring"]
        run = queued[max(queued)]["drain"]
    else:
        calls = figures[series][1]
        submit = calls["stream of nothing, CPU of the loop"]
        run = calls["stream of nothing, CPU of all"] - submit
    write = primitives["one read-modify-write"]
    return Costs(
        submit=submit,
        take=primitives["take of an empty port"],
        run=run,
        write=write,
        move=primitives["a word to another CPU"],
        line=2 * write + primitives["ring push + pop"],
        wake=native[2]["submit that wakes"],
        lag=native[2]["one call"] / 2,
        look=native[max(native)]["look at a deque"],
    )


@dataclass(frozen=True)
class Load:
    """What is to be done."""

    tasks: int
    work: float
    """Nanoseconds of each task, on a CPU."""
    window: int = RING
    """How many of them may be under way: the loop submits the next when it is told of an end."""
    queued: bool = False
    """All are queued before the first worker begins."""
    tree: bool = False
    """The loop submits one; each submits two others, on its worker, until there are all."""
    gil: Gil = "none"


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    tasks: int
    ns: float
    wakes: int
    """Of workers."""
    steals: int
    most_queued: int
    shares: dict[str, float]
    """What part of the time each resource was in use; of the workers, worked."""

    @property
    def each(self) -> float:
        return self.ns / self.tasks

    @property
    def first(self) -> str:
        """Of what there is the least left."""
        return max(self.shares, key=lambda name: self.shares[name])


# ---- The parts -----------------------------------------------------------------------------------


class Line:
    """A cache line: one thread after the other, in the order in which they come."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._owner: object = None
        self._free_at = 0.0
        self.busy = 0.0

    def use(self, who: object, now: float, longer: float = 0) -> float:
        """How long from now until `who` has written it."""
        cost = (self._costs.write if who is self._owner else self._costs.move) + longer
        self._owner = who
        self._free_at = max(now, self._free_at) + cost
        self.busy += cost
        return self._free_at - now


class Search:
    """How long to look for work: search.c."""

    def __init__(self) -> None:
        self._length = LONGEST_SEARCH_NS
        self._skipped = 0

    def begin(self) -> int:
        if self._length == 0:
            self._skipped += 1
            if self._skipped == TRY_AGAIN_AFTER:
                self._skipped = 0
                self._length = LONGEST_SEARCH_NS
        return self._length

    def end(self, found: bool) -> None:
        self._length = min(self._length * 2, LONGEST_SEARCH_NS) if found else self._length // 2
        if self._length < LONGEST_SEARCH_NS // SHORTEST_PART:
            self._length = 0


@dataclass(eq=False)
class Worker:
    tasks: deque[int] = field(default_factory=deque)
    """Its own; each is the count of a task and all that will come of it."""
    search: Search = field(default_factory=Search)


class Simulation:
    def __init__(self, load: Load, costs: Costs, workers: int, cpus: int, seed: int = 0) -> None:
        self.load, self.costs, self.cpus = load, costs, cpus
        self.env = simpy.Environment()
        self.random = random.Random(seed)
        self.workers = [Worker() for _ in range(workers)]
        self.ring = deque([1] * load.tasks if load.queued else [])  # and the line behind it
        self.pops, self.words, self.port, self.pending = (Line(costs) for _ in range(4))
        self.searchers = 0
        self.sleepers: deque[simpy.Event] = deque()
        self.spinning: list[simpy.Event] = []
        self.posted = 0
        self.told = False
        self.asleep: simpy.Event | None = None  # the loop
        self.gil_taken = False
        self.gil_since = 0.0
        self.gil_waiters: deque[simpy.Event] = deque()
        self.awake = 1 + workers
        self.in_deques = self.wakes = self.steals = self.ended = self.most_queued = 0
        self.loop_busy = self.working = self.gil_busy = 0.0

    def run(self) -> Outcome:
        loop = self.env.process(self._loop())
        for worker in self.workers:
            self.env.process(self._worker(worker))
        self.env.run(until=loop)
        ns = self.env.now
        shares = {
            "the workers": self.working / ns / min(len(self.workers), self.cpus),
            "the loop": self.loop_busy / ns,
            "the ring's line": self.pops.busy / ns,
            "the eventcount's line": self.words.busy / ns,
            "the port's lines": max(self.port.busy, self.pending.busy) / ns,
        }
        if self.load.gil != "none":
            shares["the GIL"] = self.gil_busy / ns
        return Outcome(self.ended, ns, self.wakes, self.steals, self.most_queued, shares)

    # Time

    def _spend(self, ns: float) -> simpy.Event:
        """On a CPU, of which there may be too few."""
        return self.env.timeout(ns * max(1.0, self.awake / self.cpus))

    def _sleep(self, event: simpy.Event) -> Step:
        self.awake -= 1
        yield event
        self.awake += 1

    def _wake_after_lag(self, event: simpy.Event) -> None:
        def wake(_: simpy.Event) -> None:
            event.succeed()

        self.env.timeout(self.costs.lag).callbacks.append(wake)

    # The GIL

    def _take_gil(self) -> Step:
        while self.gil_taken:
            event = self.env.event()
            self.gil_waiters.append(event)
            yield from self._sleep(event)
        self.gil_taken, self.gil_since = True, self.env.now

    def _drop_gil(self) -> Step:
        self.gil_taken = False
        self.gil_busy += self.env.now - self.gil_since
        if self.gil_waiters:
            self._wake_after_lag(self.gil_waiters.popleft())
            yield self._spend(self.costs.wake)

    # The eventcount

    def _notify(self, who: object) -> Step:
        """After a task was queued."""
        self.most_queued = max(self.most_queued, len(self.ring) + self.in_deques)
        yield self._spend(self.words.use(who, self.env.now))
        if self.spinning:
            last = len(self.spinning) - 1
            chosen = self.random.randint(0, last)
            self.spinning[chosen], self.spinning[last] = self.spinning[last], self.spinning[chosen]
            self.spinning.pop().succeed()
        elif self.searchers == 0 and self.sleepers:
            self.searchers += 1
            self.wakes += 1
            self._wake_after_lag(self.sleepers.popleft())
            yield self._spend(self.costs.wake)

    # The loop

    def _loop(self) -> Step:
        to_submit = 1 if self.load.tree else self.load.tasks - len(self.ring)
        room = self.load.window
        has_gil = self.load.gil != "none"
        while self.ended < self.load.tasks:
            if has_gil:
                yield from self._take_gil()
            yield self._spend(self.costs.take)
            taken, self.posted, self.told = self.posted, 0, False
            lines = self.port.use(self, self.env.now) + self.pending.use(self, self.env.now)
            yield self._spend(lines)
            began = self.env.now
            for _ in range(min(to_submit, taken or room)):
                to_submit -= 1
                yield self._spend(self.costs.submit)
                self.ring.append(self.load.tasks if self.load.tree else 1)
                yield from self._notify(self)
            room = 0
            self.ended += taken
            self.loop_busy += self.env.now - began
            if has_gil:
                yield from self._drop_gil()
            if not self.told and self.ended < self.load.tasks:
                self.asleep = self.env.event()
                yield from self._sleep(self.asleep)

    def _tell_loop(self, worker: Worker) -> Step:
        yield self._spend(self.pending.use(worker, self.env.now))
        if not self.told:
            self.told = True
            if self.asleep is not None:
                self._wake_after_lag(self.asleep)
                self.asleep = None
                yield self._spend(self.costs.wake)

    # A worker

    def _worker(self, worker: Worker) -> Step:
        while True:
            task = yield from self._find(worker)
            if task is None:
                task = yield from self._await_task(worker)
            if self.load.gil == "none":
                yield from self._run(worker, task)
                yield from self._tell_loop(worker)
            else:
                yield from self._run_batch(worker, task)

    def _pop_near(self, worker: Worker) -> Generator[simpy.Event, None, int | None]:
        if worker.tasks:
            self.in_deques -= 1
            return worker.tasks.pop()
        if self.ring:
            longer = self.costs.line if len(self.ring) > RING else 0
            yield self._spend(self.pops.use(worker, self.env.now, longer))
        return self.ring.popleft() if self.ring else None

    def _find(self, worker: Worker) -> Generator[simpy.Event, None, int | None]:
        task = yield from self._pop_near(worker)
        if task is not None:
            return task
        yield self._spend(self.costs.look * len(self.workers))
        if self.in_deques:
            first = self.random.randrange(len(self.workers))
            for victim in self.workers[first:] + self.workers[:first]:
                if victim.tasks:
                    self.steals += 1
                    self.in_deques -= 1
                    yield self._spend(self.costs.move)
                    return victim.tasks.popleft() if victim.tasks else None
        return self.ring.popleft() if self.ring else None

    def _spin(self, ns: float) -> simpy.Event:
        """Until a task was queued that this thread sees first, or the time is over."""
        seen = self.env.event()

        def end(_: simpy.Event) -> None:
            if seen in self.spinning:
                self.spinning.remove(seen)
                seen.succeed()

        self.spinning.append(seen)
        self.env.timeout(ns).callbacks.append(end)
        return seen

    def _search(self, worker: Worker) -> Generator[simpy.Event, None, tuple[int | None, bool]]:
        """A task, and whether the worker counts as a searcher."""
        length = worker.search.begin()
        if length == 0 or self.searchers >= (len(self.workers) + 1) // 2:
            return None, False
        self.searchers += 1
        yield self._spend(self.words.use(worker, self.env.now))
        task, end = None, self.env.now + length
        while task is None and self.env.now < end:
            yield self._spin(end - self.env.now)
            if self.ring or self.in_deques:
                task = yield from self._find(worker)
        worker.search.end(task is not None)
        return task, True

    def _await_task(self, worker: Worker) -> Generator[simpy.Event, None, int]:
        task, searching = yield from self._search(worker)
        while task is None:
            yield self._spend(self.words.use(worker, self.env.now))  # Announce
            self.searchers -= searching
            permit = self.env.event()
            self.sleepers.append(permit)
            task = yield from self._find(worker)  # Recheck
            if task is None:
                yield from self._sleep(permit)
            elif permit in self.sleepers:  # Retract
                self.sleepers.remove(permit)
                self.searchers += 1
            else:
                yield permit  # of who was faster
            searching = True
            if task is None:
                task = yield from self._find(worker)
        if searching:
            yield self._spend(self.words.use(worker, self.env.now))  # Found
            self.searchers -= 1
            if self.searchers == 0 and (self.ring or self.in_deques):
                yield from self._notify(worker)
        return task

    def _run(self, worker: Worker, task: int) -> Step:
        """One task, up to its post."""
        yield self._spend(self.costs.run)
        if self.load.gil == "released":
            yield from self._drop_gil()
        for child in ((task - 1) // 2, task // 2):
            if child:
                yield from self._push_child(worker, child)
        if self.load.work:
            yield self._spend(self.load.work)
        self.working += self.load.work
        if self.load.gil == "released":
            yield from self._take_gil()
        yield self._spend(self.port.use(worker, self.env.now))
        self.posted += 1

    def _push_child(self, worker: Worker, child: int) -> Step:
        if len(worker.tasks) < DEQUE:
            worker.tasks.append(child)
            self.in_deques += 1
        else:
            self.ring.append(child)
        yield from self._notify(worker)

    def _run_batch(self, worker: Worker, task: int | None) -> Step:
        """Under one hold of the GIL."""
        yield from self._take_gil()
        end = self.env.now + BATCH_NS
        for i in range(BATCH_TASKS):
            if task is None:
                break
            if i:
                yield from self._tell_loop(worker)
            yield from self._run(worker, task)
            near = self.env.now < end and i < BATCH_TASKS - 1
            task = (yield from self._pop_near(worker)) if near else None
        yield from self._drop_gil()
        yield from self._tell_loop(worker)


def simulate(load: Load, costs: Costs, workers: int, cpus: int, seed: int = 0) -> Outcome:
    return Simulation(load, costs, workers, cpus, seed).run()


# ---- Against what was measured -------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What was measured with few workers, and is to come out here."""

    name: str
    costs: Costs
    load: Load
    measured: dict[int, float]
    """By the count of workers."""


def cases(figures: dict[str, Series]) -> list[Case]:
    def case(series: str, what: str, load: Load) -> Case:
        measured = {workers: figures[series][workers][what] for workers in (1, 2)}
        return Case(f"{series}: {what}", costs_of(figures, series), load, measured)

    digest = figures["python"][1]["digest_block alone"]
    drains = {workers: figures[f"queued-{workers}"][100_000]["drain"] for workers in (1, 2)}
    drain = Load(100_000, 0, queued=True)
    return [
        case("native", "stream of 0 ns, each task", Load(40_000, 0)),
        case("native", "stream of 1000 ns, each task", Load(40_000, 1_000)),
        case("native", "stream of 10000 ns, each task", Load(4_000, 10_000)),
        case("native", "stream of 100000 ns, each task", Load(400, 100_000)),
        case("native", "tree, each task", Load(40_000, 0, tree=True)),
        Case("native: drain of 100,000 queued", costs_of(figures, "native"), drain, drains),
        case("python", "stream of nothing", Load(20_000, 0, window=256, gil="held")),
        case("python", "stream of digest_block", Load(5_000, digest, window=256, gil="released")),
        case("isolated", "stream of nothing", Load(20_000, 0, window=256)),
        case("isolated", "stream of digest_block", Load(5_000, digest, window=256)),
    ]


def compare(figures: dict[str, Series]) -> Table:
    table = Table(title="Simulated beside measured, on two CPUs", caption="Nanoseconds a task.")
    for column in ("load", "workers", "measured", "simulated", "error"):
        table.add_column(column, justify="left" if column == "load" else "right")
    for case in cases(figures):
        for workers, measured in case.measured.items():
            each = simulate(case.load, case.costs, workers, cpus=2).each
            error = each / measured - 1
            table.add_row(
                case.name, str(workers), f"{measured:,.0f}", f"{each:,.0f}", f"{error:+.0%}"
            )
    return table


# ---- Beyond --------------------------------------------------------------------------------------


def tabulate(title: str, outcomes: dict[int, Outcome]) -> Table:
    table = Table(title=title, caption="A CPU for each worker, and one for the loop.")
    for column in ("workers", "ns a task", "work", "wakes a task", "steals", "first", "its share"):
        table.add_column(column, justify="left" if column == "first" else "right")
    for workers, outcome in outcomes.items():
        table.add_row(
            str(workers),
            f"{outcome.each:,.0f}",
            f"{outcome.shares['the workers']:.0%}",
            f"{outcome.wakes / outcome.tasks:.3f}",
            f"{outcome.steals / outcome.tasks:.3f}",
            outcome.first,
            f"{outcome.shares[outcome.first]:.0%}",
        )
    return table


def loads(tasks: int) -> dict[str, list[tuple[str, Load]]]:
    """By the series that they take their costs from."""
    works = [1_000, 10_000, 100_000, 1_000_000]
    native = [(f"{work / 1000:g} us", Load(tasks, work)) for work in works]
    tree = ("a tree of 1 us", Load(tasks, 1_000, tree=True))
    released = [(f"{work / 1000:g} us", Load(tasks, work, gil="released")) for work in works[1:]]
    held = ("10 us under the GIL", Load(tasks, 10_000, gil="held"))
    isolated = [(f"{work / 1000:g} us", Load(tasks, work)) for work in works[1:]]
    queued = ("1 us, all queued before", Load(tasks, 1_000, queued=True))
    return {"native": [*native, tree, queued], "python": [*released, held], "isolated": isolated}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--figures", type=Path, default=Path(__file__).with_name("scaling.json"), help="measured"
    )
    parser.add_argument("--tasks", type=int, default=20_000, help="of each point")
    arguments = parser.parse_args()
    figures = read_figures(arguments.figures)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(compare(figures))
    for series, named in loads(arguments.tasks).items():
        costs = costs_of(figures, series)
        for name, load in named:
            outcomes = {count: simulate(load, costs, count, count + 1) for count in WORKERS}
            console.print(tabulate(f"{series}: {name}", outcomes))


if __name__ == "__main__":
    main()
