"""A green thread is to Python what a thread is: what the interpreter keeps of it is its own.

What runs is in `green_works`, for isolated workers as well.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

import green_works as works
import pytest
from compiler import compile_library, needs_compiler
from green_pools import Isolation, in_both, run

from dromon import green

since_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")


@in_both
def test_what_is_handled_is_handled_in_its_own_green_thread_alone(isolation: Isolation) -> None:
    run(isolation, works.exceptions_stay_apart)


@in_both
def test_the_traceback_of_one_that_has_parked_is_whole(isolation: Isolation) -> None:
    run(isolation, works.tracebacks_are_whole)


@in_both
def test_futures_carry_exceptions_to_all_that_wait(isolation: Isolation) -> None:
    run(isolation, works.futures_carry_exceptions)


@in_both
def test_context_variables_are_of_one_task(isolation: Isolation) -> None:
    run(isolation, works.context_variables_stay_apart)


@in_both
def test_decimal_contexts_are_of_one_task(isolation: Isolation) -> None:
    run(isolation, works.decimal_contexts_stay_apart)


@in_both
def test_each_green_thread_may_recurse_as_deep_as_a_thread(isolation: Isolation) -> None:
    run(isolation, works.each_recurses_as_deep_as_a_thread)


@in_both
@pytest.mark.parametrize("name", works.RUNAWAYS)
def test_runaway_recursion_in_c_ends_as_on_the_threads_own_stack(
    isolation: Isolation, name: str
) -> None:
    assert run(isolation, works.run_away, name) == works.run_away_here(name)


@in_both
def test_the_frames_of_a_parked_one_lead_out_through_c_functions(isolation: Isolation) -> None:
    run(isolation, works.frames_lead_out_through_c)


# Not in an interpreter of its own: there CPython looks into the others, too, without their GILs.
def test_the_current_frames_have_those_of_parked_ones() -> None:
    run("thread", works.current_frames_have_parked_ones)


@in_both
def test_generators_context_managers_and_finally_blocks_park(isolation: Isolation) -> None:
    run(isolation, works.generators_and_finally_blocks_park)


@in_both
def test_a_coroutine_that_is_sent_to_by_hand_parks(isolation: Isolation) -> None:
    run(isolation, works.coroutines_sent_by_hand_park)


@in_both
def test_the_garbage_collector_knows_what_a_thousand_parked_ones_hold(isolation: Isolation) -> None:
    run(isolation, works.the_collector_sees_what_parked_frames_hold)


@in_both
def test_thread_locals_are_of_one_green_thread(isolation: Isolation) -> None:
    run(isolation, works.thread_locals_stay_apart)


@in_both
def test_a_tracer_sees_the_green_thread_that_has_set_it(isolation: Isolation) -> None:
    run(isolation, works.a_tracer_sees_its_own_task_alone)


@in_both
@since_3_12
def test_a_tracer_for_all_threads_reaches_parked_ones(isolation: Isolation) -> None:
    run(isolation, works.all_tracers_reach_parked_ones)


@in_both
@since_3_12
def test_monitoring_reaches_parked_ones(isolation: Isolation) -> None:
    run(isolation, works.monitoring_reaches_parked_ones)


@in_both
def test_several_green_threads_of_a_worker_run_asyncio_loops(isolation: Isolation) -> None:
    run(isolation, works.each_runs_an_asyncio_loop)


def test_several_green_threads_of_a_worker_run_trio_loops() -> None:
    run("thread", works.each_runs_a_trio_loop)


def test_what_a_c_function_calls_back_through_ctypes_parks() -> None:
    run("thread", works.a_c_function_calls_back_what_parks)


@in_both
def test_what_a_sort_compares_with_parks(isolation: Isolation) -> None:
    run(isolation, works.sorting_functions_park)


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs NumPy")
def test_what_numpy_calls_back_parks() -> None:
    run("thread", works.numpy_calls_back_what_parks)


CATCH = """
#include <stdexcept>
#include <string>

extern "C" int catch_and_call(int number, int (*callback)(int)) {
  int sum = 0;
  try {
    throw std::runtime_error(std::to_string(number));
  } catch (const std::runtime_error &outer) {
    sum += callback(number);
    try {
      throw std::out_of_range(std::to_string(number + 1000));
    } catch (const std::out_of_range &inner) {
      sum += callback(number);
      sum += std::stoi(inner.what());
    }
    try {
      throw;
    } catch (const std::runtime_error &again) {
      sum += callback(number);
      sum += std::stoi(again.what());
    }
    sum += std::uncaught_exceptions();
  }
  return sum;
}
"""


@needs_compiler
def test_what_a_c_plus_plus_handler_calls_parks(tmp_path: Path) -> None:
    library = ctypes.CDLL(
        str(compile_library(tmp_path, CATCH, "-x", "c++", "-Wl,--no-as-needed", "-lstdc++"))
    )
    function_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def park(number: int) -> int:
        green.checkpoint()
        return number

    callback = function_type(park)

    def work(number: int) -> int:
        return int(library.catch_and_call(number, callback))

    assert run("thread", works.all_at_once, work, 8) == [1000 + 5 * i for i in range(8)]
