"""The end of a process with isolated workers, whatever they do then: its exit code, and no word."""

from __future__ import annotations

import textwrap

import pytest
from child import check_child, run_child
from isolated_functions import CAN_ISOLATE, WHY_NOT

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)

# What a worker does when the process ends, once it has given `begun`.
WORK = {
    "running Python code": """
        while True:
            pass
    """,
    "swallowing exceptions": """
        while True:
            try:
                spin()
            except BaseException:
                pass
    """,
    "sleeping": """
        import time
        time.sleep(1000)
    """,
    "in a lock": """
        import threading
        threading.Event().wait()
    """,
    "in C with its GIL": """
        sum(range(10**10))
    """,
    "waiting for trio": """
        import dromon
        import called_back
        dromon.from_thread.run(called_back.wait_for_ever)
    """,
}
ENDS = {
    "the end of the script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise LookupError", 1),
}
SCRIPT = """
import os, sys, called_back, trio, dromon

reader, writer = os.pipe()

def spin():
    while True:
        pass

class Begun:
    def set(self):
        os.write(writer, b"!")

def work():
    if not {asks}:
        os.write(writer, b"!")
{work}

async def main():
    called_back.seen["waits"] = Begun()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: dromon.to_interpreter.run_sync(work, abandon_on_cancel=True))
        await trio.to_thread.run_sync(os.read, reader, 1)
        nursery.cancel_scope.cancel()

trio.run(main)
{end}
"""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("work", WORK)
def test_the_process_ends_with_its_exit_code_whatever_its_workers_do(work: str, end: str) -> None:
    last_line, status = ENDS[end]
    body = textwrap.indent(textwrap.dedent(WORK[work]), "    ")
    script = SCRIPT.format(work=body, end=last_line, asks="called_back" in body)
    result = run_child(script, env={"DROMON_WORKERS": "2"})
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    last_word = result.stderr.strip().split("\n")[-1]
    assert last_word == ("LookupError" if end == "an exception" else "")


@pytest.mark.parametrize("end", ENDS)
def test_the_process_ends_with_idle_isolated_workers(end: str) -> None:
    last_line, status = ENDS[end]
    result = run_child(
        f"""
        import sys, trio, dromon
        print(trio.run(dromon.to_interpreter.run_sync, int, "7"))
        {last_line}
        """
    )
    assert (result.returncode, result.stdout) == (status, "7\n"), result.stderr
    assert bool(result.stderr) == (end == "an exception")


def test_the_process_ends_while_interpreters_are_made() -> None:
    check_child(
        """
        import dromon
        pool = dromon.Pool(4, isolation="interpreter")
        pool.__class__.__del__ = lambda self: None  # no warning
        """
    )


def test_the_process_ends_with_a_queue_full_of_calls() -> None:
    check_child(
        """
        import dromon

        def work():
            return sum(range(10**6))

        executor = dromon.Executor(2, isolation="interpreter")
        futures = [executor.submit(work) for _ in range(50)]
        print(futures[0].result())
        executor.shutdown(wait=False, cancel_futures=True)
        """,
        "499999500000",
    )


@pytest.mark.parametrize("module", ["hashlib", "ssl", "logging", "decimal", "sqlite3"])
def test_the_process_ends_with_modules_that_workers_have_imported(module: str) -> None:
    check_child(
        f"""
        import dromon

        def work():
            import {module}, zlib
            return zlib.decompress(zlib.compress(b"{module}", level=1)).decode()

        for _ in range(2):
            with dromon.Pool(2, isolation="interpreter") as pool:
                print(pool.submit(work).result())
        """,
        f"{module}\n{module}",
    )


def test_exit_functions_of_isolated_workers_run() -> None:
    check_child(
        """
        import trio, dromon

        def work():
            import atexit
            atexit.register(print, "bye")

        trio.run(dromon.to_interpreter.run_sync, work)
        """,
        "bye",
    )
