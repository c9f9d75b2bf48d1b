"""Python processes of their own, for what would change or end the process of the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path


def without_saturation(stderr: str) -> str:
    """What a process wrote, but for the warning that it had much to do, as on a busy machine."""
    return re.sub(r"^the pool .* has been saturated .*\n", "", stderr, flags=re.MULTILINE)


def run_child(
    script: str, *, env: dict[str, str] | None = None, may_be_saturated: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a script and return how it ended. One that hangs fails the test, after a minute.

    It can import what the tests share. If a pool may be saturated, the warning is taken out.
    """
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **(env or {})},
    )
    if may_be_saturated:
        result.stderr = without_saturation(result.stderr)
    return result


def check_child(
    script: str, expected: str = "", *, status: int = 0, env: dict[str, str] | None = None
) -> None:
    """Run a script and assert how it ended, having printed what was expected, no more."""
    result = run_child(script, env=env)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (status, expected, "")
