"""What the doctor says: a table, or one JSON object."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

import attrs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._extensions import Extension, Extensions
    from ._machine import Limits, Machine
    from ._python import PythonFacts
    from ._threads import Threads

MIB = 1 << 20


@attrs.frozen
class Report:
    """All that was found: the JSON object has these fields, and ``works``."""

    threads: Threads
    machine: Machine
    python: PythonFacts
    extensions: Extensions

    @property
    def works(self) -> bool:
        """Whether dromon can work here."""
        return not self.threads.problems


def print_json(report: Report) -> None:
    """Print one JSON object."""
    print(json.dumps({"works": report.works} | attrs.asdict(report), indent=2))


def print_table(report: Report) -> None:
    """Print what was found, line by line, and the verdict last."""
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, found in _lines(report):
        table.add_row(what, Text(found))
    console.print(table)
    if report.extensions.modules:
        console.print()
        console.print(_extensions_table(report.extensions))
    console.print()
    if report.works:
        console.print("dromon can work here.", highlight=False)
    for problem in report.threads.problems:
        console.print(Text(f"dromon cannot work here: {problem}"), soft_wrap=True)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    machine, python, threads = report.machine, report.python, report.threads
    yield "kernel", machine.system
    yield "libc", machine.libc
    yield "threads", _threads(threads)
    filters = f", {machine.seccomp_filters} installed" if machine.seccomp_filters else ""
    yield "seccomp", f"{machine.seccomp}{filters}"
    yield "rseq", "libc's area is registered" if machine.rseq else "libc has registered no area"
    yield "CPUs", _cpus(machine)
    yield "default pool", _workers(threads.default_workers)
    reason = threads.no_isolation
    yield "isolation", "isolated workers can be had" if reason is None else reason
    yield from _limits(machine.limits)
    debug = ", a debug build" if python.debug else ""
    yield "Python", f"{python.implementation} {python.version}{debug} ({python.build})"
    yield "GIL", python.gil
    yield "packages", ", ".join(f"{name} {number}" for name, number in python.packages.items())
    if report.extensions.unknown is not None:
        yield "own GIL", f"{report.extensions.unknown}; no extension module was tried"


def _threads(threads: Threads) -> str:
    wish = threads.spawn_asked_for
    asked = "" if wish is None else f" (DROMON_SPAWN asks for {wish})"
    if threads.spawn is None:
        return f"none could be made{asked}"
    reason = "" if threads.spawn_error is None else f", not by clone3: {threads.spawn_error}"
    return f"made by {threads.spawn}{reason}{asked}"


def _cpus(machine: Machine) -> str:
    quota = "no quota" if machine.cpu_quota is None else f"a quota of {machine.cpu_quota:g}"
    return (
        f"{machine.usable_cpus} usable: {len(machine.cpus)} by affinity ({_ranges(machine.cpus)}),"
        f" {quota} by control groups"
    )


def _ranges(numbers: list[int]) -> str:
    """``0-3,8`` for 0, 1, 2, 3 and 8, as the kernel writes it."""
    parts = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        first, *rest = [number for _, number in run]
        parts.append(f"{first}-{rest[-1]}" if rest else f"{first}")
    return ",".join(parts)


def _workers(count: int | None) -> str:
    if count is None:
        return "cannot be opened"
    return f"{count} worker{'s' if count > 1 else ''}"


def _limits(limits: Limits) -> Iterator[tuple[str, str]]:
    here = "" if limits.cgroup_processes_now is None else f", {limits.cgroup_processes_now} there"
    yield (
        "threads at most",
        f"{_or_none(limits.user_processes)} of the user (ulimit -u),"
        f" {_or_none(limits.system_threads)} of the system (kernel.threads-max),"
        f" {_or_none(limits.cgroup_processes)} by control groups (pids.max){here}",
    )
    yield (
        "memory at most",
        f"{_mib(limits.address_space)} (ulimit -v), {_mib(limits.cgroup_memory)} by control groups"
        f" (memory.max), {_or_none(limits.mappings)} mappings (vm.max_map_count)",
    )
    yield "files at most", f"{_or_none(limits.open_files)} (ulimit -n)"


def _or_none(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)


def _mib(size: int | None) -> str:
    return "no limit" if size is None else f"{size // MIB} MiB"


def _why(extension: Extension) -> str:
    problem = (extension.problem or "").partition("\n")[0]
    return problem if extension.module in problem else f"{extension.module}: {problem}"


def _extensions_table(extensions: Extensions) -> Table:
    table = Table(
        title="Extension modules in an interpreter with a GIL of its own",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 2, 0, 0),
        show_edge=False,
    )
    table.add_column("distribution", no_wrap=True)
    table.add_column("load", justify="right", no_wrap=True)
    table.add_column("the first that does not", overflow="fold")
    for distribution, group in groupby(extensions.modules, lambda each: each.distribution):
        modules = list(group)
        failed = [each for each in modules if each.problem is not None]
        first = _why(failed[0]) if failed else ""
        loaded = f"{len(modules) - len(failed)} of {len(modules)}"
        table.add_row(Text(distribution), loaded, Text(first))
    return table
