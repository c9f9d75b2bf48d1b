"""The command `demo`: the same files through trio's threads, dromon's pool and bare processes."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import sysconfig
from typing import TYPE_CHECKING

import trio

from dromon._cpus import usable_cpus

from ._bar import Bar
from ._files import survey
from ._forked import forked
from ._measure import ROUNDS, measure
from ._report import Report, print_json, print_table, print_unreadable

if TYPE_CHECKING:
    # argparse gives the type of `add_subparsers()` no public name.
    from argparse import _SubParsersAction


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `demo`.

    Args:
        commands: What `ArgumentParser.add_subparsers()` returned.
    """
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
        default=sysconfig.get_path("stdlib"),
        help="a folder or one file (default: Python's standard library, %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=usable_cpus(),
        help="workers, and bare processes (default: the usable CPUs, here %(default)s)",
    )
    parser.set_defaults(run=functools.partial(_run, parser))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a whole number above zero: {text!r}")
    return int(text)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    path: str = args.path
    workers: int = args.workers
    try:
        os.stat(path)
    except OSError as error:
        parser.error(f"{path!r}: {error.strerror}")
    bar = Bar(sys.stderr)
    # This pass over all files also warms the page cache, so that no way pays for the disk.
    with bar.shown():
        tree = survey(path, bar)
    if not tree.files:
        print_unreadable(tree.unreadable)
        parser.error(f"{path!r}: no regular file that can be read")
    # Forked here, while this process has only one thread.
    with forked(tree.files, workers) as processes, bar.shown():
        rounds, threads = trio.run(measure, tree.files, workers, processes, bar)
    report = Report.of(path, tree, rounds, threads)
    print_unreadable(report.unreadable)
    (print_json if args.json else print_table)(report)
    return 0
