"""The command line: `python -m dromon`. Each command has a module of its own that does the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import dromon
from dromon import _demo


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dromon", description="A task runtime for trio on raw Linux threads."
    )
    parser.add_argument("--version", action="version", version=f"dromon {dromon.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _demo.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; by default those of this process.

    Returns:
        The exit status: 2 if no command was named.

    Raises:
        SystemExit: The arguments made no sense (2), or asked only for help or the version (0).
    """
    parser = _parser()
    args = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = getattr(args, "run", None)
    if run is None:
        parser.print_help(sys.stderr)
        return 2
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
