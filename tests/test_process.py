"""Living with the rest of the process: its forks, the processes that it starts, its signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator

import pytest
from child import check_child

import dromon


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=2) as pool:
        yield pool


# ---- Processes that a worker starts --------------------------------------------------------------


async def test_a_subprocess_is_run_from_a_worker(pool: dromon.Pool) -> None:
    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", "print(6 * 7)"], check=True, capture_output=True, text=True
        ).stdout

    assert await pool.run_sync(run) == "42\n"


@pytest.mark.parametrize("by_fork", [False, True])
async def test_a_subprocess_that_a_worker_started_can_be_terminated(
    pool: dromon.Pool, by_fork: bool
) -> None:
    """It does not inherit that workers block all signals."""

    def start_and_terminate() -> int:
        # What is called in the child, in between, makes Python fork; else it does a vfork.
        in_between = (lambda: None) if by_fork else None
        with subprocess.Popen(["sleep", "1000"], preexec_fn=in_between) as process:
            process.terminate()
            try:
                return process.wait(30)
            finally:
                process.kill()

    before = await pool.run_sync(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 and later may warn of any fork with threads
        assert await pool.run_sync(start_and_terminate) == -signal.SIGTERM
    # Nor is the mask of any worker another now.
    for _ in pool.statistics().workers:
        assert await pool.run_sync(signal.pthread_sigmask, signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("how", ["subprocess", "fork", "posix_spawn", "posix_spawnp"])
def test_a_process_that_a_worker_starts_blocks_what_blocked_who_opened_the_pool(how: str) -> None:
    check_child(
        f"""
        import os, signal, subprocess, sys, warnings, trio, dromon

        warnings.simplefilter("ignore")  # Python 3.12 and later warn of any fork with threads

        CHILD = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)"
        COMMAND = [sys.executable, "-c", CHILD]

        def start():
            if {how!r} == "subprocess":
                subprocess.run(COMMAND, check=True)
                return
            if {how!r} == "fork":
                pid = os.fork()
                if pid == 0:
                    try:
                        exec(CHILD)
                    finally:
                        os._exit(0)
            else:
                pid = getattr(os, {how!r})(sys.executable, COMMAND, os.environ)
            assert os.waitpid(pid, 0)[1] == 0

        signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
        trio.run(dromon.to_thread.run_sync, start)
        """,
        "{<Signals.SIGUSR1: 10>}",
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_in_a_worker(method: str) -> None:
    check_child(
        f"""
        import math, multiprocessing, time, warnings, trio, dromon
        from concurrent.futures import ProcessPoolExecutor

        # Python 3.12 and later warn of any fork with threads.
        warnings.simplefilter("ignore")

        def use():
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                assert pool.map(math.factorial, range(10)) == [*map(math.factorial, range(10))]
            with ProcessPoolExecutor(2, context) as executor:
                assert executor.submit(math.factorial, 5).result() == 120
            process = context.Process(target=time.sleep, args=(1000,))
            process.start()
            process.terminate()
            process.join()
            return -process.exitcode

        if __name__ == "__main__":
            print(trio.run(dromon.to_thread.run_sync, use))
        """,
        "15",
    )


# ---- Forks ---------------------------------------------------------------------------------------


def test_fork_in_a_worker_leaves_a_child_that_works() -> None:
    check_child(
        """
        import os, threading, warnings, trio, dromon

        # Python 3.12 and later warn of any fork with threads, and trio of its parent's run.
        warnings.simplefilter("ignore")

        def fork():
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    thread = threading.Thread(target=lambda: None)
                    thread.start()
                    thread.join()
                    # A pool of its own, in the child, on the thread that was a worker.
                    assert trio.run(dromon.to_thread.run_sync, int, "3") == 3
                    code = 7
                finally:
                    os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        print(trio.run(dromon.to_thread.run_sync, fork))
        """,
        "7",
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_a_child_forked_in_a_worker_ends_with_its_callable_and_runs_no_queued_call(
    workers: int,
) -> None:
    """They are the parent's, and were they run in both they would be done twice."""
    check_child(
        f"""
        import os, threading, warnings, trio, dromon
        from trio.testing import wait_all_tasks_blocked

        warnings.simplefilter("ignore")  # Python 3.12 and later warn of any fork with threads
        parent = os.getpid()

        def write(what):
            os.write(1, f"{{what}}{{'' if os.getpid() == parent else ' in the child'}}\\n".encode())

        def fork(release):
            release.wait()
            pid = os.fork()
            if pid == 0:
                write("returns")
                return
            write(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        async def main():
            forks, release = threading.Event(), threading.Event()
            async with dromon.open_pool({workers}) as pool, trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, fork, forks)
                for _ in range({workers} - 1):
                    nursery.start_soon(pool.run_sync, release.wait)
                await wait_all_tasks_blocked()
                for number in range(3):
                    nursery.start_soon(pool.run_sync, write, "queued")
                await wait_all_tasks_blocked()
                forks.set()
                while pool.statistics().queued:
                    await trio.lowlevel.checkpoint()
                release.set()

        trio.run(main)
        """,
        "returns in the child\n0\nqueued\nqueued\nqueued",
    )


