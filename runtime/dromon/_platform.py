"""The check that comes before everything else: whether dromon can run here at all."""

from __future__ import annotations

import platform
import sys


def check() -> None:
    """Raise ImportError unless this is Linux on a processor that the core has assembly for."""
    system, machine = sys.platform, platform.machine()
    if system != "linux" or machine not in ("x86_64", "aarch64"):
        raise ImportError(
            f"dromon runs on Linux x86-64 and aarch64 only, and this is {system} {machine}."
        )
