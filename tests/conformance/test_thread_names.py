"""What threads are called while they run a call: in Python, and by the system."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

import dromon


def read_names() -> tuple[str, str]:
    """The current thread's name in Python and that which the system knows."""
    comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    return threading.current_thread().name, comm.read_text().removesuffix("\n")


class Nameless:
    """A callable that has no name of its own."""

    def __call__(self) -> tuple[str, str]:
        return read_names()


async def call_in_task_named(
    name: str, library: ModuleType, function: Callable[[], Any], **options: Any
) -> Any:
    result = None

    async def call() -> None:
        nonlocal result
        result = await library.to_thread.run_sync(function, **options)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, name=name)
    return result


async def test_a_thread_is_named_after_its_function_and_its_task(library: ModuleType) -> None:
    python_name, system_name = await call_in_task_named("my task", library, read_names)
    assert python_name == "read_names from my task"
    assert system_name == "read_names from"


async def test_a_thread_is_named_after_the_full_name_of_a_task_that_has_no_other(
    library: ModuleType,
) -> None:
    task = trio.lowlevel.current_task()
    python_name, _ = await library.to_thread.run_sync(read_names)
    assert python_name == f"read_names from {task.name}"


@pytest.mark.parametrize("make", [lambda: functools.partial(read_names), Nameless])
async def test_a_function_without_a_name_is_none(
    library: ModuleType, make: Callable[[], Callable[[], Any]]
) -> None:
    python_name, system_name = await call_in_task_named("my task", library, make())
    assert python_name == "None from my task"
    assert system_name == "None from my ta"


async def test_a_name_that_was_asked_for_is_the_whole_name(library: ModuleType) -> None:
    name = "longer than what the system keeps"
    names = await library.to_thread.run_sync(read_names, thread_name=name)
    assert names == (name, name[:15])


async def test_an_empty_name_is_a_name(library: ModuleType) -> None:
    assert await library.to_thread.run_sync(read_names, thread_name="") == ("", "")


async def test_each_call_has_a_name_of_its_own(library: ModuleType) -> None:
    barrier = threading.Barrier(3)
    names = {}

    def call() -> str:
        barrier.wait(10)
        name = threading.current_thread().name
        barrier.wait(10)
        return name

    async def run(name: str) -> None:
        names[name] = await library.to_thread.run_sync(call, thread_name=name)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(run, name)
    assert names == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("thread_name", [None, "another"])
async def test_a_worker_of_dromon_has_its_own_names_again_when_a_call_has_ended(
    thread_name: str | None,
) -> None:
    async with dromon.open_pool(workers=1) as pool:
        (worker,) = pool.statistics().workers
        during, _ = await pool.run_sync(read_names, thread_name=thread_name)
        assert during != worker.name
        assert await trio.to_thread.run_sync(pool.submit(read_names).result) == (
            worker.name,
            worker.name,
        )


async def test_a_worker_of_dromon_has_its_own_names_again_when_a_call_has_failed() -> None:
    async with dromon.open_pool(workers=1) as pool:
        (worker,) = pool.statistics().workers
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run_sync(int, "seven", thread_name="another")
        assert await trio.to_thread.run_sync(pool.submit(read_names).result) == (
            worker.name,
            worker.name,
        )