def test_a_pool_of_the_parent_says_so_in_the_child_of_a_fork() -> None:
    check_child(
        """
        import os, warnings, trio, dromon

        warnings.simplefilter("ignore")  # Python 3.12 and later warn of any fork with threads

        async def use(pool):
            for limiter in (None, trio.CapacityLimiter(1)):
                try:
                    await pool.run_sync(int, limiter=limiter)
                except dromon.ClosedPoolError as error:
                    print(error, flush=True)
            assert pool.statistics().workers == ()

        async def main():
            async with dromon.open_pool(workers=2) as pool:
                await pool.run_sync(int)
                pid = os.fork()
                if pid == 0:
                    try:
                        await use(pool)
                    finally:
                        os._exit(5)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
                assert await pool.run_sync(int) == 0

        trio.run(main)
        """,
        "\n".join(
            ["the pool belongs to the process that forked this one; open another pool here"] * 2
        ),
    )


@pytest.mark.parametrize("busy", [False, True])
def test_after_a_fork_the_child_has_a_default_pool_of_its_own_and_may_open_others(
    busy: bool,
) -> None:
    """Generations of them, each forked while its workers are idle or busy."""
    check_child(
        f"""
        import os, threading, warnings, trio, dromon

        warnings.simplefilter("ignore")  # Python 3.12 and later warn of any fork with threads

        async def use():
            assert await dromon.to_thread.run_sync(int, "3") == 3
            async with dromon.open_pool(workers=2) as pool:
                assert await pool.run_sync(int, "4") == 4

        def busy_while_forking():
            begun, release = threading.Event(), threading.Event()

            def work():
                begun.set()
                release.wait()

            thread = threading.Thread(target=trio.run, args=(dromon.to_thread.run_sync, work))
            thread.start()
            begun.wait()
            pid = os.fork()
            if pid > 0:
                release.set()
                thread.join()
            return pid

        for _ in range(5):
            trio.run(use)
            pid = busy_while_forking() if {busy} else os.fork()
            if pid > 0:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(7)
        """,
        status=7,
    )


# ---- Signals -------------------------------------------------------------------------------------


# Each runs on every worker and can end only when the interrupt has been seen.
BUSY_IN_PYTHON = "while not seen.is_set(): pass"
BUSY_IN_C = "seen.wait()"


@pytest.mark.parametrize("busy", [BUSY_IN_PYTHON, BUSY_IN_C])
def test_ctrl_c_interrupts_the_main_task_while_every_worker_is_busy(busy: str) -> None:
    check_child(
        f"""
        import os, signal, threading, trio, dromon

        seen, begun = threading.Event(), threading.Barrier(4)

        def work():
            begun.wait()
            {busy}

        async def main():
            async with dromon.open_pool(workers=3) as pool, trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pool.run_sync, work)
                await trio.to_thread.run_sync(begun.wait)
                for _ in range(20):
                    try:
                        os.kill(os.getpid(), signal.SIGINT)
                        await trio.sleep_forever()
                    except KeyboardInterrupt:
                        pass
                print("interrupted")
                seen.set()

        trio.run(main)
        """,
        "interrupted",
    )


def test_ctrl_c_is_taken_by_the_main_thread_while_a_worker_holds_the_gil_in_c() -> None:
    """Python has it at once, and the main task as soon as the worker lets go of the GIL."""
    check_child(
        """
        import ctypes, os, select, signal, sys, trio, dromon

        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        holding_the_gil = ctypes.PyDLL(None)

        class Poll(ctypes.Structure):
            _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("got", ctypes.c_short)]

        def work():
            poll = Poll(reader, select.POLLIN, 0)
            holding_the_gil.kill(os.getpid(), signal.SIGINT)
            # Python's C handler, which needs no GIL, writes the number of the signal there.
            return holding_the_gil.poll(ctypes.byref(poll), 1, 30_000)

        async def main():
            answers = []
            async with dromon.open_pool(workers=1) as pool, trio.open_nursery() as nursery:

                async def call():
                    answers.append(await pool.run_sync(work))

                previous = signal.set_wakeup_fd(writer)
                sys.setswitchinterval(1000)  # nobody takes the GIL from who does not give it up
                nursery.start_soon(call)
                try:
                    await trio.sleep_forever()
                except KeyboardInterrupt:
                    print("interrupted")
                signal.set_wakeup_fd(previous)
            print(answers)

        trio.run(main)
        """,
        "interrupted\n[1]",
    )


def test_a_signal_that_the_main_thread_blocks_waits_for_it_and_goes_to_no_worker() -> None:
    """Linux gives a signal of the process to any thread that does not block it."""
    check_child(
        """
        import os, signal, threading, trio, dromon

        faults = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
        never = {"SIGKILL", "SIGSTOP"}
        signals = {each for each in signal.valid_signals()
                   if getattr(each, "name", "") not in faults | never}
        done, begun = threading.Event(), threading.Event()

        def work():
            begun.set()
            while not done.is_set():
                pass

        async def main():
            # One worker is busy and the other one is not. There is no thread but theirs.
            async with dromon.open_pool(workers=2) as pool, trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, work)
                while not begun.is_set():
                    await trio.lowlevel.checkpoint()
                signal.pthread_sigmask(signal.SIG_BLOCK, signals)
                for number in sorted(signals):
                    os.kill(os.getpid(), number)
                    if number not in signal.sigpending():
                        print(number, "went to a worker")
                    signal.sigtimedwait({number}, 0)
                done.set()
            print("all")

        for number in signals:
            signal.signal(number, lambda *_: print("handled"))
        trio.run(main)
        """,
        "all",
    )
