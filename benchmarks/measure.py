"""Takes turns among the contenders of a question, each in a process of its own.

Every round has one turn for each load and contender; within a load the order is random, so that
what else the machine does, and what one turn leaves behind for the next, falls on all alike. One of
ours runs twice, in two processes: what those two differ by is what a difference has to exceed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .model import Kind, without_folders

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from types import TracebackType

    from rich.progress import Progress

    from .model import Contender, Question

ANSWER_SECONDS = 90.0
"""After so long without an answer a contender is left out of a load."""

END_SECONDS = 10.0
"""After so long a process that was told to end is killed."""

# Not by -m: some peers run the main module again, in their workers.
START = f"from {__package__}.process import main; main()"

AGAIN = " (again)"
"""Follows the name of the contender that runs a second time."""

Answer = dict[str, Any]
"""Of the process of a contender: the values of a load by name, or why it is refused."""


@dataclass
class Results:
    """What was measured for a question."""

    question: Question
    rounds: int
    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By series and contender, in the order of the rounds. A series is a load, or a part of what a
    load measures. Whoever is refused in a round has no turn in later ones, so that values of one
    index are of one round."""
    places: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """When in its round each value was measured: 0 is the first turn of the load."""
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    """By load and contender, why it could not be done."""

    def add(self, load: str, contender: str, place: int, answer: Answer) -> None:
        if "refused" in answer:
            self.refused[load, contender] = answer["refused"]
            return
        for part, value in answer["values"].items():
            series = f"{load}, {part}" if part else load
            self.values[series, contender].append(value)
            self.places[series, contender].append(place)


class Process:
    """The process of a contender, as seen from here."""

    def __init__(self, question: str, contender: str, workers: int) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # `end` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, question, contender, str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        # Readable when it has ended, though children of it may hold its pipes open.
        self._ended = os.pidfd_open(self._process.pid)
        self._last_line = ""
        self.refusal: Answer | None = None
        """The answer to all that it is asked, if its way could not be opened."""

    def open(self) -> None:
        """Wait until it has opened its way."""
        answer = self._answer()
        self.refusal = answer if "refused" in answer else None

    def ask(self, load: str) -> Answer:
        if self.refusal is not None:
            return self.refusal
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            print(json.dumps(load), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        either = [self._process.stdout.fileno(), self._ended]
        readable = select.select(either, [], [], ANSWER_SECONDS)[0]
        if not readable:
            self.end(within=0.0)
            return {"refused": f"no answer within {ANSWER_SECONDS:g} s"}
        # A line is written at once, so that there is all of it or nothing.
        if either[0] in readable and (line := self._process.stdout.readline()):
            answer: Answer = json.loads(line)
            return answer
        self.end()
        status = self._process.returncode
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        last_line = without_folders(self._last_line)
        return {"refused": f"its process ended {how}. {last_line}".strip()}

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def end(self, within: float = END_SECONDS) -> None:
        """Let it close its way; kill what is left of it and of its workers then."""
        if self.has_ended:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            select.select([self._ended], [], [], within)
        finally:
            # It is not waited for before, so that the number of its group still is its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
            os.close(self._ended)
            self._errors.seek(0)
            self._last_line = self._errors.read().decode(errors="replace").strip().split("\n")[-1]
            self._errors.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


def twin_of(contenders: Iterable[Contender]) -> str | None:
    """The one of ours that runs twice."""
    return next((one.name for one in contenders if one.kind is Kind.OURS), None)


def measure(
    question: Question, workers: int, rounds: int, order: random.Random, progress: Progress
) -> Results:
    names = [contender.name for contender in question.contenders]
    if twin := twin_of(question.contenders):
        names.append(twin + AGAIN)
    results = Results(question, rounds)
    task = progress.add_task(question.name, total=rounds * len(question.loads) * len(names))
    with ExitStack() as stack:
        processes: dict[str, Process] = {}

        def process_of(name: str) -> Process:
            """The one there is, or another if it died of a load or each turn is to have its own."""
            process = processes.get(name)
            if process is None or (process.has_ended and process.refusal is None):
                process = Process(question.name, name.removesuffix(AGAIN), workers)
                processes[name] = stack.enter_context(process)
                process.open()
            return process

        if not question.anew:
            for name in names:
                process_of(name)
        for _ in range(rounds):
            for load in question.loads:
                for place, name in enumerate(order.sample(names, len(names))):
                    if (load, name) not in results.refused:
                        results.add(load, name, place, process_of(name).ask(load))
                        if question.anew:
                            processes[name].end()
                    progress.update(task, advance=1, refresh=True)
    return results
