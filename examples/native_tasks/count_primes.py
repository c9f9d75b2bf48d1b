"""Count primes by 1,000 native tasks: C functions that run in parallel beside ordinary Python.

    python count_primes.py [--workers N] [--below NUMBER]

Compiles count_primes.c with cffi, into a temporary folder, and counts in three ways that take
turns: one job after the other; each job by `dromon.Pool.run_native`; and on a pool that C code
opens itself, with no Python in it. Prints the best of three times for each.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cffi
import trio

import dromon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOURCE = Path(__file__).with_name("count_primes.c")

DECLARATIONS = """
    struct job { uint32_t first, end, primes; };
    int count_primes(void *arg);
    int count_serially(struct job *jobs, uint32_t count);
    int count_on_pool(struct job *jobs, uint32_t count, uint32_t workers);
"""

JOBS = 1000
ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description="Count primes by 1,000 native tasks.")
    parser.add_argument("--workers", metavar="N", type=int, help="default: one per usable CPU")
    parser.add_argument("--below", metavar="NUMBER", type=int, default=3_000_000)
    args = parser.parse_args()
    if not JOBS <= args.below < 1 << 32:
        parser.error(f"argument --below: must be from {JOBS} to {(1 << 32) - 1}")
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    with tempfile.TemporaryDirectory() as folder:
        work = build(folder)
    return trio.run(compare, work, opening, args.below)


def build(folder: str) -> Any:
    """Compile the C code to an extension module, with cffi's API mode, and import it."""
    builder = cffi.FFI()
    builder.cdef(DECLARATIONS)
    builder.set_source(
        "_count_primes",
        SOURCE.read_text(),
        include_dirs=[dromon.get_include()],
        extra_link_args=[dromon.get_library()],
        extra_compile_args=["-O2"],
    )
    path = builder.compile(tmpdir=folder)
    spec = importlib.util.spec_from_file_location("_count_primes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def compare(work: Any, opening: Any, below: int) -> int:
    ffi, lib = work.ffi, work.lib
    bounds = [below * number // JOBS for number in range(JOBS + 1)]
    # run_native keeps alive what it is given, which is a part of this: so this has to stay, too.
    jobs = ffi.new("struct job[]", [(first, end, 0) for first, end in pairwise(bounds)])

    async with opening as pool:
        workers = len(pool.statistics().workers)

        async def serially() -> None:
            lib.count_serially(jobs, JOBS)

        async def by_run_native() -> None:
            count_primes = ffi.addressof(lib, "count_primes")
            async with trio.open_nursery() as nursery:
                for number in range(JOBS):
                    nursery.start_soon(pool.run_native, count_primes, jobs + number)

        async def in_c_alone() -> None:
            status = lib.count_on_pool(jobs, JOBS, workers)
            if status < 0:
                raise OSError(-status, os.strerror(-status))

        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "one after the other": serially,
            "pool.run_native": by_run_native,
            "libdromon, in C alone": in_c_alone,
        }
        seconds = {name: float("inf") for name in ways}
        counts = set()
        for _ in range(ROUNDS):
            for name, count in ways.items():
                for number in range(JOBS):
                    jobs[number].primes = 0
                began = time.perf_counter()
                await count()
                seconds[name] = min(seconds[name], time.perf_counter() - began)
                counts.add(sum(jobs[number].primes for number in range(JOBS)))
    if len(counts) != 1:
        print(f"the ways do not agree: {sorted(counts)}", file=sys.stderr)
        return 1
    print(f"{counts.pop()} primes below {below}, counted by {JOBS} tasks on {workers} workers;")
    print(f"this process may use {len(os.sched_getaffinity(0))} CPUs.")
    for name, best in seconds.items():
        print(f"{name:22} {best:8.3f} s {seconds['one after the other'] / best:6.2f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
