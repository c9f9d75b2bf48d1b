"""Green tasks: what came of them, in what context they run, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import green_task_works as works
import pytest
import trio
from green_pools import in_both, run
from sniffio import current_async_library_cvar

import dromon
from dromon import green


@in_both
def test_a_task_has_the_result_of_its_function(isolation: str) -> None:
    results, done = run(isolation, works.results)
    assert results == [divmod(i, 3) for i in range(5)]
    assert all(done)


@in_both
def test_the_result_of_a_task_that_failed_is_what_it_raised(isolation: str) -> None:
    error = "ValueError: wrong"
    group = ["ExceptionGroup", error]
    assert run(isolation, works.result_of_failed) == (group, error, error, False)


@in_both
def test_the_result_of_a_cancelled_task_is_a_cancelled_error(isolation: str) -> None:
    parked, queued, log = run(isolation, works.result_of_cancelled)
    assert parked == queued == [True, True, True, True]
    assert log == ["begun", "cancelled"]


@in_both
def test_who_waits_for_a_result_may_do_so_for_a_time(isolation: str) -> None:
    error = "TimeoutError: the task has not ended in time"
    assert run(isolation, works.result_in_time) == [error] * 4


@in_both
def test_a_task_tells_its_name_state_and_parent(isolation: str) -> None:
    found, _ = run(isolation, works.states)
    assert found == [
        ("the one", "queued", True),
        ("the one", "waiting", True),
        ("the one", "done", True),
    ]


@in_both
def test_a_task_cannot_wait_for_itself(isolation: str) -> None:
    error = "RuntimeError: a task cannot wait for itself"
    assert run(isolation, works.wait_for_oneself) == error


@in_both
def test_each_task_has_a_copy_of_the_context_at_its_spawn(isolation: str) -> None:
    in_place, parked, parent = run(isolation, works.contexts)
    assert in_place == parked == ("of the parent", "of the child")
    assert parent == "changed"


@in_both
def test_parked_tasks_have_thread_locals_of_their_own(isolation: str) -> None:
    assert run(isolation, works.thread_local_of_tasks)


@in_both
def test_what_is_no_sync_function_is_refused_and_so_are_bad_arguments(isolation: str) -> None:
    assert run(isolation, works.bad_arguments) == {
        "async": " is asynchronous: spawn dromon.from_thread.run with it and its arguments, which"
        " runs it in trio",
        "async when called": [
            "ExceptionGroup",
            "TypeError: dromon expected a sync function, but Asynchronous() appears to be"
            " asynchronous",
        ],
        "no callable": "TypeError: fn must be callable, not 3",
        "nothing": "TypeError: spawn() needs a function",
        "keyword": "TypeError: spawn() takes only the keyword argument name; use functools.partial"
        " for those of the function",
        "name": "TypeError: name must be a str or None, not 3",
        "no iterable": "TypeError: map() needs at least one iterable",
        "timeout": "ValueError: timeout must be 0 or more seconds, not -1",
        "timeout of a kind": "TypeError: timeout must be a number of seconds, not '1'",
        "argument": "TypeError: takes one argument: timeout",
    }


@in_both
def test_cancelled_is_an_interrupt(isolation: str) -> None:
    assert run(isolation, works.is_subclass)


# ---- Elsewhere -----------------------------------------------------------------------------------


def test_on_an_ordinary_thread_there_is_no_task_and_no_scope() -> None:
    with pytest.raises(RuntimeError, match="no function on a dromon worker"):
        green.current_task()
    with pytest.raises(RuntimeError, match=r"trio.open_nursery\(\), elsewhere dromon.Executor"):
        green.open_scope().__enter__()
    with pytest.raises(RuntimeError, match="on a dromon worker"):
        green.map(int, ["1"])


def test_on_an_ordinary_thread_sleep_blocks_and_a_checkpoint_does_nothing() -> None:
    green.sleep(0)
    green.checkpoint()


def test_an_ordinary_thread_can_wait_for_a_task() -> None:
    handed_over: list[green.Task[Any]] = []
    is_there, go_on = threading.Event(), green.Event()

    def child() -> str:
        go_on.wait()
        return "the result"

    def root() -> None:
        with green.open_scope() as scope:
            handed_over.append(scope.spawn(child))
            is_there.set()

    with dromon.Pool(1) as pool:
        pool.submit(root)
        is_there.wait()
        threading.Timer(0.01, go_on.set).start()
        assert handed_over[0].result(timeout=60) == "the result"


def test_an_ordinary_thread_cannot_spawn_but_cancel() -> None:
    handed_over: list[green.Scope] = []
    is_there = threading.Event()

    def root() -> str:
        with green.open_scope() as scope:
            handed_over.append(scope)
            is_there.set()
            green.sleep(works.FOREVER)
        return "cancelled"

    with dromon.Pool(1) as pool:
        future = pool.submit(root)
        is_there.wait()
        with pytest.raises(RuntimeError, match="only what runs on a worker can spawn"):
            handed_over[0].spawn(int)
        handed_over[0].cancel()
        assert future.result(60) == "cancelled"


async def test_a_trio_task_is_told_what_it_would_use_instead() -> None:
    tasks: list[green.Task[int]] = []
    end = green.Event()

    def child() -> int:
        end.wait()
        return 3

    def root() -> None:
        with green.open_scope() as scope:
            tasks.append(scope.spawn(child))

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, root)
        while not tasks:
            await trio.lowlevel.checkpoint()
        with pytest.raises(RuntimeError, match=r"in a trio task use trio\.Nursery"):
            tasks[0].result()
        with pytest.raises(RuntimeError, match=r"in a trio task use trio\.sleep"):
            green.sleep(0)
        with pytest.raises(RuntimeError, match=r"trio\.lowlevel\.checkpoint"):
            green.checkpoint()
        with pytest.raises(RuntimeError, match=r"in a trio task use trio\.open_nursery"):
            green.open_scope().__enter__()
        end.set()
    assert tasks[0].result() == 3  # which is there: no waiting


async def test_no_async_library_runs_on_a_worker() -> None:
    current_async_library_cvar.set("trio")

    def look() -> list[str | None]:
        with green.open_scope() as scope:
            task = scope.spawn(current_async_library_cvar.get)
        return [current_async_library_cvar.get(), task.result()]

    async with dromon.open_pool(1) as pool:
        assert await pool.run_sync(look) == [None, None]
    assert await dromon.to_thread.run_sync(look) == [None, None]


async def test_a_call_and_its_current_task_are_one() -> None:
    def root() -> tuple[bool, bool, green.Task[Any] | None]:
        task = green.current_task()
        with green.open_scope() as scope:
            is_parent = scope.spawn(lambda: green.current_task().parent is task).result()
        return green.current_task() is task, is_parent, task.parent

    async with dromon.open_pool(1) as pool:
        assert await pool.run_sync(root) == (True, True, None)
