"""What it takes to have workers: the time until they are there, and their memory.

Each turn is a program of its own. It imports what users of the contender import, and nothing else
before, opens it, and measures itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..contenders import interpreters, ours, processes, threads
from ..contenders.loops import in_no_loop
from ..model import Contender, Kind, Measured, Question, Refused, Way, reason
from ..workloads import nothing

# An editable install is brought up to date when it is first looked for; that of users is not.
START = f"""
import importlib.util, sys, time
importlib.util.find_spec("dromon")
start = time.perf_counter()
for name in sys.argv[2].split():
    importlib.import_module(name)
imported = time.perf_counter() - start
from {__name__} import main
main(imported)
"""

# ---- The program ---------------------------------------------------------------------------------


def pss(process: int) -> int:
    """What it and its descendants have in memory, but for files: its share of what several have."""
    total, folder = 0, Path(f"/proc/{process}")
    with suppress(OSError):  # it has just ended
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
        for children in folder.glob("task/*/children"):
            total += sum(pss(int(child)) for child in children.read_text().split())
    return total


async def first_result(contender: Contender, workers: int) -> float:
    start = time.perf_counter()
    async with contender.open(workers) as way:
        await way.calls(1, 1, nothing)
        return time.perf_counter() - start
    raise AssertionError("no way hides errors")


async def memory(contender: Contender, workers: int) -> float:
    """What is there beside what was there before, while each of the workers has a call."""
    before, seen = pss(os.getpid()), []
    async with contender.open(workers) as way:
        await way.calls(workers, workers, time.sleep, 0.3)  # now there are all of them
        timer = threading.Timer(0.2, lambda: seen.append(pss(os.getpid())))
        timer.start()
        await way.calls(workers, workers, time.sleep, 0.4)
        timer.join()
    return seen[0] - before


MEASURES: dict[str, Callable[[Contender, int], Awaitable[float]]] = {
    "first result": first_result,
    "memory": memory,
}


def main(imported: float) -> None:
    _, name, _, measure, workers = sys.argv
    contender = CONTENDERS[name]
    answer: dict[str, object] = {"import": imported}

    async def run() -> None:
        answer[measure] = await MEASURES[measure](contender, int(workers))

    try:
        contender.run(run)
    except BaseException as error:
        answer["refused"] = reason(error)
    print(json.dumps(answer), flush=True)


# ---- Its parent ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Programs(Way):
    contender: Contender
    modules: str
    workers: int

    def run(self, measure: str, *all_workers: int) -> list[dict[str, float]]:
        """Programs with different numbers of workers, all at once."""
        running = [
            subprocess.Popen(
                [sys.executable, "-c", START, self.contender.name, self.modules, measure, str(one)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in all_workers
        ]
        answers = [json.loads(one.communicate()[0]) for one in running]
        for answer in answers:
            if "refused" in answer:
                raise Refused(answer["refused"])
        return answers


@asynccontextmanager
async def programs(workers: int, contender: Contender, modules: str) -> AsyncIterator[Programs]:
    yield Programs(contender, modules, workers)


async def measure_start(way: Programs) -> dict[str, float]:
    [answer] = way.run("first result", way.workers)
    return {"import": answer["import"], "open, to the first result": answer["first result"]}


async def measure_memory(way: Programs) -> dict[str, float]:
    several = max(3, way.workers)
    # Not one: joblib makes none then.
    two, all_of_them = (answer["memory"] for answer in way.run("memory", 2, several))
    other = (all_of_them - two) / (several - 2)
    return {"the first": two - other, "each of the others": other}


# ---- What bounds them ----------------------------------------------------------------------------


class BareThreads(Way):
    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        started = [threading.Thread(target=fn, args=args) for _ in range(count)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()


class BareForks(Way):
    async def calls(
        self, count: int, concurrent: int, fn: Callable[..., object], *args: object
    ) -> None:
        children = []
        for _ in range(count):
            if (child := os.fork()) == 0:
                fn(*args)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)  # noqa: ASYNC222  # nothing else is in the loop


@asynccontextmanager
async def bare(_: int, way: Way) -> AsyncIterator[Way]:
    yield way


THREADS = Contender("floor: bare threads", partial(bare, way=BareThreads()), Kind.BOUND, in_no_loop)
FORKS = Contender("floor: bare forks", partial(bare, way=BareForks()), Kind.BOUND, in_no_loop)

# ---- The questions -------------------------------------------------------------------------------

MODULES = {
    ours.TO_THREAD: "dromon",
    ours.TO_INTERPRETER: "dromon",
    ours.EXECUTOR: "dromon",
    ours.ISOLATED_EXECUTOR: "dromon",
    threads.TRIO: "trio",
    threads.LIMITED_TRIO: "trio",
    threads.ANYIO: "trio anyio.to_thread anyio._backends._trio",
    threads.ASYNCIO: "asyncio",
    threads.EXECUTOR: "concurrent.futures.thread",
    threads.GEVENT: "gevent gevent.threadpool",
    threads.JOBLIB: "joblib",
    threads.DASK: "distributed",
    interpreters.ANYIO: "trio anyio.to_interpreter anyio._backends._trio",
    interpreters.EXECUTOR: "concurrent.futures",
    processes.EXECUTOR: "concurrent.futures.process",
    processes.LOKY: "loky",
    processes.JOBLIB: "joblib",
    processes.TRIO_PARALLEL: "trio trio_parallel",
    processes.ANYIO: "trio anyio.to_process anyio._backends._trio",
    processes.DASK: "distributed",
    THREADS: "threading",
    FORKS: "os",
}
"""What users of each import first."""

CONTENDERS = {contender.name: contender for contender in MODULES}

AS_PROGRAMS = [
    Contender(one.name, partial(programs, contender=one, modules=modules), one.kind, run=in_no_loop)
    for one, modules in MODULES.items()
]

STARTUP = Question(
    name="startup",
    title="How long does it take until there is a first result?",
    about=(
        "In a program of its own: the import, and then from opening it, with all workers, to the"
        " result of an empty function. Python's own start, and that of an event loop, come before."
        " Many make workers only when there are calls for them."
    ),
    loads={"a program": Measured(measure_start)},
    contenders=AS_PROGRAMS,
    base=threads.TRIO.name,
    rounds=10,
)

MEMORY = Question(
    name="memory",
    title="How much memory does a worker take?",
    about=(
        "While each worker has a call that sleeps: the proportional set size of the process and its"
        " descendants, but for files, less what it was after the import. The first worker comes"
        " with all that its library needs once; each of the others is what a third one, and those"
        " after it, take."
    ),
    loads={"a worker": Measured(measure_memory)},
    contenders=AS_PROGRAMS,
    base=threads.LIMITED_TRIO.name,
    unit="byte",
    rounds=5,
)
