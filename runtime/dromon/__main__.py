"""The command line, ``python -m dromon``. Each command has a module that does the work."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from . import __version__, _doctor
from ._demo._command import add_to as _add_demo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status, which is 2 if none was named.

    Args:
      argv (Sequence[str] | None): The arguments after the program's name. By default those of this
          process.

    Raises:
      SystemExit: The arguments made no sense, or asked only for the help or the version.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = args.run
    if run is None:
        parser.print_help(sys.stderr)
        return 2
    return run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dromon", description="A task runtime for trio on raw Linux threads."
    )
    parser.add_argument("--version", action="version", version=f"dromon {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _doctor.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
