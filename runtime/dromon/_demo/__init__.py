"""The command ``demo``: the same files through trio's threads, dromon's and bare processes."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from typing import TYPE_CHECKING

import trio

from .. import open_pool
from .._cpus import usable_cpus
from ._bar import Bar
from ._files import survey
from ._forked import forked
from ._measure import ROUNDS, measure
from ._report import Report, print_json, print_table, print_unreadable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction


STANDARD_LIBRARY = sysconfig.get_path("stdlib")
# What was installed into the standard library's folder is not a part of it.
THIRD_PARTY = os.path.join(STANDARD_LIBRARY, "site-packages")


def add_to(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command ``demo`` to what `argparse.ArgumentParser.add_subparsers` returned."""
    parser = commands.add_parser(
        "demo",
        help="compress and hash a tree of files in several ways, and compare them",
        description=(
            "Read, compress (zlib) and hash (SHA-256) every regular file below PATH: in the trio"
            " task itself, with trio.to_thread, on a dromon pool, and in bare forked processes,"
            f" which show the most that this machine gives. The ways take turns, {ROUNDS} times."
        ),
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        default=STANDARD_LIBRARY,
        help="a folder or one file (default: Python's standard library, %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=usable_cpus(),
        help="workers, and bare processes (default: the usable CPUs, here %(default)s)",
    )
    parser.set_defaults(run=functools.partial(_run, parser))


def _run(parser: ArgumentParser, args: Namespace) -> int:
    path: str = args.path
    workers: int = args.workers
    try:
        os.stat(path)
    except OSError as error:
        parser.error(f"argument PATH: {path!r}: {error.strerror}")
    try:
        # No thread starts before `measure` enters it.
        opening = open_pool(workers=workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    bar = Bar(sys.stderr)
    # This pass also fills the page cache, so that no way has to wait for the disk.
    with bar.shown():
        tree = survey(path, bar, skip=THIRD_PARTY if path == STANDARD_LIBRARY else None)
    if not tree.files:
        print_unreadable(tree.unreadable)
        parser.error(f"argument PATH: {path!r}: no regular file that can be read")
    # Forked here, while this process has only one thread.
    with forked(tree.files, workers) as channels, bar.shown():
        rounds, threads = trio.run(measure, tree.files, opening, channels, bar)
    report = Report.of(path, tree, rounds, threads)
    print_unreadable(report.unreadable)
    (print_json if args.json else print_table)(report)
    return 0
