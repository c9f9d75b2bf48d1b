"""The command ``demo``: the same files through trio's threads, dromon's and bare processes."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from typing import TYPE_CHECKING, Literal

import trio

from .. import IsolationError, open_pool
from .._cpus import usable_cpus
from ._bar import Bar
from ._files import survey
from ._forked import forked
from ._measure import ROUNDS, measure
from ._report import Report, print_json, print_tables, print_unreadable
from ._workloads import workloads

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction


STANDARD_LIBRARY = sysconfig.get_path("stdlib")
# What was installed into the standard library's folder is not a part of it.
THIRD_PARTY = os.path.join(STANDARD_LIBRARY, "site-packages")


def add_to(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command ``demo`` to what `argparse.ArgumentParser.add_subparsers` returned."""
    parser = commands.add_parser(
        "demo",
        help="work on a tree of files in several ways, and compare them",
        description=(
            "Read, compress (zlib) and hash (SHA-256) every regular file below PATH; then tokenize"
            " every Python file (.py) among them, which is pure Python: in the trio task itself,"
            " with trio.to_thread, on a dromon pool, and in bare forked processes, which show the"
            f" most that this machine gives. The ways take turns, {ROUNDS} times."
        ),
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        default=STANDARD_LIBRARY,
        help="a folder or one file (default: Python's standard library, %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=usable_cpus(),
        help="workers, and bare processes (default: the usable CPUs, here %(default)s)",
    )
    parser.add_argument(
        "--isolation",
        choices=["thread", "interpreter", "auto"],
        default="thread",
        help=(
            "what the pool's workers are: threads that share a GIL, threads with an interpreter and"
            " a GIL of their own, or what suits this Python (default: %(default)s)"
        ),
    )
    parser.set_defaults(run=functools.partial(_run, parser))


def _run(parser: ArgumentParser, args: Namespace) -> int:
    path: str = args.path
    workers: int = args.workers
    isolation: Literal["thread", "interpreter", "auto"] = args.isolation
    try:
        os.stat(path)
    except OSError as error:
        parser.error(f"argument PATH: {path!r}: {error.strerror}")
    try:
        # No thread starts before `measure` enters it.
        opening = open_pool(workers, isolation=isolation)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    except IsolationError as error:
        parser.error(f"argument --isolation: {error}")
    bar = Bar(sys.stderr)
    # This pass also fills the page cache, so that no way has to wait for the disk.
    with bar.shown():
        tree = survey(path, bar, skip=THIRD_PARTY if path == STANDARD_LIBRARY else None)
    if not tree.files:
        print_unreadable(tree.unreadable)
        parser.error(f"argument PATH: {path!r}: no regular file that can be read")
    todo = workloads(tree.files)
    # Forked here, while this process has only one thread.
    with forked(todo, workers) as channels, bar.shown():
        rounds, threads = trio.run(measure, todo, opening, channels, bar)
    report = Report.of(path, tree, list(zip(todo, rounds, strict=True)), isolation, threads)
    print_unreadable(report.unreadable)
    (print_json if args.json else print_tables)(report)
    return 0
