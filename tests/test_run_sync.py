"""Results, exceptions, arguments and context of calls: what holds for every way of calling."""

from __future__ import annotations

import contextvars
import gc
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sniffio
import trio
import trio.testing
from free_threading import frees_at_once

import dromon
from dromon import _bridge, _call, _port

RunSync = Callable[..., Any]


@pytest.fixture(params=["to_thread", "pool"])
async def run_sync(request: pytest.FixtureRequest) -> AsyncIterator[RunSync]:
    if request.param == "to_thread":
        yield dromon.to_thread.run_sync
    else:
        async with dromon.open_pool(workers=2) as pool:
            yield pool.run_sync


class Thing:
    """Something that a weak reference can watch."""


class ThingError(Exception):
    """An exception that a weak reference can watch."""


async def test_a_call_gets_its_arguments_and_returns_its_result(run_sync: RunSync) -> None:
    assert await run_sync(divmod, 17, 5) == (3, 2)


async def test_the_very_object_that_was_returned_arrives(run_sync: RunSync) -> None:
    thing = Thing()
    assert await run_sync(lambda: thing) is thing


async def test_a_result_whose_type_cannot_be_hashed_or_compared_arrives(run_sync: RunSync) -> None:
    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            raise AssertionError("it was compared")

        __hash__ = None  # type: ignore[assignment]

    class Strange(metaclass=Meta): ...

    strange = Strange()
    assert await run_sync(lambda: strange) is strange


async def test_a_call_runs_on_another_thread(run_sync: RunSync) -> None:
    assert await run_sync(threading.get_ident) != threading.get_ident()


async def test_an_exception_arrives_as_the_same_object_with_its_traceback(
    run_sync: RunSync,
) -> None:
    error = LookupError("this one")
    cause = ValueError("cause")

    def inner() -> None:
        raise error from cause

    def outer() -> None:
        inner()

    with pytest.raises(LookupError) as info:
        await run_sync(outer)
    assert info.value is error
    assert info.value.__cause__ is cause
    names = [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
    assert names[-2:] == ["outer", "inner"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), trio.TooSlowError()])
async def test_any_base_exception_goes_to_the_caller_and_not_to_the_worker(
    run_sync: RunSync, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as info:
        await run_sync(fail)
    assert info.value is error
    assert await run_sync(int, "1") == 1


async def test_context_variables_are_those_of_the_submitting_task(run_sync: RunSync) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the task's")
    assert await run_sync(variable.get) == "the task's"


async def test_context_changes_of_a_call_stay_in_the_call(run_sync: RunSync) -> None:
    variable = contextvars.ContextVar("variable", default="before")
    await run_sync(variable.set, "changed")
    assert variable.get() == "before"
    assert await run_sync(variable.get) == "before"


async def test_a_worker_is_not_inside_an_async_library(run_sync: RunSync) -> None:
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await run_sync(sniffio.current_async_library)
    sniffio.current_async_library_cvar.set("trio")
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await run_sync(sniffio.current_async_library)


async def test_arguments_are_released_before_the_result_arrives(run_sync: RunSync) -> None:
    watched = weakref.ref(thing := Thing())

    def forget(_thing: Thing) -> str:
        return "done"

    things = [thing]
    del thing
    gc.disable()
    try:
        assert await run_sync(forget, things.pop()) == "done"
        assert watched() is None
    finally:
        gc.enable()


@frees_at_once
async def test_an_idle_worker_keeps_neither_function_nor_result_nor_exception(
    run_sync: RunSync,
) -> None:
    class Function:
        def __call__(self, error: Exception | None = None) -> Thing:
            if error is not None:
                raise error
            return Thing()

    gc.disable()
    try:
        function = Function()
        watched = [weakref.ref(function)]
        result = await run_sync(function)
        watched.append(weakref.ref(result))
        error = ThingError()
        watched.append(weakref.ref(error))
        try:
            await run_sync(function, error)
        except ThingError as caught:
            caught.__traceback__ = None
        del function, result, error
        assert [reference() for reference in watched] == [None, None, None]
    finally:
        gc.enable()


async def test_a_call_of_something_not_callable_is_refused_by_name(run_sync: RunSync) -> None:
    with pytest.raises(TypeError, match=r"sync_fn must be callable, not 3"):
        await run_sync(3)


async def test_a_coroutine_that_a_function_returns_is_refused_and_closed(
    run_sync: RunSync,
) -> None:
    async def asynchronous() -> None: ...

    with pytest.raises(TypeError, match=r"expected a sync function, but .*asynchronous"):
        await run_sync(lambda: asynchronous())  # left alone it would be a warning, and so an error


async def test_a_thread_name_that_is_no_string_is_refused_by_name(run_sync: RunSync) -> None:
    with pytest.raises(TypeError, match=r"thread_name must be a string or None, not 3"):
        await run_sync(int, thread_name=3)


async def test_a_thread_name_that_the_kernel_can_not_have_harms_nobody(run_sync: RunSync) -> None:
    assert await run_sync(int, "1", thread_name="half a pair: \udc80") == 1
    thread = await run_sync(threading.current_thread)
    assert thread.name.startswith("dromon-")
    assert await run_sync(int, "2", thread_name="again") == 2


async def test_a_thread_name_holds_for_one_call(run_sync: RunSync) -> None:
    def names() -> tuple[str, str]:
        with open("/proc/thread-self/comm") as comm:
            return threading.current_thread().name, comm.read().strip()

    own = "a name longer than what the kernel keeps"
    assert await run_sync(names, thread_name=own) == (own, own[:15])
    task = trio.lowlevel.current_task()
    name = f"names from {task.name}"
    assert await run_sync(names) == (name, name[:15])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fourteen bytes\u00fc", "fourteen bytes"),
        ("thirteen byte\u00fc", "thirteen byte\u00fc"),
        ("a \udc80 b", "a ? b"),
    ],
)
async def test_the_system_shows_whole_characters_of_a_thread_name(
    run_sync: RunSync, name: str, shown: str
) -> None:
    def read_comm() -> bytes:
        return Path("/proc/thread-self/comm").read_bytes()

    assert await run_sync(read_comm, thread_name=name) == f"{shown}\n".encode()


