"""How long a worker keeps the GIL: it runs calls in batches, each of which ends for one of a few
reasons.

A batch's bounds are no options of open_pool, so these tests open pools of the core.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dromon import _bridge
from dromon._futures import PoolFuture
from dromon._native import ffi, lib
from dromon._statistics import read_statistics
from dromon._worker import Entry

NO_LIMIT = 4_000_000_000  # nanoseconds, of a batch: longer than any of these tests
CALLS = 10

# It holds the GIL all the while, four times as long as others wait before they ask for it.
usleep: Callable[[int], int] = ctypes.PyDLL(None).usleep
HELD = 20_000  # microseconds

pytestmark = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this build of Python has no GIL"
)


def batches_of(function: Callable[..., object], *args: object, **bounds: int) -> int:
    """In how many batches one worker runs a call that waits and then CALLS of the function."""
    ops, ops_arg, entrance = _bridge.worker_table(Entry("dromon", None))
    config: dict[str, Any] = {
        "workers": 1,
        "ops": ffi.cast("dromon_ops *", ops),
        "ops_arg": ffi.cast("void *", ops_arg),
        "batch_ns": NO_LIMIT,
        "batch_tasks": 1000,
    }
    core = ffi.new("dromon_pool **")
    assert lib.dromon_pool_open(ffi.new("dromon_pool_config *", config | bounds), core) == 0
    del entrance  # only the opening needs it
    pool = _bridge.Pool(int(ffi.cast("uintptr_t", core[0])))
    all_queued = threading.Event()
    assert pool.future(PoolFuture, all_queued.wait, (), _bridge.REFUSE)
    for _ in range(CALLS):
        assert pool.future(PoolFuture, function, args, _bridge.REFUSE)
    all_queued.set()
    # Without the GIL: from here on this thread does not ask for it before all is over.
    lib.dromon_pool_close(core[0], ffi.NULL)
    lib.dromon_pool_join(core[0])
    statistics = read_statistics(core[0], 0, "dromon")
    lib.dromon_pool_unref(core[0])
    assert statistics.completed == 1 + CALLS
    return statistics.batches


@contextmanager
def nobody_asks_for_the_gil() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def another_thread_wants_the_gil() -> Iterator[None]:
    stop, runs = False, threading.Event()

    def spin() -> None:
        while not stop:
            runs.set()

    thread = threading.Thread(target=spin)
    thread.start()
    runs.wait()
    try:
        yield
    finally:
        stop = True
        thread.join()


def test_a_batch_goes_on_while_there_are_calls_and_nobody_asks_for_the_gil() -> None:
    with nobody_asks_for_the_gil():
        assert batches_of(usleep, HELD) == 1


def test_a_batch_ends_when_another_thread_has_asked_for_the_gil() -> None:
    with another_thread_wants_the_gil():
        assert batches_of(usleep, HELD) > 1


def test_a_batch_ends_when_its_count_is_reached() -> None:
    with nobody_asks_for_the_gil():
        assert batches_of(int, batch_tasks=4) == 3  # 4 + 4 + 3 calls


def test_a_batch_ends_when_its_time_is_up() -> None:
    with nobody_asks_for_the_gil():
        assert batches_of(int, batch_ns=1) == 1 + CALLS
