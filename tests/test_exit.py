"""The end of the process, whatever its workers do then: the right exit code, no hang, no crash."""

from __future__ import annotations

import os

import pytest
from child import check_child, run_child

CYCLES = int(os.environ.get("DROMON_CYCLES", "3"))  # of processes that end

BUSY_IN_C = "time.sleep(1000)"
BUSY_IN_PYTHON = "exec('while True: pass')"
BUSY_IN_A_LOCK = "threading.Lock().acquire() and threading.Event().wait()"


@pytest.mark.parametrize("busy", [BUSY_IN_C, BUSY_IN_PYTHON, BUSY_IN_A_LOCK])
@pytest.mark.parametrize("code", [0, 3])
def test_the_process_ends_with_its_exit_code_whatever_its_workers_do(busy: str, code: int) -> None:
    """One worker idle, one busy with abandoned work; and more work in the queue of another pool."""
    result = run_child(
        f"""
        import sys, threading, time, trio, dromon

        def work(begun):
            begun.set()
            {busy}

        async def main():
            global crowded
            begun = threading.Event()
            # The default pool is never closed, and neither is this one.
            crowded = dromon.Pool(1)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    crowd = threading.Event()
                    nursery.start_soon(lambda: dromon.to_thread.run_sync(
                        work, begun, abandon_on_cancel=True))
                    nursery.start_soon(lambda: crowded.run_sync(
                        work, crowd, abandon_on_cancel=True))
                    await trio.to_thread.run_sync(begun.wait)
                    await trio.to_thread.run_sync(crowd.wait)
                    nursery.start_soon(crowded.run_sync, int)
                    await trio.lowlevel.checkpoint()
                    scope.cancel()
            print("bye")

        trio.run(main)
        sys.exit({code})
        """,
        env={"DROMON_WORKERS": "2"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (code, "bye\n", "")


def test_the_process_ends_with_a_call_running_in_a_run_of_a_daemon_thread() -> None:
    result = run_child(
        """
        import threading, time, trio, dromon

        begun = threading.Event()

        def work():
            begun.set()
            time.sleep(1000)

        async def main():
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(dromon.to_thread.run_sync, work)

        threading.Thread(target=trio.run, args=(main,), daemon=True).start()
        begun.wait()
        """
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_work_that_ends_while_the_interpreter_goes_down_does_no_harm() -> None:
    """A worker that wants the interpreter back then is held or ended by CPython itself."""
    for _ in range(CYCLES):
        check_child(
            """
            import threading, trio, dromon

            def work(begun, release):
                begun.set()
                release.wait()
                return [object()] * 1000

            class AtTheVeryEnd:
                def __init__(self, release):
                    self.release = release

                def __del__(self):
                    self.release.set()

            async def main():
                global last
                begun, release = threading.Event(), threading.Event()
                last = AtTheVeryEnd(release)  # goes when modules are cleared
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(lambda: dromon.to_thread.run_sync(
                            work, begun, release, abandon_on_cancel=True))
                        await trio.to_thread.run_sync(begun.wait)
                        scope.cancel()

            trio.run(main)
            """
        )


ENDS = {
    "the end of the script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise LookupError", 1, "LookupError"),
    "os._exit": ("sys.stdout.flush(); os._exit(4)", 4, ""),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("another_thread", [False, True], ids=["alone", "with another thread"])
def test_the_process_ends_at_once_with_workers_of_all_sorts(end: str, another_thread: bool) -> None:
    """In C, in Python, waiting for the GIL, and parked; again and again.

    The other thread is no daemon: it makes calls itself, when the main thread has come to its end.
    """
    last_line, status, error = ENDS[end]
    script = f"""
        import os, sys, threading, time, trio, dromon

        def sleep():
            begun.wait()
            time.sleep(1000)

        def loop():
            begun.wait()
            while True:
                pass

        def come_and_go():
            begun.wait()
            while True:
                time.sleep(0)

        def await_the_end():
            main_thread.join()
            print(trio.run(dromon.to_thread.run_sync, int, "7"))

        async def main():
            global parked, busy
            parked = dromon.Pool(1)  # such a pool is never closed
            busy = dromon.Pool(5)
            await parked.run_sync(int)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for work in (sleep, loop, loop, come_and_go, come_and_go):
                        nursery.start_soon(lambda work=work: busy.run_sync(
                            work, abandon_on_cancel=True))
                    await trio.to_thread.run_sync(begun.wait)
                    scope.cancel()

        main_thread = threading.current_thread()
        begun = threading.Barrier(6)
        trio.run(main)
        if {another_thread}:
            threading.Thread(target=await_the_end).start()
        {last_line}
    """
    expected = "7\n" if another_thread and end != "os._exit" else ""
    for _ in range(CYCLES):
        result = run_child(script, env={"DROMON_WORKERS": "1"})
        assert (result.returncode, result.stdout) == (status, expected), result.stderr
        assert error in result.stderr
        assert bool(error) == bool(result.stderr), result.stderr


def test_calls_can_be_made_while_the_program_runs_its_exit_handlers() -> None:
    check_child(
        """
        import atexit, trio, dromon
        trio.run(dromon.to_thread.run_sync, int)
        atexit.register(lambda: print(trio.run(dromon.to_thread.run_sync, int, "7")))
        """,
        "7",
    )
