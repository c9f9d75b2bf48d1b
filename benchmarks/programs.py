"""The programs in C that measure the core alone (``native``), which ``make bench`` builds."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .model import Refused

BUILT = Path(__file__).parents[1] / "build" / "bench" / "benchmarks" / "native"


def run(program: str, *arguments: object) -> dict[str, float]:
    """What it measures, by name: nothing where these CPUs or this kernel have no such thing."""
    if not (BUILT / program).exists():
        raise Refused("it is not built; `make bench` does that")
    done = subprocess.run(
        [BUILT / program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {name: float(value) for name, value in rows}
