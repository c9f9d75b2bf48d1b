"""Who watches the program sees what workers run: tracers, coverage, debuggers, profilers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from child import check_child, run_child
from coverage_runs import run_coverage

# ---- Hooks of the interpreter --------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["trace", "profile"])
def test_hooks_of_tracers_and_profilers_see_what_workers_run(hook: str) -> None:
    check_child(
        f"""
        import threading, trio, dromon
        seen = set()

        def hook(frame, event, arg):
            seen.add(frame.f_code.co_name)

        def a_function_on_a_worker():
            pass

        threading.set{hook}(hook)
        trio.run(dromon.to_thread.run_sync, a_function_on_a_worker)
        print("a_function_on_a_worker" in seen)
        """,
        "True",
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
@pytest.mark.parametrize("hook", ["trace", "profile"])
def test_hooks_can_be_set_for_workers_that_are_there_already(hook: str) -> None:
    check_child(
        f"""
        import threading, trio, dromon
        seen = set()

        def hook(frame, event, arg):
            seen.add((threading.current_thread().name, frame.f_code.co_name))

        def a_function_on_a_worker():
            pass

        async def main():
            async with dromon.open_pool(workers=1) as pool:
                await pool.run_sync(int)
                threading.set{hook}_all_threads(hook)
                await pool.run_sync(a_function_on_a_worker)
                threading.set{hook}_all_threads(None)
                await pool.run_sync(int)

        trio.run(main)
        print(any("a_function_on_a_worker" in pair for pair in seen))
        """,
        "True",
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_sys_monitoring_sees_what_workers_run() -> None:
    check_child(
        """
        import sys, threading, trio, dromon
        seen = set()

        def on_start(code, offset):
            seen.add((threading.current_thread().name, code.co_name))

        def a_function_on_a_worker():
            pass

        async def main():
            async with dromon.open_pool(workers=1) as pool:
                await pool.run_sync(int)
                monitoring = sys.monitoring
                monitoring.use_tool_id(monitoring.PROFILER_ID, "test")
                monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)
                monitoring.register_callback(
                    monitoring.PROFILER_ID, monitoring.events.PY_START, on_start)
                await pool.run_sync(a_function_on_a_worker)
                monitoring.set_events(monitoring.PROFILER_ID, 0)

        trio.run(main)
        print(any("a_function_on_a_worker" in pair for pair in seen))
        """,
        "True",
    )


@pytest.mark.parametrize("hook", ["trace", "profile"])
def test_a_hook_that_raises_as_a_worker_ends_keeps_no_entry_of_it(hook: str) -> None:
    check_child(
        f"""
        import threading, trio, dromon

        def hook(frame, event, arg):
            if frame.f_code.co_name == "leave":
                raise LookupError

        async def main():
            async with dromon.open_pool(workers=2):
                pass

        threading.set{hook}(hook)
        trio.run(main)
        print(len(threading.enumerate()))
        """,
        "1",
    )


COVERED = """\
import trio
import dromon


def run_by_a_worker(number):
    if number > 1:
        return "large"
    return "small"


async def main():
    async with dromon.open_pool(workers=1) as pool:
        print(await pool.run_sync(run_by_a_worker, 7))


trio.run(main)
"""


@pytest.mark.parametrize(
    "core",
    [
        "ctrace",
        "pytrace",
        pytest.param(
            "sysmon",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12"),
        ),
    ],
)
def test_coverage_measures_what_workers_run(core: str, tmp_path: Path) -> None:
    pytest.importorskip("coverage", reason="coverage is not installed")
    (tmp_path / "covered.py").write_text(COVERED)

    coverage = partial(run_coverage, core, tmp_path)
    assert coverage("run", "covered.py") == "large\n"
    coverage("json", "-q", "-o", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())["files"]["covered.py"]
    lines = COVERED.splitlines()
    assert {lines[number - 1].strip() for number in report["executed_lines"]} >= {
        "if number > 1:",
        'return "large"',
    }
    assert [lines[number - 1].strip() for number in report["missing_lines"]] == ['return "small"']


# ---- Debuggers and profilers ---------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_sees_the_workers_by_name_and_a_backtrace_to_their_entry(tmp_path: Path) -> None:
    script = """if True:
        import os, signal, sys, trio, dromon
        async def main():
            async with dromon.open_pool(workers=2):
                os.kill(os.getpid(), signal.SIGTRAP)  # hands over to the debugger
        trio.run(main)
    """
    commands = ["set debuginfod enabled off", "run", "info threads", "thread apply all backtrace"]
    gdb = ["gdb", "-batch", "-nx", *(f"-ex={command}" for command in commands)]
    output = subprocess.run(
        [*gdb, "--args", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    ).stdout
    if "ptrace" in output and "not permitted" in output:
        pytest.skip("this machine does not allow tracing")
    assert '"dromon-0"' in output
    assert '"dromon-1"' in output
    # A parked worker's frames lead to libc's thread entry, through the place where it was made.
    worker = output[output.index("arch_clone3_transfer") :]
    assert "incubate" in worker.split("Thread")[0]


@pytest.mark.skipif(shutil.which("py-spy") is None, reason="py-spy is not installed")
def test_py_spy_sees_the_workers_by_name_and_what_they_run() -> None:
    result = run_child(
        """
        import os, subprocess, threading, trio, dromon

        def what_the_worker_does(begun, release):
            begun.set()
            release.wait()

        async def main():
            begun, release = threading.Event(), threading.Event()
            async with dromon.open_pool(workers=1) as pool, trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, what_the_worker_does, begun, release)
                await trio.to_thread.run_sync(begun.wait)
                # A trio process, as all else waits: it may look at its parent where allowed.
                dump = await trio.run_process(
                    ["py-spy", "dump", "--nonblocking", "--pid", str(os.getpid())],
                    capture_stdout=True, capture_stderr=True, check=False)
                print(dump.stdout.decode(), dump.stderr.decode())
                release.set()

        trio.run(main)
        """
    )
    if "Permission denied" in result.stdout or "Operation not permitted" in result.stdout:
        pytest.skip("this machine does not allow looking into processes")
    if "Failed to find a python version" in result.stdout:
        pytest.skip("this py-spy does not know this Python")
    worker = result.stdout.partition('"dromon-0"')[2].partition("Thread")[0]
    assert "what_the_worker_does" in worker, result.stdout
