"""What is done to let functions and large data travel fast changes nothing of what arrives."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dromon

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1, isolation="interpreter") as pool:
        yield pool


def run(pool: dromon.Pool, fn: Callable[..., Any], *args: object) -> Any:
    return pool.submit(fn, *args).result(timeout=60)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_large_bytes_arrive_whole(pool: dromon.Pool) -> None:
    result = run(pool, operator.mul, b"0123456789", MEGABYTE)
    assert result == b"0123456789" * MEGABYTE
    assert hash(result) == hash(b"0123456789" * MEGABYTE)


def test_large_bytes_that_the_worker_keeps_stay_there(pool: dromon.Pool) -> None:
    def keep() -> bytes:
        sys.kept = bytes(MEGABYTE)  # type: ignore[attr-defined]
        return sys.kept  # type: ignore[attr-defined, no-any-return]

    first = run(pool, keep)
    again = run(pool, lambda: sys.kept)  # type: ignore[attr-defined]
    del first
    assert run(pool, lambda: len(sys.kept)) == len(again) == MEGABYTE  # type: ignore[attr-defined]


def test_large_results_that_nobody_takes_are_freed(pool: dromon.Pool) -> None:
    run(pool, bytes, MEGABYTE)
    before = resident()
    for _ in range(300):
        run(pool, operator.mul, b"x", MEGABYTE)
    assert resident() - before < 100 * MEGABYTE


def test_many_functions_each_stay_the_one_that_they_are(pool: dromon.Pool) -> None:
    names = [name for name in dir(operator) if name.startswith("__i") or not name.startswith("_")]
    functions = [fn for name in names if type(fn := getattr(operator, name)) is type(len)]
    functions += [fn for name in dir(math) if callable(fn := getattr(math, name))]
    assert len(functions) > 64  # of which the bridge keeps something
    for fn in functions * 2:
        for args in ((3, 2), (0.5,)):
            try:
                expected = fn(*args)
            except (TypeError, ValueError):
                continue
            assert run(pool, fn, *args) == expected
