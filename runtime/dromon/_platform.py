"""The check that comes before everything else: whether dromon can run here at all."""

from __future__ import annotations

import os
import sys


def check() -> None:
    """Raise ImportError unless this is Linux on a processor that the core has assembly for.

    And where this is CPython 3.14.0, which takes each stack but a thread's own for one that has
    overflowed (python/cpython#139653): green threads would fail by RecursionErrors at random.
    """
    if sys.version_info[:3] == (3, 14, 0):
        raise ImportError(
            "dromon does not run on CPython 3.14.0, which cannot have green threads"
            " (python/cpython#139653); 3.14.1 and all others from 3.11 on can."
        )
    if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
        return
    import platform  # whose import takes a while

    raise ImportError(
        "dromon runs on Linux x86-64 and aarch64 only, and this is"
        f" {sys.platform} {platform.machine()}."
    )
