"""Functions of the wrong sort: refused, with an error that says what was wrong."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import trio


async def asynchronous() -> None: ...


async def generate() -> AsyncIterator[int]:
    yield 1


def synchronous() -> str:
    return "done"


def return_coroutine() -> Any:
    return asynchronous()


def generate_sync() -> Iterator[int]:
    yield 1


class Future:
    """What a library of another kind returns."""


class AsyncioFuture:
    _asyncio_future_blocking = False


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


def in_host_task(library: ModuleType, way: str, function: Callable[..., Any]) -> Any:
    """Run a function in trio, from a thread."""
    return library.to_thread.run_sync(getattr(library.from_thread, way), function)


def in_system_task(library: ModuleType, way: str, function: Callable[..., Any]) -> Any:
    token = trio.lowlevel.current_trio_token()
    enter = functools.partial(getattr(library.from_thread, way), function, trio_token=token)
    return library.to_thread.run_sync(enter)


both_tasks = pytest.mark.parametrize("enter", [in_host_task, in_system_task])
Enter = Callable[[ModuleType, str, Any], Any]


# ---- to_thread.run_sync --------------------------------------------------------------------------


@pytest.mark.parametrize("function", [asynchronous, return_coroutine])
async def test_a_call_that_returns_a_coroutine_is_refused_by_name(
    library: ModuleType, function: Callable[[], Any]
) -> None:
    message = f"expected a sync function, but '{function.__name__}' appears to be asynchronous"
    with pytest.raises(TypeError, match=message):
        await library.to_thread.run_sync(function)  # left alone, the coroutine would be a warning


async def test_a_refused_function_without_a_name_is_shown(library: ModuleType) -> None:
    partial = functools.partial(asynchronous)
    message = r"expected a sync function, but functools.partial\(.*appears to be asynchronous"
    with pytest.raises(TypeError, match=message):
        await library.to_thread.run_sync(partial)


async def test_a_coroutine_that_refuses_to_be_closed_raises_what_it_raises(
    library: ModuleType,
) -> None:
    async def stubborn() -> None:
        try:
            await trio.lowlevel.checkpoint()
        except GeneratorExit:
            raise LookupError("still open") from None

    def start() -> Any:
        coroutine = stubborn()
        coroutine.send(None)
        return coroutine

    with pytest.raises(LookupError, match="still open"):
        await library.to_thread.run_sync(start)


@pytest.mark.parametrize("function", [generate, Awaitable, Future, generate_sync])
async def test_what_is_no_coroutine_is_a_result_like_any_other(
    library: ModuleType, function: Callable[[], Any]
) -> None:
    assert type(await library.to_thread.run_sync(function)) is type(function())


async def test_what_is_not_callable_is_a_type_error(library: ModuleType) -> None:
    with pytest.raises(TypeError, match="callable"):
        await library.to_thread.run_sync(3)


# ---- from_thread.run -----------------------------------------------------------------------------

# The errors are worded differently; these parts, and what was got, are in both.


@both_tasks
async def test_a_sync_function_is_refused_by_name(library: ModuleType, enter: Enter) -> None:
    with pytest.raises(TypeError, match=r"async function, but .*synchronous"):
        await enter(library, "run", synchronous)


@both_tasks
async def test_an_async_generator_is_refused(library: ModuleType, enter: Enter) -> None:
    with pytest.raises(TypeError, match=r"async function,? but .*<async_generator object generate"):
        await enter(library, "run", generate)


@both_tasks
async def test_a_coroutine_in_place_of_a_function_is_refused_and_closed(
    library: ModuleType, enter: Enter
) -> None:
    coroutine = asynchronous()  # left alone it would be a warning
    with pytest.raises(TypeError, match=r"async function.* a coroutine object.*asynchronous"):
        await enter(library, "run", coroutine)


@both_tasks
@pytest.mark.parametrize("function", [generate_sync, Future, AsyncioFuture])
async def test_a_function_of_another_async_library_is_refused(
    library: ModuleType, enter: Enter, function: Callable[[], Any]
) -> None:
    with pytest.raises(TypeError, match=f"{type(function()).__name__} object"):
        await enter(library, "run", function)


@both_tasks
@pytest.mark.parametrize("make", [generate_sync, Future, AsyncioFuture])
async def test_a_future_of_another_async_library_is_refused(
    library: ModuleType, enter: Enter, make: Callable[[], Any]
) -> None:
    with pytest.raises(TypeError):
        await enter(library, "run", make())


@both_tasks
async def test_a_function_that_returns_an_awaitable_but_no_coroutine_is_refused(
    library: ModuleType, enter: Enter
) -> None:
    with pytest.raises(TypeError, match=r"an async function, but .*Awaitable"):
        await enter(library, "run", Awaitable)


@both_tasks
async def test_a_sync_function_that_returns_a_coroutine_is_an_async_function(
    library: ModuleType, enter: Enter
) -> None:
    assert await enter(library, "run", return_coroutine) is None


@both_tasks
async def test_an_async_function_of_asyncio_fails_as_trio_has_it(
    library: ModuleType, enter: Enter
) -> None:
    async def sleep() -> None:
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="unrecognized yield message"):
        await enter(library, "run", sleep)


# ---- from_thread.run_sync ------------------------------------------------------------------------


@both_tasks
@pytest.mark.parametrize("function", [asynchronous, return_coroutine])
async def test_an_async_function_is_refused_by_name(
    library: ModuleType, enter: Enter, function: Callable[[], Any]
) -> None:
    message = f"expected a sync[a-z]* function, but '{function.__name__}' appears to be async"
    with pytest.raises(TypeError, match=message):
        await enter(library, "run_sync", function)


@both_tasks
async def test_an_async_generator_is_a_result_of_a_sync_function(
    library: ModuleType, enter: Enter
) -> None:
    assert type(await enter(library, "run_sync", generate)) is type(generate())


@both_tasks
async def test_wrong_arguments_are_the_functions_own_type_error(
    library: ModuleType, enter: Enter
) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await enter(library, "run_sync", lambda argument: argument)
