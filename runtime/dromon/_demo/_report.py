"""What the demo says in the end: a table, or one JSON object."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from dromon._cpus import usable_cpus

from ._files import Tree, Unreadable
from ._measure import ROUNDS, Round, Thread

MEGA = 1_000_000


@attrs.frozen
class Row:
    """The median round of one way."""

    way: str
    files: int
    bytes: int
    compressed_bytes: int
    sha256: str
    seconds: float
    mb_per_second: float
    speed_up: float
    loop_late_p50_ms: float | None
    loop_late_p99_ms: float | None

    @classmethod
    def of(cls, way: str, median: Round, serial: Round) -> Row:
        """Make the row of a way from its median round and that of the way `serial`."""
        work = median.work
        return cls(
            way,
            work.files,
            work.read,
            work.compressed,
            f"{work.digest:064x}",
            median.seconds,
            work.read / MEGA / median.seconds,
            serial.seconds / median.seconds,
            _percentile_ms(median.lateness, 0.50),
            _percentile_ms(median.lateness, 0.99),
        )


@attrs.frozen
class Python:
    """The running Python."""

    version: str
    implementation: str
    compiler: str
    gil: bool

    @classmethod
    def running(cls) -> Python:
        """Describe the running Python."""
        return cls(
            platform.python_version(),
            platform.python_implementation(),
            platform.python_compiler(),
            _gil_enabled(),
        )


@attrs.frozen
class Report:
    """All that the demo found; its fields are those of the JSON object."""

    path: str
    unreadable: Sequence[Unreadable]
    rounds: int
    rows: Sequence[Row]
    agree: bool
    """Whether every round of every way came to the same sums and digest."""
    workers: Sequence[Thread]
    python: Python
    usable_cpus: int

    @classmethod
    def of(
        cls,
        path: str,
        tree: Tree,
        rounds: Mapping[str, Sequence[Round]],
        workers: Sequence[Thread],
    ) -> Report:
        """Put the report together.

        Args:
            path: What the user named.
            tree: What was found there.
            rounds: The rounds of each way, `serial` among them.
            workers: The threads of the pool.
        """
        works = [each.work for way in rounds.values() for each in way]
        sums = {(work.files, work.read, work.compressed, work.digest) for work in works}
        # A file that goes away later fails in every way and round; it is reported once.
        failures = [*tree.unreadable, *(each for work in works for each in work.unreadable)]
        medians = {way: _median(each) for way, each in rounds.items()}
        return cls(
            path,
            list({each.path: each for each in failures}.values()),
            ROUNDS,
            [Row.of(way, median, medians["serial"]) for way, median in medians.items()],
            len(sums) == 1,
            workers,
            Python.running(),
            usable_cpus(),
        )


def print_unreadable(unreadable: Iterable[Unreadable]) -> None:
    """List on stderr what could not be read."""
    for each in unreadable:
        print(f"cannot read {each.path!r}: {each.reason}", file=sys.stderr)


def print_json(report: Report) -> None:
    """Print one JSON object."""
    print(json.dumps(attrs.asdict(report), indent=2))


def print_table(report: Report) -> None:
    """Print the table, and below it what it was measured on."""
    # As narrow as can be, for terminals of 80 columns.
    table = Table(caption=_caption(report), box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("", overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.way, *_cells(row))
    console = Console()
    console.print(table)
    for line in _machine(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


_HEADINGS = ("files", "MB", "s", "MB/s", "speed\nup", "loop\nlate\np50 ms", "loop\nlate\np99 ms")


def _cells(row: Row) -> Iterable[str]:
    yield f"{row.files}"
    yield f"{row.bytes / MEGA:.1f}"
    yield f"{row.seconds:.3f}"
    yield f"{row.mb_per_second:.1f}"
    yield f"{row.speed_up:.2f}"
    for milliseconds in (row.loop_late_p50_ms, row.loop_late_p99_ms):
        yield "" if milliseconds is None else f"{milliseconds:.2f}"


def _caption(report: Report) -> str:
    agree = "All ways agree" if report.agree else "THE WAYS DISAGREE: did the files change?"
    return (
        f"Median of {report.rounds} rounds; the ways took turns. {agree}."
        f" Unreadable: {len(report.unreadable)}."
    )


def _machine(report: Report) -> Iterable[str]:
    yield f"path:        {report.path!r}"
    yield f"workers:     {len(report.workers)}"
    yield f"threads:     {', '.join(map(_thread, report.workers))}"
    python = report.python
    gil = "on" if python.gil else "off"
    yield f"Python:      {python.implementation} {python.version}, {python.compiler}, GIL {gil}"
    yield f"usable CPUs: {report.usable_cpus}"


def _thread(thread: Thread) -> str:
    refused = "" if thread.spawn_error is None else f": {thread.spawn_error}"
    return f"{thread.name} (TID {thread.tid}, made by {thread.spawn}{refused})"


def _gil_enabled() -> bool:
    if sys.version_info >= (3, 13):
        return sys._is_gil_enabled()
    return True


def _median(rounds: Sequence[Round]) -> Round:
    return sorted(rounds, key=lambda each: each.seconds)[len(rounds) // 2]


def _percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Give the smallest value that at least this share of the values does not exceed."""
    if not seconds:
        return None
    return sorted(seconds)[math.ceil(share * len(seconds)) - 1] * 1000
