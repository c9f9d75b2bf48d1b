"""What green threads on stacks of their own get wrong easily, once each."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import Any

import green_works as works
import pytest
from child import check_child, run_child
from compiler import compile_library, needs_compiler
from green_pools import Isolation, in_both, run

import dromon
from dromon import green

# ---- What a thread gets at its beginning ---------------------------------------------------------


def test_the_initializer_runs_for_each_green_thread() -> None:
    """It sets thread-locals, and to Python each green thread is a thread."""
    local = threading.local()

    def initialize() -> None:
        local.ready = True

    def work(_: int) -> bool:
        works.park()
        return getattr(local, "ready", False)

    with dromon.Pool(1, initializer=initialize) as pool:
        assert pool.submit(works.all_at_once, work, 5).result(timeout=60) == [True] * 5


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")
def test_the_initializer_runs_once_for_an_interpreter_whatever_number_of_green_threads() -> None:
    with dromon.Pool(1, isolation="interpreter", initializer=works.initialize) as pool:
        assert pool.submit(works.all_are_initialized).result(timeout=60) == [True] * 5


def test_a_wait_whose_green_thread_cannot_be_initialized_blocks() -> None:
    check_child(
        """
        import threading, dromon
        from dromon import green

        local, times = threading.local(), []

        def initialize():
            times.append(1)
            if len(times) > 1:
                raise LookupError("once is enough")

        import sys
        sys.unraisablehook = lambda told: print(type(told.exc_value).__name__)

        with dromon.Pool(1, initializer=initialize) as pool:
            pool.submit(green.sleep, 0.001).result(timeout=30)
        """,
        "LookupError",
    )


def test_an_initializer_that_waits_does_not_park() -> None:
    with dromon.Pool(1, initializer=works.wait_a_little) as pool:
        assert pool.submit(works.all_at_once, abs, 5).result(timeout=60) == list(range(5))


def test_the_hooks_of_threading_are_set_in_each_green_thread() -> None:
    """As coverage and debuggers set them, for threads that begin later."""
    seen: set[int] = set()

    def traced(i: int) -> None:
        works.park()

    def tracer(frame: Any, event: str, arg: object) -> None:
        if frame.f_code is traced.__code__:
            seen.add(frame.f_locals["i"])

    threading.settrace(tracer)
    try:
        run("thread", works.all_at_once, traced, 5)
    finally:
        threading.settrace(None)  # type: ignore[arg-type,unused-ignore]
    assert seen == set(range(5))


def test_the_profilers_hook_is_set_in_each_green_thread() -> None:
    seen: set[int] = set()

    def profiled(i: int) -> None:
        works.park()

    def profiler(frame: Any, event: str, arg: object) -> None:
        if event == "call" and frame.f_code is profiled.__code__:
            seen.add(frame.f_locals["i"])

    threading.setprofile(profiler)
    try:
        run("thread", works.all_at_once, profiled, 5)
    finally:
        threading.setprofile(None)  # type: ignore[arg-type,unused-ignore]
    assert seen == set(range(5))


@in_both
def test_a_worker_has_one_entry_among_threads_however_many_green_threads_it_has(
    isolation: Isolation,
) -> None:
    assert run(isolation, works.count_threads) == 1


# ---- The C stack ---------------------------------------------------------------------------------

OVERFLOW = """
int overflow(int depth) {
  volatile char frame[4096];
  frame[0] = (char)depth;
  return overflow(depth + 1) + frame[0];
}
"""


@needs_compiler
def test_the_overflow_of_a_green_threads_stack_is_reported(tmp_path: Path) -> None:
    """By faulthandler, on the signal stack of its worker."""
    library = compile_library(tmp_path, OVERFLOW, "-fno-optimize-sibling-calls")
    result = run_child(
        f"""
        import ctypes, dromon, green_works

        library = ctypes.PyDLL({str(library)!r})

        def goes_down():
            library.overflow(0)

        with dromon.Pool(1) as pool:
            pool.submit(green_works.on_new_stack, goes_down).result()
        """
    )
    assert result.returncode < 0
    assert "Fatal Python error: Segmentation fault" in result.stderr
    assert "in goes_down" in result.stderr


@needs_compiler
def test_a_thread_of_c_that_calls_python_beside_parked_ones_gets_a_state_of_its_own(
    tmp_path: Path,
) -> None:
    """PyGILState_Ensure, on a worker whose green threads have taken turns, finds the right one."""
    source = """
    typedef int (*callback)(int);
    int call(callback function, int number) { return function(number); }
    """
    library = ctypes.CDLL(str(compile_library(tmp_path, source)))
    function_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def call_back(number: int) -> int:
        works.park()
        assert green.current_task() is tasks[number]
        works.park()
        return number

    callback = function_type(call_back)
    tasks: dict[int, green.Task[Any]] = {}

    def work(number: int) -> int:
        tasks[number] = green.current_task()
        return int(library.call(callback, number))

    assert run("thread", works.all_at_once, work, 5) == list(range(5))


# ---- Memory --------------------------------------------------------------------------------------

MEMORY = """
import os, dromon, green_works
from dromon import green

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def measure(count):
    before = resident()
    with green_works.parked_ones(lambda _: None, count):
        return (resident() - before) // count

with dromon.Pool(1) as pool:
    pool.submit(measure, 10).result()
    size = pool.submit(measure, {count}).result()
    assert size <= 20 << 10, size
    print("well")
"""


def test_ten_thousand_parked_ones_take_at_most_20_kib_each() -> None:
    check_child(MEMORY.format(count=10_000), "well")


def test_forty_thousand_can_be_parked() -> None:
    check_child(MEMORY.format(count=40_000), "well")


def test_memory_is_given_back_when_parked_ones_have_ended() -> None:
    check_child(
        MEMORY.split("with dromon.Pool")[0]
        + """
with dromon.Pool(1) as pool:
    pool.submit(measure, 3000).result()
    before = resident()
    for _ in range(5):
        pool.submit(measure, 3000).result()
    grown = resident() - before
    assert grown < 4 << 20, grown
    print("well")
""",
        "well",
    )
