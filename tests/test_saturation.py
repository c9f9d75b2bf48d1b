"""The warning that a pool is saturated: when it comes, and what it says."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from child import check_child, run_child

import dromon
from dromon import _saturation

SOON = 0.02  # seconds: nothing depends on how long it really takes


class Warnings(logging.Handler):
    """Keeps what is logged; can be waited for without a trio loop that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._news = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._news.set()

    def wait(self) -> str:
        """The first warning, which is the only one."""
        assert self._news.wait(60)
        (record,) = self.records
        return record.getMessage()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Warnings]:
    monkeypatch.setattr(_saturation, "SATURATED_AFTER", SOON)
    warnings = Warnings()
    _saturation.logger.addHandler(warnings)
    yield warnings
    _saturation.logger.removeHandler(warnings)


class Blocker:
    """Keeps all workers of a pool busy for the time of a ``with`` block."""

    def __init__(self, pool: dromon.Pool, workers: int) -> None:
        self._pool = pool
        self._all_busy = threading.Barrier(workers + 1)
        self._release = threading.Event()
        self._workers = workers

    def block(self) -> None:
        self._all_busy.wait()
        self._release.wait()

    def __enter__(self) -> None:
        for _ in range(self._workers):
            self._pool.submit(self.block)
        self._all_busy.wait()

    def __exit__(self, *args: object) -> None:
        self._release.set()


def wait_here() -> None:
    """A function whose name is looked for."""


class Resizer:
    """A callable without a `__qualname__`, and with a method."""

    def __call__(self) -> None:
        pass

    def resize(self) -> None:
        pass


# ---- When it comes -------------------------------------------------------------------------------


async def test_it_comes_though_the_whole_program_is_stuck(warnings: Warnings) -> None:
    """The trio loop waits here, all workers wait, and nobody submits any more."""
    async with dromon.open_pool(2) as pool:
        with Blocker(pool, 2):
            pool.submit(wait_here)
            message = warnings.wait()
    assert re.match(
        r"the pool 'dromon' has been saturated for \d+\.\d s: its 2 workers are all busy,"
        r" and 1 call waits, oldest first: wait_here\. If ",
        message,
    )
    (record,) = warnings.records
    assert (record.name, record.levelno) == ("dromon", logging.WARNING)
    assert record.threadName == "dromon-monitor"


def test_an_executor_whose_queue_may_be_long_is_not_watched() -> None:
    before = set(os.listdir("/proc/self/task"))
    with dromon.Executor(max_workers=2, thread_name_prefix="watched") as executor:
        executor.submit(wait_here).result()
        started = set(os.listdir("/proc/self/task")) - before
        names = {Path(f"/proc/self/task/{tid}/comm").read_text().strip() for tid in started}
    assert names == {"watched-0", "watched-1"}


async def test_it_comes_for_calls_that_wait_for_calls_of_their_own_pool(
    warnings: Warnings,
) -> None:
    """The deadlock that it is there for: what they wait for lies in their own queues."""
    both = threading.Barrier(2)
    inner = []

    def outer() -> None:
        both.wait()
        future = pool.submit(wait_here)
        inner.append(future)
        release.wait()
        future.result()

    release = threading.Event()
    async with dromon.open_pool(2) as pool:
        futures = [pool.submit(outer) for _ in range(2)]
        message = warnings.wait()
        assert "2 calls wait, oldest first: wait_here (2 times). " in message
        # As nobody would: out of the deadlock again.
        for future in inner:
            future.cancel()
        release.set()
    assert all(future.exception(timeout=0) for future in futures)


async def test_each_pool_is_warned_of_once(warnings: Warnings) -> None:
    for _ in range(2):
        async with dromon.open_pool(1) as pool:
            for _ in range(3):
                with Blocker(pool, 1):
                    pool.submit(wait_here)
                    warnings.wait()
        assert len(warnings.records) == 1
        warnings.records.clear()
        warnings._news.clear()


async def test_a_pool_that_is_closing_is_warned_of_too(warnings: Warnings) -> None:
    release = threading.Event()
    async with trio.open_nursery() as nursery, dromon.open_pool(1) as pool:
        pool.submit(release.wait)
        pool.submit(wait_here)

        async def release_when_warned() -> None:
            assert "wait_here. " in await trio.to_thread.run_sync(warnings.wait)
            release.set()

        nursery.start_soon(release_when_warned)


async def test_cancelled_calls_do_not_wait(warnings: Warnings) -> None:
    async with dromon.open_pool(1) as pool:
        with Blocker(pool, 1):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(pool.run_sync, int)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert pool.statistics().queued == 5
            await trio.sleep(5 * SOON)
            assert warnings.records == []
            pool.submit(wait_here)
            assert "1 call waits, oldest first: wait_here. " in warnings.wait()


def test_without_tests_in_the_way_it_comes_after_a_second_on_stderr() -> None:
    result = run_child(
        """
        import os, threading, trio, dromon

        async def main():
            async with dromon.open_pool(1) as pool:
                pool.submit(threading.Event().wait)
                pool.submit(print, "never")
                threading.Timer(10, os._exit, [4]).start()  # it is far too late then
                await trio.to_thread.run_sync(warned.wait)
                os._exit(3)

        import logging
        warned = threading.Event()
        class Handler(logging.StreamHandler):
            def emit(self, record):
                super().emit(record)
                warned.set()
        logging.lastResort = Handler()
        trio.run(main)
        """,
        may_be_saturated=False,
    )
    assert (result.returncode, result.stdout) == (3, "")
    expected = "the pool 'dromon' has been saturated for 1.0 s: its only worker is busy"
    assert result.stderr.startswith(expected)


