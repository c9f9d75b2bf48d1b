"""What the demo says in the end: tables, or one JSON object."""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
from typing import TYPE_CHECKING, Final

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from .._cpus import usable_cpus
from ._measure import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .. import WorkerStatistics
    from ._files import Tree, Unreadable
    from ._measure import Round
    from ._workloads import Workload

MEGA: Final = 1_000_000
HEADINGS: Final = (
    "files",
    "MB",
    "s",
    "MB/s",
    "speed\nup",
    "of the\nceiling",
    "loop\nlate\np50 ms",
    "loop\nlate\np99 ms",
)


@attrs.frozen
class Row:
    """The median round of one way, and how it compares: medians of the ratios within a round."""

    way: str
    calls_at_once: int
    files: int
    bytes: int
    counts: Mapping[str, int]
    seconds: float
    mb_per_second: float
    speed_up: float
    of_the_ceiling: float
    loop_late_p50_ms: float | None
    loop_late_p99_ms: float | None

    @classmethod
    def of(cls, rounds: Sequence[Round], serial: Sequence[Round], ceiling: Sequence[Round]) -> Row:
        """Make the row of a way from its rounds and those of the two that it is compared with."""
        median = sorted(rounds, key=lambda each: each.seconds)[len(rounds) // 2]
        work = median.work
        return cls(
            way=median.way,
            calls_at_once=median.calls_at_once,
            files=work.files,
            bytes=work.read,
            counts=dict(work.counts.most_common()),
            seconds=median.seconds,
            mb_per_second=work.read / MEGA / median.seconds,
            speed_up=_times_faster(rounds, serial),
            of_the_ceiling=_times_faster(rounds, ceiling),
            loop_late_p50_ms=_percentile_ms(median.lateness, 50),
            loop_late_p99_ms=_percentile_ms(median.lateness, 99),
        )


@attrs.frozen
class Comparison:
    """What came of one workload.

    Attributes:
      workload (str): What was done to the files.
      rows (Sequence[Row]): The ways.
      agree (bool): Whether all rounds of all ways came to the same sums.
      skipped (int): How many of the files the workload is not for.
    """

    workload: str
    rows: Sequence[Row]
    agree: bool
    skipped: int

    @classmethod
    def of(cls, workload: Workload, rounds: Sequence[Sequence[Round]], files: int) -> Comparison:
        """Compare the ways, that of ``serial`` first and of the ceiling last."""
        serial, ceiling = rounds[0], rounds[-1]
        first, *others = (each.work for way in rounds for each in way)
        return cls(
            workload=workload.name,
            rows=[Row.of(way, serial, ceiling) for way in rounds],
            agree=all(
                (work.files, work.read, work.counts) == (first.files, first.read, first.counts)
                for work in others
            ),
            skipped=files - len(workload.files),
        )


@attrs.frozen
class Worker:
    """A thread of the pool, and how it was made."""

    name: str
    tid: int
    spawn: str
    spawn_error: str | None


@attrs.frozen
class Python:
    """The running Python."""

    version: str
    implementation: str
    compiler: str
    gil: bool


@attrs.frozen
class Report:
    """All that the demo found: the JSON object has these fields.

    Attributes:
      path (str): What the user named.
      unreadable (Sequence[Unreadable]): What could not be read there.
      rounds (int): How often each way did all files.
      workloads (Sequence[Comparison]): What was done to the files, and how fast.
      isolation (str): What the user chose for the workers of the pool.
      workers (Sequence[Worker]): The threads of the pool.
      python (Python): The running Python.
      usable_cpus (int): How many CPUs the process may use.
    """

    path: str
    unreadable: Sequence[Unreadable]
    rounds: int
    workloads: Sequence[Comparison]
    isolation: str
    workers: Sequence[Worker]
    python: Python
    usable_cpus: int

    @classmethod
    def of(
        cls,
        path: str,
        tree: Tree,
        measured: Sequence[tuple[Workload, Sequence[Sequence[Round]]]],
        isolation: str,
        workers: Sequence[WorkerStatistics],
    ) -> Report:
        """Put the report together from what `survey` and `measure` returned."""
        works = [each.work for _, rounds in measured for way in rounds for each in way]
        # A file that goes away after the survey fails in every way; it is reported once.
        failures = [*tree.unreadable, *(each for work in works for each in work.unreadable)]
        return cls(
            path=path,
            unreadable=list({each.path: each for each in failures}.values()),
            rounds=ROUNDS,
            workloads=[Comparison.of(*each, len(tree.files)) for each in measured],
            isolation=isolation,
            workers=[Worker(each.name, each.tid, each.spawn, each.spawn_error) for each in workers],
            python=_running_python(),
            usable_cpus=usable_cpus(),
        )


def print_unreadable(unreadable: Iterable[Unreadable]) -> None:
    """List on stderr what could not be read."""
    for each in unreadable:
        print(f"cannot read {each.path!r}: {each.reason}", file=sys.stderr)


def print_json(report: Report) -> None:
    """Print one JSON object."""
    print(json.dumps(attrs.asdict(report), indent=2))


def print_tables(report: Report) -> None:
    """Print a table for each workload, and below them what they were measured on."""
    console = Console()
    for comparison in report.workloads:
        console.print(_table(comparison))
        console.print()
    for line in _circumstances(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    # As narrow as can be, for terminals of 80 columns.
    table = Table(
        title=comparison.workload,
        caption=_caption(comparison),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(row.way, *_cells(row))
    return table


def _cells(row: Row) -> Iterator[str]:
    yield f"{row.files}"
    yield f"{row.bytes / MEGA:.1f}"
    yield f"{row.seconds:.3f}"
    yield f"{row.mb_per_second:.1f}"
    yield f"{row.speed_up:.2f}"
    yield f"{row.of_the_ceiling:.2f}"
    for milliseconds in (row.loop_late_p50_ms, row.loop_late_p99_ms):
        yield "" if milliseconds is None else f"{milliseconds:.2f}"


def _caption(comparison: Comparison) -> str:
    agree = "All agree" if comparison.agree else "THEY DISAGREE: did the files change?"
    counts = ", ".join(f"{count} {name}" for name, count in comparison.rows[0].counts.items())
    skipped = f" Other files: {comparison.skipped}." if comparison.skipped else ""
    return f"{agree}: {counts}.{skipped}"


def _circumstances(report: Report) -> Iterator[str]:
    python = report.python
    gil = "on" if python.gil else "off"
    calls = (f"{row.way.partition(':')[0]} {row.calls_at_once}" for row in report.workloads[0].rows)
    yield f"path:          {report.path!r}"
    yield f"unreadable:    {len(report.unreadable)}"
    yield f"rounds:        {report.rounds}, each with a turn for each way; shown is the median"
    yield f"calls at once: {', '.join(calls)}"
    yield f"workers:       {len(report.workers)}, isolation: {report.isolation}"
    yield f"threads:       {', '.join(map(_thread, report.workers))}"
    yield f"Python:        {python.implementation} {python.version}, {python.compiler}, GIL {gil}"
    yield f"usable CPUs:   {report.usable_cpus}"


def _thread(worker: Worker) -> str:
    reason = "" if worker.spawn_error is None else f": {worker.spawn_error}"
    return f"{worker.name} (TID {worker.tid}, made by {worker.spawn}{reason})"


def _running_python() -> Python:
    return Python(
        version=platform.python_version(),
        implementation=platform.python_implementation(),
        compiler=platform.python_compiler(),
        gil=_gil_enabled(),
    )


def _gil_enabled() -> bool:
    if sys.version_info >= (3, 13):
        return sys._is_gil_enabled()
    return True


def _times_faster(rounds: Sequence[Round], than: Sequence[Round]) -> float:
    ratios = [b.seconds / a.seconds for a, b in zip(rounds, than, strict=True)]
    return statistics.median(ratios)


def _percentile_ms(seconds: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least so many percent of the values do not exceed."""
    if not seconds:
        return None
    return sorted(seconds)[math.ceil(percent * len(seconds) / 100) - 1] * 1000
