"""Green threads as tools see them: tracebacks, tracers, coverage, debuggers, profilers."""

from __future__ import annotations

import faulthandler
import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
from child import check_child, run_child
from coverage_runs import run_coverage
from waiting import let_wait, wait_inside

import dromon
from dromon import green

# ---- Tracebacks ----------------------------------------------------------------------------------


def test_each_that_is_parked_has_an_ident_of_its_own_and_frames(
    one_worker: dromon.Executor,
) -> None:
    event = green.Event()

    def root() -> None:
        with green.open_scope() as scope:
            tasks = [scope.spawn(wait_inside, event) for _ in range(20)]
            let_wait(*tasks)
            frames = sys._current_frames()
            idents = {task.ident or 0 for task in tasks}
            assert len(idents) == 20
            assert threading.get_ident() == green.current_task().ident not in idents
            assert {frames[ident].f_code.co_name for ident in idents} == {"wait_inside"}
            assert frames[threading.get_ident()].f_code is root.__code__
            event.set()
        assert [task.ident for task in tasks] == [None] * 20

    one_worker.submit(root).result()


def test_faulthandler_prints_those_that_are_parked(
    one_worker: dromon.Executor, tmp_path: Path
) -> None:
    event = green.Event()

    def root() -> None:
        with green.open_scope() as scope, (tmp_path / "dump").open("w") as file:
            let_wait(*[scope.spawn(wait_inside, event) for _ in range(3)])
            faulthandler.dump_traceback(file, all_threads=True)
            event.set()

    one_worker.submit(root).result()
    text = (tmp_path / "dump").read_text()
    assert text.count(" in wait_inside\n") == 3
    current = text.partition("Current thread ")[2].partition("\n\n")[0]
    assert current.splitlines()[1].endswith(" in root")


def test_a_traceback_out_of_what_was_parked_is_whole(one_worker: dromon.Executor) -> None:
    def fail(_: object) -> int:
        green.sleep(0)
        raise ValueError

    def nested() -> None:
        sorted([1], key=fail)

    def root() -> None:
        with green.open_scope() as scope:
            let_wait(scope.spawn(green.sleep, 3600))
            green.sleep(0.001)
            nested()

    error = one_worker.submit(root).exception()
    assert isinstance(error, ExceptionGroup)
    names = []
    traceback = error.exceptions[0].__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names == ["root", "nested", "fail"]


# ---- Tracers and coverage ------------------------------------------------------------------------


def test_the_tracer_of_one_green_thread_sees_no_other(one_worker: dromon.Executor) -> None:
    seen: dict[str, list[str]] = {"one": [], "other": []}

    def work(name: str) -> None:
        def trace(frame: FrameType, event: str, arg: object) -> None:
            seen[name].append(frame.f_code.co_name)

        sys.settrace(trace)
        try:
            for _ in range(3):
                green.sleep(0)
                call_of[name]()
        finally:
            sys.settrace(None)

    def call_one() -> None:
        pass

    def call_other() -> None:
        pass

    call_of = {"one": call_one, "other": call_other}
    with dromon.Executor(1) as executor:
        for future in [executor.submit(work, name) for name in call_of]:
            future.result()
    assert seen == {"one": ["call_one"] * 3, "other": ["call_other"] * 3}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_a_tracer_for_all_threads_reaches_those_that_are_parked() -> None:
    check_child(
        """
        import threading, dromon
        from dromon import green

        seen = set()

        def trace(frame, event, arg):
            if frame.f_code.co_name.startswith("after"):
                seen.add(frame.f_code.co_name)

        def after_one(): pass
        def after_other(): pass

        def work(event, then):
            event.wait()
            then()

        def root():
            event = green.Event()
            with green.open_scope() as scope:
                tasks = [scope.spawn(work, event, then) for then in (after_one, after_other)]
                while any(task.state != "waiting" for task in tasks):
                    green.checkpoint()
                threading.settrace_all_threads(trace)
                event.set()

        with dromon.Executor(1) as executor:
            executor.submit(root).result()
        threading.settrace_all_threads(None)
        print(sorted(seen))
        """,
        "['after_one', 'after_other']",
    )


COVERED = """\
import dromon
from dromon import green


def child(number):
    green.sleep(0.001)
    before = number
    green.sleep(0.001)
    if number < 0:
        return None
    return before


def root():
    return green.map(child, range(3))


with dromon.Executor(1) as executor:
    futures = [executor.submit(root) for _ in range(3)]
    print([future.result() for future in futures])
"""


@pytest.mark.parametrize(
    "core",
    [
        "ctrace",
        pytest.param(
            "sysmon",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12"),
        ),
    ],
)
def test_coverage_counts_the_lines_before_and_after_each_wait(core: str, tmp_path: Path) -> None:
    pytest.importorskip("coverage", reason="coverage is not installed")
    (tmp_path / "covered.py").write_text(COVERED)

    coverage = partial(run_coverage, core, tmp_path)
    assert coverage("run", "covered.py") == f"{[[0, 1, 2]] * 3}\n"
    coverage("json", "-q", "-o", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())["files"]["covered.py"]
    lines = COVERED.splitlines()
    assert [lines[number - 1].strip() for number in report["missing_lines"]] == ["return None"]


# ---- Debuggers and profilers ---------------------------------------------------------------------

# Two are parked, and a third one runs on a stack that is not the thread's own.
PARKED = """
    import os, signal, subprocess, threading, dromon
    from dromon import green

    def wait_inside(event):
        event.wait()

    def root():
        event = green.Event()
        with green.open_scope() as scope:
            tasks = [scope.spawn(wait_inside, event) for _ in range(2)]
            while any(task.state != "waiting" for task in tasks):
                green.checkpoint()
            scope.spawn(look, event)
            event.wait()  # so that it does not run in place of this one's wait

    with dromon.Executor(1) as executor:
        executor.submit(root).result()
"""


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_unwinds_a_green_thread_to_its_beginning() -> None:
    script = (
        """if True:
    def look(event):
        os.kill(os.getpid(), signal.SIGTRAP)  # hands over to the debugger
        threading.Event().wait()  # which ends the process
"""
        + PARKED
    )
    commands = ["set debuginfod enabled off", "run", "thread apply all backtrace"]
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
    # Outermost is what the stack began with; gdb has nothing to complain about.
    worker = next(part for part in output.split("\nThread ") if "fiber_main" in part)
    assert worker.strip().splitlines()[-1].partition(" in ")[2].startswith("stack_entry"), output
    assert "Backtrace stopped" not in worker


@pytest.mark.skipif(shutil.which("py-spy") is None, reason="py-spy is not installed")
def test_py_spy_shows_those_that_are_parked() -> None:
    result = run_child(
        """
    def look(event):
        py_spy = ["py-spy", "dump", "--nonblocking", "--pid", str(os.getpid())]
        dump = subprocess.run(py_spy, capture_output=True, text=True)
        print(dump.stdout, dump.stderr)
        event.set()
"""
        + PARKED
    )
    if "Permission denied" in result.stdout or "Operation not permitted" in result.stdout:
        pytest.skip("this machine does not allow looking into processes")
    if "Failed to find a python version" in result.stdout:
        pytest.skip("this py-spy does not know this Python")
    assert result.stdout.count("wait_inside (") == 2, result
    assert result.stdout.count("look (") == 1