# ---- What it says --------------------------------------------------------------------------------


async def test_it_names_ten_callables_how_often_each_waits_and_how_many_more_there_are(
    warnings: Warnings,
) -> None:
    def make(number: int) -> object:
        def function() -> None:
            pass

        function.__qualname__ = f"function_{number}"
        return function

    functions = [make(number) for number in range(13)]
    async with dromon.open_pool(1) as pool:
        with Blocker(pool, 1):
            for function in [*functions, functions[0], functions[1], functions[1]]:
                pool.submit(function)  # type: ignore[arg-type]
            message = warnings.wait()
    assert (
        ", and 16 calls wait, oldest first: function_0 (2 times), function_1 (3 times), function_2,"
        " function_3, function_4, function_5, function_6, function_7, function_8, function_9"
        " and 3 more. " in message
    )


async def test_it_names_what_the_user_gave_in_each_of_the_ways_to_submit(
    warnings: Warnings,
) -> None:
    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        with Blocker(pool, 1):
            for function in (wait_here, Resizer().resize, Resizer(), partial(sorted, [])):
                nursery.start_soon(pool.run_sync, function)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(partial(pool.run_sync, int, thread_name="name", limiter=limiter()))
            await trio.testing.wait_all_tasks_blocked()
            pool.submit(str)
            pool.submit_nowait(partial(bytes, 5))
            nursery.start_soon(pool.map, abs, [1])
            await trio.testing.wait_all_tasks_blocked()
            message = warnings.wait()
    assert (
        "8 calls wait, oldest first: wait_here, Resizer.resize, Resizer, sorted, int, str, bytes,"
        " abs. " in message
    )


def limiter() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


async def test_native_calls_are_counted_and_have_no_name(warnings: Warnings) -> None:
    libc = ctypes.CDLL(None)
    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        with Blocker(pool, 1):
            nursery.start_soon(pool.run_sync, wait_here)
            for _ in range(2):
                nursery.start_soon(pool.run_native, libc.abs, 5)
            await trio.testing.wait_all_tasks_blocked()
            message = warnings.wait()
    assert "3 calls wait, oldest first: wait_here and 2 more. " in message


async def test_where_only_native_calls_wait_they_are_counted(warnings: Warnings) -> None:
    libc = ctypes.CDLL(None)
    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        with Blocker(pool, 1):
            for _ in range(2):
                nursery.start_soon(pool.run_native, libc.abs, 5)
            await trio.testing.wait_all_tasks_blocked()
            message = warnings.wait()
    assert "its only worker is busy, and 2 calls wait. " in message


async def test_it_says_what_to_do(warnings: Warnings) -> None:
    async with dromon.open_pool(1) as pool:
        with Blocker(pool, 1):
            pool.submit(wait_here)
            message = warnings.wait()
    for advice in ("a second pool", "more workers", "limiter=", "stall_after="):
        assert advice in message


# ---- Its thread, and the list of those that wait -------------------------------------------------


async def test_the_monitor_leaves_no_entry_in_the_table_of_threads(warnings: Warnings) -> None:
    async with dromon.open_pool(1) as pool:
        before = set(threading.enumerate())
        with Blocker(pool, 1):
            pool.submit(wait_here)
            warnings.wait()
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert "dromon-monitor" not in names


async def test_calls_wait_in_their_order_until_they_begin_or_are_withdrawn() -> None:
    async with dromon.open_pool(1) as pool:
        with Blocker(pool, 1):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(pool.run_sync, int, number)
                        await trio.testing.wait_all_tasks_blocked()
                    assert pool._bridge.waiting() == [(int, (number,)) for number in range(5)]
                    scope.cancel()
            assert pool._bridge.waiting() == []
            futures = [pool.submit(int, number) for number in range(3)]
            assert pool._bridge.waiting() == [(int, (number,)) for number in range(3)]
        for future in futures:
            await trio.to_thread.run_sync(future.result)
        assert pool._bridge.waiting() == []


async def test_a_call_that_was_refused_does_not_wait() -> None:
    async with dromon.open_pool(1, queue_capacity=2) as pool:
        with Blocker(pool, 1):
            for _ in range(2):
                pool.submit_nowait(int)
            with pytest.raises(dromon.QueueFull):
                pool.submit_nowait(int)
            assert len(pool._bridge.waiting()) == 2
    bridge = pool._bridge
    with pytest.raises(dromon.ClosedPoolError):
        await pool.run_sync(int)
    with pytest.raises(dromon.ClosedPoolError):
        pool.submit(int)
    assert bridge.waiting() == []


def test_the_process_ends_while_its_pool_is_warned_of() -> None:
    check_child(
        """
        import logging, threading, trio, dromon
        from dromon import _saturation

        class Handler(logging.Handler):
            def handle(self, record):  # without its lock, for which the end would wait
                warned.set()
                threading.Event().wait()

        async def main():
            async with dromon.open_pool(1) as pool:
                pool.submit(threading.Event().wait)
                pool.submit(int)
                await trio.sleep_forever()

        warned = threading.Event()
        _saturation.SATURATED_AFTER = 0.001
        _saturation.logger.addHandler(Handler())
        threading.Thread(target=trio.run, args=(main,), daemon=True).start()
        warned.wait()
        """
    )
