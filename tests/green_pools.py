"""Pools whose workers' green threads are tested: of both sorts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import pytest

import dromon

Isolation = Literal["thread", "interpreter"]

ISOLATIONS = [
    "thread",
    pytest.param(
        "interpreter",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12"),
    ),
]

in_both = pytest.mark.parametrize("isolation", ISOLATIONS)


def run(isolation: Isolation, fn: Callable[..., Any], *args: Any) -> Any:
    """Return ``fn(*args)``, called on the only worker of a fresh pool."""
    with dromon.Pool(1, isolation=isolation) as pool:
        return pool.submit(fn, *args).result(timeout=60)
