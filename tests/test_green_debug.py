"""DROMON_DEBUG=1: reports of a worker that is stuck while green threads of it could go on."""

from __future__ import annotations

import re
import sys

import pytest
from child import run_child

# A lock of the system's is held across a wait: who wants it next blocks the worker, which the one
# that holds it needs. This one gives up when the report has come.
STUCK = """
import io, os, sys, threading, dromon
from dromon import _stuck, green

_stuck.STUCK_AFTER = 0.02

lock = threading.Lock()
reported = threading.Event()

class Reports(io.StringIO):
    def write(self, text):
        reported.set()
        return sys.__stderr__.write(text)

sys.stderr = Reports()

def hold(event):
    with lock:
        event.wait()

def want(event):
    event.set()
    while not reported.is_set():
        lock.acquire(timeout=0.01)

def root():
    event = green.Event()
    with green.open_scope() as scope:
        holder = scope.spawn(hold, event)
        while holder.state != "waiting":
            green.checkpoint()
        want(event)

def run():
    with dromon.Pool(1, name="few") as pool:
        pool.submit(root).result()
"""


@pytest.fixture(autouse=True)
def _not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DROMON_DEBUG", raising=False)


@pytest.fixture(scope="module")
def report() -> str:
    result = run_child(
        STUCK + "run()\n",
        env={"DROMON_DEBUG": "1"},
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    return result.stderr


def test_it_says_which_worker_is_stuck_and_what_to_do(report: str) -> None:
    assert re.match(
        r"dromon: few-0 \(thread \d+\) has kept green threads waiting for \d+\.\d s that could go"
        r" on\. If it waits for .* use dromon\.green\.Lock\.\nfew-0 is at\n",
        report,
    )


def test_it_has_the_stack_of_what_is_stuck(report: str) -> None:
    stack = report.partition("few-0 is at\n")[2].partition("and these could go on:\n")[0]
    assert re.findall(r", in (\w+)\n", stack + "\n")[:2] == ["root", "want"]


def test_it_has_the_stacks_of_those_that_could_go_on(report: str) -> None:
    ready = report.partition("and these could go on:\n")[2]
    assert ready.startswith("  hold: ready in Event.wait for <Event at ")
    assert ", in hold\n" in ready + "\n"
    assert "root" not in ready


def test_each_is_reported_once(report: str) -> None:
    assert report.count("dromon: ") == 1


def test_without_the_variable_there_is_no_thread_that_looks() -> None:
    result = run_child(
        """
        import dromon
        from pathlib import Path

        with dromon.Executor(1, thread_name_prefix="few") as executor:
            executor.submit(int).result()
            names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
            print([name for name in names if name.startswith("few")])
        """
    )
    assert (result.stdout, result.stderr) == ("['few-0']\n", "")


def test_a_worker_that_is_busy_while_others_wait_for_something_is_not_stuck() -> None:
    result = run_child(
        STUCK
        + """
def want(event):
    reported.wait(0.3)  # long against STUCK_AFTER
    event.set()

run()
print(reported.is_set())
""",
        env={"DROMON_DEBUG": "1"},
    )
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_green_threads_that_give_way_to_each_other_keep_nobody_waiting() -> None:
    result = run_child(
        STUCK
        + """
import time

_stuck.STUCK_AFTER = 0.4

def give_way():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        green.checkpoint()

with dromon.Pool(1) as pool:
    for future in [pool.submit(give_way) for _ in range(3)]:
        future.result()
print(reported.is_set())
""",
        env={"DROMON_DEBUG": "1"},
    )
    assert (result.stdout, result.stderr) == ("False\n", "")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs interpreters of their own")
def test_of_a_worker_with_an_interpreter_of_its_own_it_says_that_it_has_no_stack() -> None:
    result = run_child(
        STUCK
        + """
def in_there():
    import threading
    from dromon import green
    event = green.Event()
    with green.open_scope() as scope:
        task = scope.spawn(event.wait)
        while task.state != "waiting":
            green.checkpoint()
        event.set()
        threading.Event().wait(0.5)

with dromon.Pool(1, name="few", isolation="interpreter") as pool:
    pool.submit(in_there).result()
""",
        env={"DROMON_DEBUG": "1"},
    )
    assert result.stderr.startswith("dromon: few-0 (thread "), result
    assert "few-0 is at\n  (no Python code of this interpreter)\n" in result.stderr
