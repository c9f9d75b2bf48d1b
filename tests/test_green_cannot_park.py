"""What cannot park blocks its OS thread: it waits all the same, and nothing else runs there.

Shown by a second task of the only worker, which would run if the first had parked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import green_works as works
import pytest
from child import check_child
from green_pools import Isolation, in_both, run


def blocks(isolation: Isolation, fn: Callable[..., object], *args: object) -> None:
    assert run(isolation, works.runs_beside, fn, *args) is False


@in_both
def test_what_waits_in_the_usual_way_lets_others_run(isolation: Isolation) -> None:
    assert run(isolation, works.runs_beside, works.wait_a_little) is True


def test_a_wait_in_a_users_greenlet_blocks() -> None:
    pytest.importorskip("greenlet")
    blocks("thread", works.wait_in_greenlet)


def test_a_task_parks_while_greenlets_of_its_own_are_suspended() -> None:
    pytest.importorskip("greenlet")
    run("thread", works.park_with_suspended_greenlets)


@in_both
def test_a_wait_in_the_finalizer_of_what_is_let_go_of_is_one_like_others(
    isolation: Isolation,
) -> None:
    assert run(isolation, works.runs_beside, works.wait_in_finalizer) is True


@in_both
def test_a_wait_in_a_finalizer_that_the_collector_calls_blocks(isolation: Isolation) -> None:
    blocks(isolation, works.wait_in_collected_finalizer)


@in_both
def test_a_module_that_waits_when_it_is_imported_is_never_seen_half_made(
    isolation: Isolation, tmp_path: Path
) -> None:
    (tmp_path / "green_waits_at_import.py").write_text(
        "from dromon import green\ngreen.sleep(0.01)\nready = True\n"
    )
    assert run(isolation, works.import_twice, str(tmp_path)) == [True, True]
    sys.modules.pop("green_waits_at_import", None)


def test_past_the_memory_for_stacks_a_wait_blocks() -> None:
    """Waits that cannot have a stack of their own still end, each after the other."""
    check_child(
        """
        import resource
        import dromon
        from dromon import green

        with dromon.Pool(1, stack_size=1 << 20) as pool:
            pool.submit(green.sleep, 0).result()
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[0])
            limit = pages * resource.getpagesize() + (96 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            futures = [pool.submit(green.sleep, 0.001) for _ in range(500)]
            for future in futures:
                future.result(timeout=60)
        print("all have ended")
        """,
        "all have ended",
    )
