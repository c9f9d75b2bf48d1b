"""Calls that run longer than stall_after: counted, reported once, and nobody is held up by it."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import threading
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from child import check_child, run_child

import dromon
from dromon._port import current_port
from dromon._stalls import note_stall

SOON = 0.01  # seconds: nothing depends on how long it really takes


class Gate:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def block(self) -> str:
        self._opened.wait()
        return "passed"

    def open(self) -> None:
        self._opened.set()


class Reports:
    """An on_stall that keeps what it gets, and can be waited for."""

    def __init__(self) -> None:
        self.stalls: list[dromon.Stall] = []
        self.threads: list[int] = []
        self._news = trio.Event()

    def __call__(self, stall: dromon.Stall) -> None:
        self.stalls.append(stall)
        self.threads.append(threading.get_native_id())
        self._news.set()

    async def wait_for(self, count: int) -> None:
        with trio.fail_after(60):
            while len(self.stalls) < count:
                await self._news.wait()
                self._news = trio.Event()


def monitors() -> list[int]:
    """The kernel thread ids of all monitor threads of this process."""
    tids = []
    for task in Path("/proc/self/task").iterdir():
        try:
            if (task / "comm").read_text().strip() == "dromon-monitor":
                tids.append(int(task.name))
        except OSError:  # it has just ended
            continue
    return tids


async def no_monitor_is_left_but(before: list[int]) -> None:
    with trio.fail_after(60):  # one that was joined may be listed for a moment longer
        while not set(monitors()) <= set(before):
            await trio.lowlevel.checkpoint()


async def test_a_stall_is_reported_with_the_worker_the_time_and_where_its_python_code_is() -> None:
    reports, gate = Reports(), Gate()
    async with dromon.open_pool(1, stall_after=SOON, on_stall=reports) as pool:
        (worker,) = pool.statistics().workers
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate.block)
            await reports.wait_for(1)
            gate.open()
    (stall,) = reports.stalls
    assert (stall.worker, stall.tid) == (worker.name, worker.tid) == ("dromon-0", worker.tid)
    assert stall.seconds >= SOON
    names = [frame.name for frame in stall.stack]
    assert names[0] == "block"
    assert names[-1] == "wait"  # of the event's condition: outermost first
    text = "".join(stall.stack.format())
    assert f'File "{__file__}", line ' in text
    assert "self._opened.wait()" in text


async def test_a_stall_is_counted_and_reported_once_however_long_it_lasts() -> None:
    reports, gates = Reports(), [Gate(), Gate()]
    async with dromon.open_pool(2, stall_after=SOON, on_stall=reports) as pool:
        first = pool.submit(gates[0].block)
        await reports.wait_for(1)
        # The second one is reported by a later look, at which the first one still runs.
        second = pool.submit(gates[1].block)
        await reports.wait_for(2)
        assert pool.statistics().stalls == 2
        for gate in gates:
            gate.open()
    assert first.result() == second.result() == "passed"
    assert sorted(stall.worker for stall in reports.stalls) == ["dromon-0", "dromon-1"]
    assert pool.statistics().stalls == 2


async def test_each_call_of_a_worker_is_reported_anew() -> None:
    reports = Reports()
    async with dromon.open_pool(1, stall_after=SOON, on_stall=reports) as pool:
        for number in range(1, 4):
            gate = Gate()
            future = pool.submit(gate.block)
            await reports.wait_for(number)
            gate.open()
            await trio.to_thread.run_sync(future.result)
        assert pool.statistics().stalls == 3


async def test_the_callback_is_called_in_the_thread_of_the_trio_run_that_opened_the_pool() -> None:
    reports, gate = Reports(), Gate()
    async with dromon.open_pool(1, stall_after=SOON, on_stall=reports) as pool:
        future = pool.submit(gate.block)
        await reports.wait_for(1)
        gate.open()
        await trio.to_thread.run_sync(future.result)
    assert reports.threads == [threading.get_native_id()]


async def test_without_a_callback_a_warning_goes_to_the_logger_dromon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    async with dromon.open_pool(1, stall_after=SOON) as pool:
        future = pool.submit(gate.block)
        with trio.fail_after(60):
            while not caplog.records:
                await trio.lowlevel.checkpoint()
        gate.open()
        await trio.to_thread.run_sync(future.result)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dromon", logging.WARNING)
    message = record.getMessage()
    assert message.startswith("a call on dromon-0 (thread ")
    assert " has run for 0." in message
    assert "in block\n    self._opened.wait()" in message


async def test_a_callback_that_raises_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports, gates = Reports(), [Gate(), Gate()]

    def fail(stall: dromon.Stall) -> None:
        reports(stall)
        raise LookupError("no such handler")

    async with dromon.open_pool(1, stall_after=SOON, on_stall=fail) as pool:
        for number, gate in enumerate(gates, start=1):
            future = pool.submit(gate.block)
            await reports.wait_for(number)
            gate.open()
            assert await trio.to_thread.run_sync(future.result) == "passed"
        assert await pool.run_sync(int, "7") == 7
    for record in caplog.records:
        assert (record.name, record.levelno) == ("dromon", logging.ERROR)
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)
        assert "on_stall" in record.getMessage()
    assert len(caplog.records) == 2


async def test_a_native_stall_has_no_stack() -> None:
    reports = Reports()
    libc = ctypes.CDLL(None)
    semaphore = ctypes.create_string_buffer(64)
    libc.sem_init(semaphore, 0, 0)
    async with dromon.open_pool(1, stall_after=SOON, on_stall=reports) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_native, libc.sem_wait, semaphore)
            await reports.wait_for(1)
            libc.sem_post(semaphore)
        assert pool.statistics().stalls == 1
    assert len(reports.stalls[0].stack) == 0


async def test_a_slow_callback_blocks_no_worker() -> None:
    """It runs in the trio thread, which is busy until the workers have done all that follows."""
    gates, reported = [Gate(), Gate()], trio.Event()
    results: list[str] = []

    def slow(stall: dromon.Stall) -> None:
        if results:
            return
        for gate in gates:
            gate.open()
        results.extend(future.result() for future in futures)
        results.append(pool.submit(str, "more").result())
        reported.set()

    async with dromon.open_pool(2, stall_after=SOON, on_stall=slow) as pool:
        futures = [pool.submit(gate.block) for gate in gates]
        await reported.wait()
    assert results == ["passed", "passed", "more"]


async def test_without_stall_after_no_call_stalls() -> None:
    async with dromon.open_pool(1) as pool:
        await pool.run_sync(threading.Event().wait, 5 * SOON)
        assert pool.statistics().stalls == 0


@pytest.mark.parametrize("stall_after", [None, 1000])
async def test_the_monitor_is_one_thread_and_ends_with_the_pool(stall_after: float | None) -> None:
    before = monitors()  # the default pool's, perhaps
    async with dromon.open_pool(3, stall_after=stall_after) as pool:
        await pool.run_sync(int)
        (monitor,) = set(monitors()) - set(before)
        assert monitor not in [worker.tid for worker in pool.statistics().workers]
    await no_monitor_is_left_but(before)


async def test_a_pool_closes_while_a_stall_is_being_reported() -> None:
    before = monitors()
    for _ in range(20):
        reports, gate = Reports(), Gate()
        async with dromon.open_pool(1, stall_after=0.001, on_stall=reports) as pool:
            future = pool.submit(gate.block)
            while pool.statistics().stalls == 0:
                await trio.lowlevel.checkpoint()
            gate.open()
        assert future.result(timeout=0) == "passed"
    await no_monitor_is_left_but(before)


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "os._exit(3)"])
def test_the_process_ends_while_calls_stall_and_are_reported(end: str) -> None:
    result = run_child(
        f"""
        import os, threading, trio, dromon

        async def main():
            async with dromon.open_pool(2, stall_after=0.001, on_stall=stalls.append) as pool:
                for _ in range(2):
                    pool.submit(threading.Event().wait)
                await trio.sleep_forever()

        stalls = []
        threading.Thread(target=trio.run, args=(main,), daemon=True).start()
        while len(stalls) < 2:
            pass
        {end}
        """
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_setuid_reaches_the_monitor() -> None:
    check_child(
        """
        import os, trio, dromon
        from pathlib import Path

        def ids_of_the_monitor():
            for task in Path("/proc/self/task").iterdir():
                if (task / "comm").read_text().strip() == "dromon-monitor":
                    lines = (task / "status").read_text().splitlines()
                    return [line.split()[1:] for line in lines if line[:3] in ("Uid", "Gid")]

        async def main():
            async with dromon.open_pool(2, stall_after=1000) as pool:
                await pool.run_sync(int)
                print(ids_of_the_monitor() == [["0"] * 4, ["0"] * 4])
                os.setgid(65534)
                os.setuid(65534)
                print(ids_of_the_monitor() == [["65534"] * 4, ["65534"] * 4])

        trio.run(main)
        """,
        "True\nTrue",
    )


def test_each_field_of_a_stall_is_documented() -> None:
    for field in attrs.fields(dromon.Stall):
        assert f"\n  {field.name} (" in inspect.cleandoc(dromon.Stall.__doc__ or "")


async def test_a_call_that_ends_before_it_can_be_looked_at_is_not_mistaken_for_the_next() -> None:
    reports = Reports()
    async with dromon.open_pool(1) as pool:
        (worker,) = pool.statistics().workers
        port = current_port()
        assert port is not None
        for ended in (False, True):
            goes_on = partial(bool, not ended)
            gate = Gate()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, gate.block)
                while pool.statistics().running == 0:
                    await trio.lowlevel.checkpoint()
                note_stall(port, reports, worker.name, worker.tid, 1.0, goes_on)
                gate.open()
    await reports.wait_for(2)
    assert [stall.ended for stall in reports.stalls] == [False, True]
    assert [bool(stall.stack) for stall in reports.stalls] == [True, False]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_not_even_the_end_of_the_program_leaves_a_callback_and_ends_the_run(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    reports, gate = Reports(), Gate()

    def fail(stall: dromon.Stall) -> None:
        reports(stall)
        raise error

    async with (
        dromon.open_pool(1, stall_after=SOON, on_stall=fail) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.run_sync, gate.block)
        await reports.wait_for(1)
        gate.open()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [error]


def test_an_asynchronous_callback_is_refused_at_the_call() -> None:
    async def on_stall(stall: dromon.Stall) -> None:
        pass

    with pytest.raises(TypeError, match=r"sync function, but .* asynchronous, given as on_stall"):
        dromon.open_pool(1, stall_after=1, on_stall=on_stall)