async def test_a_worker_is_one_permanent_entry_in_the_table_of_threads(run_sync: RunSync) -> None:
    threads = [await run_sync(threading.current_thread) for _ in range(20)]
    assert all(thread in threading.enumerate() for thread in threads)
    assert len({thread.ident for thread in threads}) == len(set(threads))


async def test_calls_from_many_tasks_all_get_their_own_results(run_sync: RunSync) -> None:
    results = {}

    async def call(number: int) -> None:
        results[number] = await run_sync(str, number)

    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(call, number)
    assert results == {number: str(number) for number in range(2000)}


async def test_a_call_is_protected_from_keyboard_interrupts(
    run_sync: RunSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected = []

    def current_task() -> trio.lowlevel.Task:
        protected.append(trio.lowlevel.currently_ki_protected())
        return trio.lowlevel.current_task()

    monkeypatch.setattr(_call, "current_task", current_task)
    await run_sync(int)
    assert protected == [True]


async def test_one_system_task_of_the_run_delivers_calls_by_the_batch(
    run_sync: RunSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def wake_waiters(calls: list[_bridge.Call]) -> None:
        batches.append(len(calls))
        _wake_waiters(calls)

    _wake_waiters = _port._wake_waiters
    monkeypatch.setattr(_port, "_wake_waiters", wake_waiters)
    done = threading.Semaphore(0)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(run_sync, done.release)
        for _ in range(2):  # in this time each task has made its call
            await trio.lowlevel.checkpoint()
        for _ in range(100):  # the loop stands still until all have run
            done.acquire()
    assert sum(batches) == 100
    assert len(batches) < 20
    root = trio.lowlevel.current_root_task()
    assert root is not None
    system_tasks = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
    system_tasks += [
        inner.name
        for nursery in root.child_nurseries
        for task in nursery.child_tasks
        for deeper in task.child_nurseries
        for inner in deeper.child_tasks
    ]
    assert sum("_deliver_calls" in name for name in system_tasks) == 1


async def test_a_call_is_a_checkpoint(run_sync: RunSync) -> None:
    await run_sync(int)
    with trio.testing.assert_checkpoints():
        await run_sync(int)
