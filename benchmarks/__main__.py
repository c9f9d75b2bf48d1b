"""The command: ``python -m benchmarks [QUESTION ...] [--json FILE] [--html FILE]``."""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from . import machine, page, report, results_file, workloads
from .measure import measure
from .model import Question
from .questions import QUESTIONS


def pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{error}: {text!r}") from None


def parse() -> argparse.Namespace:
    names = "\n".join(f"  {name:20} {one.title}" for name, one in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="dromon beside its peers, on the same work, in one run.",
        epilog=f"questions:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help="which (default: all); see below"
    )
    parser.add_argument(
        "--contenders",
        type=pattern,
        default="",
        metavar="REGEX",
        help="only those in whose names it is found, and what they are compared with",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values, for pyperf")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--rounds", type=int, help="turns of each (default: each question's own)")
    cpus = os.sched_getaffinity(0)
    parser.add_argument(
        "--workers",
        type=int,
        default=len(cpus),
        help="of each contender; all are pinned to so many CPUs (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order (default: %(default)s)")
    options = parser.parse_args()
    if unknown := [name for name in options.questions if name not in QUESTIONS]:
        parser.error(f"no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    for name in ("rounds", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, not {value}")
    for path in (options.json, options.html):
        if path is not None and not path.parent.is_dir():
            parser.error(f"there is no folder {path.parent}")
    return options


def only(question: Question, names: re.Pattern[str]) -> Question:
    bases = {question.base} if isinstance(question.base, str) else set(question.base.values())
    chosen = [one for one in question.contenders if one.name in bases or names.search(one.name)]
    return replace(question, contenders=chosen)


def main() -> None:
    options = parse()
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[: options.workers])
    description = machine.describe(options.workers, options.seed)
    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, markup=False, highlight=False)
    for key, value in description.items():
        console.print(f"{key}: {value}")
    workloads.find_speeds()
    all_results = []
    interrupted = False
    for name in options.questions or QUESTIONS:
        question, order = only(QUESTIONS[name], options.contenders), random.Random(options.seed)
        rounds = options.rounds or question.rounds
        # It is drawn between turns only, when nothing is measured.
        drawn = Progress(console=Console(stderr=True), transient=True, auto_refresh=False)
        try:
            with drawn as progress:
                results = measure(question, options.workers, rounds, order, progress)
        except KeyboardInterrupt:
            console.print(f"Interrupted: {question.name} and what follows it is left out.")
            interrupted = True
            break
        all_results.append(results)
        report.show(results, console)
    description["load after"] = machine.load()
    console.print(f"load after: {description['load after']}")
    if options.json is not None:
        results_file.write(options.json, all_results, description)
    if options.html is not None:
        page.write(options.html, all_results, description)
    if interrupted:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
