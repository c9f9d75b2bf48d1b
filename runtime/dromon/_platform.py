"""The check that comes before everything else: whether dromon can run here at all."""

from __future__ import annotations

import os
import sys


def check() -> None:
    """Raise ImportError unless this is Linux on a processor that the core has assembly for."""
    if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
        return
    import platform  # whose import takes a while

    raise ImportError(
        "dromon runs on Linux x86-64 and aarch64 only, and this is"
        f" {sys.platform} {platform.machine()}."
    )
