"""The command ``doctor``: what dromon finds on this machine, and whether it can work here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._extensions import examine_extensions
from ._machine import Machine
from ._python import PythonFacts
from ._report import Report, print_json, print_table
from ._threads import try_a_pool

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction


def add_to(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command ``doctor`` to what `argparse.ArgumentParser.add_subparsers` returned."""
    parser = commands.add_parser(
        "doctor",
        help="say whether dromon can work here, and how its threads are made",
        description=(
            "Open a pool and make a call, and tell what matters to it: kernel, libc, sandbox, CPUs,"
            " limits, Python, and which installed extension modules an interpreter with a GIL of"
            " its own would load (tried in processes of their own). The exit status is 0 if dromon"
            " can work here."
        ),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.set_defaults(run=_run)


def _run(args: Namespace) -> int:
    if sys.stderr.isatty():
        # Not rich's spinner: that is a thread, and there may be none.
        print("trying extension modules ...", file=sys.stderr)
    report = Report(
        threads=try_a_pool(),
        machine=Machine.examine(),
        python=PythonFacts.examine(),
        extensions=examine_extensions(),
    )
    (print_json if args.json else print_table)(report)
    return 0 if report.works else 1
