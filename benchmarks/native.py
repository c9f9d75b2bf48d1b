"""The core alone, without Python: queues, handoff, threads and tasks, in one run.

Each of the programs in benchmarks/native measures a few things in turns, so that a machine that
gets slower or faster gives each the same share of it. What is compared is the ratio within a turn,
and its median is shown. No figure makes this fail: where others use the machine, too, they vary.

    python benchmarks/native.py DIRECTORY [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

Turns = dict[str, list[float]]  # for each thing that was measured, its nanoseconds in each turn


class Row(NamedTuple):
    """One thing that a program measures."""

    name: str
    beside: str | None = None
    """What it is compared with."""
    aim: str = ""


TABLES: dict[str, list[Row]] = {
    "queues": [
        Row("one read-modify-write"),
        Row("ring push + pop", "one read-modify-write", "25 ns"),
        Row("deque push + pop", "one read-modify-write"),
        Row("steal", "one read-modify-write", "100 ns"),
        Row("a word to another CPU"),
        Row("steal beside a busy owner", "a word to another CPU"),
    ],
    "handoff": [
        Row("ping-pong, one CPU"),
        Row("handoff, one CPU", "ping-pong, one CPU", "1.30 times"),
        Row("ping-pong, two CPUs"),
        Row("handoff, two CPUs", "ping-pong, two CPUs", "1.30 times"),
        Row("handoff with search, two CPUs", "ping-pong, two CPUs"),
    ],
    "threads": [
        Row("a new stack alone"),
        Row("pthread, libc's stack", "pthread, new stack"),
        Row("pthread, new stack"),
        Row("bare thread, new stack", "pthread, new stack"),
        Row("worker by pthread", "pthread, new stack"),
        Row("worker by clone", "pthread, new stack"),
        Row("worker by clone3", "pthread, new stack", "1.50 times + incubator"),
    ],
    "tasks": [
        Row("bare ring"),
        Row("one worker", "bare ring", "200 ns"),
        Row("two workers", "bare ring", "200 ns"),
    ],
}


def measure(program: Path, rounds: int) -> Turns:
    done = subprocess.run([program, str(rounds)], stdout=subprocess.PIPE, text=True, check=True)
    turns: Turns = defaultdict(list)
    for line in done.stdout.splitlines():
        name, _, value = line.partition("\t")
        turns[name].append(float(value))
    return turns


def add_rows(table: Table, title: str, turns: Turns) -> None:
    for row in TABLES[title]:
        values = turns.get(row.name)
        if values is None:
            table.add_row(title, row.name, "not here")
            continue
        median = statistics.median(values)
        cells = [title, row.name, f"{median:,.1f}", f"{1e3 / median:.3f}"]
        if row.beside is None:
            cells += ["1.00", ""]
        else:
            ratios = [mine / its for mine, its in zip(values, turns[row.beside], strict=True)]
            cells += [f"{statistics.median(ratios):.2f}", row.beside]
        table.add_row(*cells, row.aim)
    table.add_section()


def explain_incubator(turns: Turns) -> str:
    """What the second thread costs that a worker by clone3 needs for a moment."""
    median = {name: statistics.median(values) for name, values in turns.items()}
    incubator = median["bare thread, new stack"] - median["a new stack alone"]
    pthread, worker = median["pthread, new stack"], median.get("worker by clone3", 0)
    return (
        "A worker by clone3 takes over from a pthread, its incubator. One more thread costs the"
        f" kernel {incubator / 1e3:.1f} µs (a bare thread, less its stack): allowed are"
        f" 1.5 x {pthread / 1e3:.1f} + {incubator / 1e3:.1f}"
        f" = {(1.5 * pthread + incubator) / 1e3:.1f} µs, and it takes {worker / 1e3:.1f} µs."
    )


def describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs,"
        f" Linux {platform.release()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the programs were built")
    parser.add_argument("--rounds", type=int, default=9, help="turns (default: %(default)s)")
    arguments = parser.parse_args()
    rounds: int = arguments.rounds
    table = Table(title="The core", caption=f"Medians of {rounds} turns. {describe_machine()}")
    for column in ("of", "what", "ns", "million a second", "times", "that of", "aim: at most"):
        texts = ("of", "what", "that of", "aim: at most")
        table.add_column(column, justify="left" if column in texts else "right")
    notes = []
    for title in TABLES:
        turns = measure(arguments.directory / title, rounds)
        add_rows(table, title, turns)
        notes += [
            f"{name[0].upper()}{name[1:]}: {statistics.median(values):.2f}"
            for name, values in turns.items()
            if name.startswith("wakes")
        ]
        if title == "threads":
            notes.append(explain_incubator(turns))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


if __name__ == "__main__":
    main()
