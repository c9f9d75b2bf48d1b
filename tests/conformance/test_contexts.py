"""Context variables, and which async library code believes to be in."""

from __future__ import annotations

import contextvars
from types import ModuleType

import pytest
import sniffio
import trio

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")


def change(value: str) -> str:
    """Set the variable, and return what it was."""
    before = variable.get()
    variable.set(value)
    return before


async def change_async(value: str) -> str:
    await trio.lowlevel.checkpoint()
    before = change(value)
    await trio.lowlevel.checkpoint()
    assert variable.get() == value
    return before


# ---- In threads ----------------------------------------------------------------------------------


async def test_a_call_has_the_context_variables_of_its_task(library: ModuleType) -> None:
    variable.set("the task's")
    assert await library.to_thread.run_sync(variable.get) == "the task's"


async def test_what_a_call_sets_stays_in_the_call(library: ModuleType) -> None:
    variable.set("the task's")
    await library.to_thread.run_sync(change, "the call's")
    assert variable.get() == "the task's"
    assert await library.to_thread.run_sync(variable.get) == "the task's"


async def test_the_context_is_that_of_the_moment_of_the_call(library: ModuleType) -> None:
    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            variable.set("the limiter's")

        def release_on_behalf_of(self, borrower: object) -> None: ...

    variable.set("the task's")
    assert await library.to_thread.run_sync(variable.get, limiter=Limiter()) == "the task's"
    assert variable.get() == "the limiter's"


async def test_calls_at_once_have_contexts_of_their_own(library: ModuleType) -> None:
    values = {}

    async def call(value: str) -> None:
        variable.set(value)
        values[value] = await library.to_thread.run_sync(variable.get)

    async with trio.open_nursery() as nursery:
        for value in ("a", "b", "c"):
            nursery.start_soon(call, value)
    assert values == {"a": "a", "b": "b", "c": "c"}


# ---- Back in trio --------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [False, True], ids=["host_task", "system_task"])
async def test_an_async_function_sees_what_the_thread_set_and_keeps_what_it_sets(
    library: ModuleType, foreign: bool
) -> None:
    options = {"trio_token": trio.lowlevel.current_trio_token()} if foreign else {}

    def in_thread() -> tuple[str, str]:
        variable.set("the thread's")
        seen = library.from_thread.run(change_async, "the function's", **options)
        return seen, variable.get()

    variable.set("the task's")
    assert await library.to_thread.run_sync(in_thread) == ("the thread's", "the thread's")
    assert variable.get() == "the task's"


@pytest.mark.parametrize("foreign", [False, True], ids=["host_task", "system_task"])
async def test_a_sync_function_sees_what_the_thread_set_and_keeps_what_it_sets(
    library: ModuleType, foreign: bool
) -> None:
    options = {"trio_token": trio.lowlevel.current_trio_token()} if foreign else {}

    def in_thread() -> tuple[str, str]:
        variable.set("the thread's")
        seen = library.from_thread.run_sync(change, "the function's", **options)
        return seen, variable.get()

    variable.set("the task's")
    assert await library.to_thread.run_sync(in_thread) == ("the thread's", "the thread's")
    assert variable.get() == "the task's"


async def test_each_function_of_a_thread_starts_from_the_threads_context(
    library: ModuleType,
) -> None:
    def in_thread() -> list[str]:
        variable.set("1")
        seen = [library.from_thread.run(change_async, "other")]
        variable.set("2")
        seen.append(library.from_thread.run_sync(change, "other"))
        variable.set("3")
        seen.append(library.from_thread.run(change_async, "other"))
        return seen

    assert await library.to_thread.run_sync(in_thread) == ["1", "2", "3"]


async def test_the_host_task_has_its_own_context_again_after_a_function_that_raised(
    library: ModuleType,
) -> None:
    async def fail() -> None:
        variable.set("the function's")
        raise LookupError("it failed")

    def in_thread() -> None:
        variable.set("the thread's")
        with pytest.raises(LookupError, match="it failed"):
            library.from_thread.run(fail)

    context = trio.lowlevel.current_task().context
    variable.set("the task's")
    await library.to_thread.run_sync(in_thread)
    assert variable.get() == "the task's"
    assert trio.lowlevel.current_task().context is context


async def test_tasks_that_a_function_starts_inherit_the_threads_context(
    library: ModuleType,
) -> None:
    seen = []

    async def note() -> None:
        seen.append(variable.get())

    async def start() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)

    def in_thread() -> None:
        variable.set("the thread's")
        library.from_thread.run(start)

    variable.set("the task's")
    await library.to_thread.run_sync(in_thread)
    assert seen == ["the thread's"]


# ---- sniffio -------------------------------------------------------------------------------------


async def read_library() -> str:
    return sniffio.current_async_library()


async def test_a_call_is_in_no_async_library(library: ModuleType) -> None:
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await library.to_thread.run_sync(sniffio.current_async_library)


async def test_a_call_is_in_no_async_library_whatever_the_context_of_its_task_says(
    library: ModuleType,
) -> None:
    sniffio.current_async_library_cvar.set("trio")
    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await library.to_thread.run_sync(sniffio.current_async_library)
    assert sniffio.current_async_library() == "trio"


@pytest.mark.parametrize("foreign", [False, True], ids=["host_task", "system_task"])
async def test_functions_that_a_thread_runs_in_trio_are_in_trio(
    library: ModuleType, foreign: bool
) -> None:
    options = {"trio_token": trio.lowlevel.current_trio_token()} if foreign else {}

    def in_thread() -> list[str]:
        return [
            library.from_thread.run(read_library, **options),
            library.from_thread.run_sync(sniffio.current_async_library, **options),
        ]

    assert await library.to_thread.run_sync(in_thread) == ["trio", "trio"]
    assert sniffio.current_async_library() == "trio"


async def test_a_thread_is_in_no_async_library_after_it_was_in_trio(library: ModuleType) -> None:
    def in_thread() -> None:
        library.from_thread.run(trio.lowlevel.checkpoint)
        sniffio.current_async_library()

    with pytest.raises(sniffio.AsyncLibraryNotFoundError):
        await library.to_thread.run_sync(in_thread)
