"""Green threads and the life of their pool and process: closing and exit with parked ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import green_works as works
import pytest
import trio
from child import check_child
from green_pools import Isolation, in_both

import dromon
from dromon import green


@in_both
@pytest.mark.parametrize("workers", [1, 2])
def test_closing_a_pool_waits_for_accepted_calls_that_are_parked(
    isolation: Isolation, workers: int
) -> None:
    with dromon.Pool(workers, isolation=isolation) as pool:
        futures = [pool.submit(works.sleep_and_return, i) for i in range(200)]
    assert [future.result(timeout=60) for future in futures] == list(range(200))


def test_a_pool_is_closed_when_the_last_parked_call_has_been_woken() -> None:
    go_on, closed = green.Event(), threading.Event()
    pool = dromon.Pool(1)
    future = pool.submit(go_on.wait)

    def close() -> None:
        pool.close()
        closed.set()

    thread = threading.Thread(target=close)
    thread.start()
    while not pool._bridge.closed:
        pass
    assert not closed.is_set()
    go_on.set()
    thread.join()
    assert future.done()


async def _abandon(pool: dromon.Pool, fn: Callable[[Callable[[], None]], object]) -> None:
    """Call ``fn(has_begun)``, and leave the call alone once that was called."""
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def has_begun() -> None:
        token.run_sync_soon(begun.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.run_sync(fn, has_begun, abandon_on_cancel=True))
        await begun.wait()
        nursery.cancel_scope.cancel()


async def test_closing_a_pool_cancels_abandoned_calls_where_they_are_parked() -> None:
    log = []

    def work(has_begun: Callable[[], None]) -> None:
        has_begun()
        try:
            green.Event().wait()
        except green.Cancelled:
            log.append("cancelled")
            raise
        finally:
            green.sleep(0.001)  # parks again
            log.append("ended")

    async with dromon.open_pool(1) as pool:
        await _abandon(pool, work)
        assert log == []
    assert log == ["cancelled", "ended"]


async def test_closing_a_pool_cancels_the_children_of_abandoned_calls() -> None:
    log = []
    begun = green.Semaphore(0)

    def child() -> None:
        begun.release()
        try:
            green.Event().wait()
        finally:
            green.sleep(0.001)
            log.append("child")

    def work(has_begun: Callable[[], None]) -> None:
        with green.open_scope() as scope:
            for _ in range(3):
                scope.spawn(child)
            for _ in range(3):
                begun.acquire()
            has_begun()

    async with dromon.open_pool(1) as pool:
        await _abandon(pool, work)
    assert log == ["child"] * 3


async def test_an_abandoned_call_that_runs_when_its_pool_is_closed_gets_it_where_it_waits() -> None:
    go_on = threading.Event()
    log = []

    def work(has_begun: Callable[[], None]) -> None:
        has_begun()
        go_on.wait()
        try:
            green.sleep(0)
        except green.Cancelled:
            log.append("cancelled")

    async with dromon.open_pool(1) as pool:
        await _abandon(pool, work)
        pool._end()
        go_on.set()
    assert log == ["cancelled"]


async def test_a_parked_call_that_is_abandoned_in_a_closed_pool_is_cancelled_at_once() -> None:
    log = []

    def work() -> None:
        try:
            green.Event().wait()
        except green.Cancelled:
            log.append("cancelled")

    async with dromon.open_pool(1) as pool:
        with trio.CancelScope() as scope:

            def end() -> None:
                pool._end()
                scope.cancel()

            token = trio.lowlevel.current_trio_token()

            def leave_and_wait() -> None:
                token.run_sync_soon(end)
                work()

            await pool.run_sync(leave_and_wait, abandon_on_cancel=True)
    assert log == ["cancelled"]


@in_both
def test_closing_a_pool_ends_abandoned_calls_of_both_sorts(isolation: Isolation) -> None:
    """In a process of its own, where one that is not ended shows as a hang."""
    check_child(
        f"""
        import trio, dromon, green_works

        async def main():
            async with dromon.open_pool(2, isolation={isolation!r}) as pool:
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(lambda: pool.run_sync(
                            green_works.wait_for_ever, abandon_on_cancel=True))
                    while pool.statistics().running or pool.statistics().queued:
                        await trio.sleep(0.01)
                    nursery.cancel_scope.cancel()

        trio.run(main)
        print("closed")
        """,
        "closed",
    )


# ---- The end of the process ----

THOUSANDS = """
    import pathlib, trio, dromon, green_works

    pool = dromon.Pool(2, isolation={isolation!r})

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.run_sync(
                green_works.keep_parked, {count}, {said!r}, abandon_on_cancel=True))
            await trio.to_thread.run_sync(pathlib.Path({said!r}).read_bytes)
            nursery.cancel_scope.cancel()

    trio.run(main)
    {end}
    print("bye")
"""


@in_both
@pytest.mark.parametrize("end", ["", "pool.close()"], ids=["open", "closed"])
def test_the_process_ends_with_thousands_parked(
    isolation: Isolation, end: str, tmp_path: Path
) -> None:
    said = str(tmp_path / "said")
    os.mkfifo(said)
    check_child(THOUSANDS.format(isolation=isolation, count=3000, said=said, end=end), "bye")
