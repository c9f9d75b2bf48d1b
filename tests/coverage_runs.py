"""Runs of coverage, each in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_coverage(core: str, folder: Path, *arguments: str) -> str:
    """Run ``coverage`` there, by one of its cores, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "coverage", *arguments],
        cwd=folder,
        env=os.environ | {"COVERAGE_CORE": core},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    ).stdout
