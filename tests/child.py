"""Python processes of their own, for what would change or end the process of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run_child(
    script: str, *, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script and return how it ended. One that hangs fails the test, after a minute.

    It can import what the tests share.
    """
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **(env or {})},
    )


def check_child(
    script: str, expected: str = "", *, status: int = 0, env: dict[str, str] | None = None
) -> None:
    """Run a script and assert how it ended, having printed what was expected, no more."""
    result = run_child(script, env=env)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (status, expected, "")
