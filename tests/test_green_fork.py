"""Forks of a process with parked green threads; each in a process of its own, to show hangs."""

from __future__ import annotations

import pytest
from child import check_child
from green_pools import Isolation, in_both

HEAD = """
import os, sys, threading, warnings
import dromon, green_works
from dromon import green

warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def use_a_pool():
    with dromon.Pool(1) as pool:
        return pool.submit(green_works.all_at_once, abs, 3).result(timeout=30)
"""

ENDS = {"os._exit": "os._exit(3)", "sys.exit": "sys.exit(3)"}


@in_both
@pytest.mark.parametrize("end", ENDS)
def test_the_main_thread_forks_while_green_threads_are_parked(
    isolation: Isolation, end: str
) -> None:
    check_child(
        f"""{HEAD}
pool = dromon.Pool(2, isolation={isolation!r})
futures = [pool.submit(green_works.sleep_and_return, i) for i in range(100)]
pool.submit(abs, 1).result(timeout=30)
pid = os.fork()
if pid == 0:
    assert use_a_pool() == [0, 1, 2]
    sys.stdout.flush()
    {ENDS[end]}
assert status_of(pid) == 3
assert [future.result(timeout=30) for future in futures] == list(range(100))
pool.close()
print("well")
""",
        "well",
    )


@pytest.mark.parametrize("parks_before", [False, True])
def test_a_green_thread_forks_while_others_are_parked(parks_before: bool) -> None:
    check_child(
        f"""{HEAD}
def work(i):
    if {parks_before}:
        green_works.park()
        green.sleep(0.001)
    if i == 1:
        pid = os.fork()
        if pid == 0:
            assert use_a_pool() == [0, 1, 2]
            os._exit(3)
        assert status_of(pid) == 3
    green_works.park()
    return i

with dromon.Pool(1) as pool:
    assert pool.submit(green_works.all_at_once, work, 3).result(timeout=30) == [0, 1, 2]
print("well")
""",
        "well",
    )


def test_the_child_of_a_fork_in_a_green_thread_ends_with_that_like_a_thread() -> None:
    """Its worker is the only thread there, and the others of its green threads are gone."""
    check_child(
        f"""{HEAD}
def work():
    green.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        return None
    return status_of(pid)

with dromon.Pool(1) as pool:
    parked = pool.submit(green.sleep, 0.5)
    print(pool.submit(green_works.on_new_stack, work).result(timeout=30))
""",
        "0",
    )


def test_a_wait_in_the_child_of_a_fork_blocks() -> None:
    check_child(
        f"""{HEAD}
def work():
    green.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        green.sleep(0.001)
        event = green.Event()
        threading.Timer(0.01, event.set).start()
        event.wait()
        os._exit(3)
    return status_of(pid)

with dromon.Pool(1) as pool:
    print(pool.submit(green_works.on_new_stack, work).result(timeout=30))
""",
        "3",
    )
