"""Functions that a thread runs in trio: in which task, under which cancel scopes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing

NOT_CREATED = "this thread wasn't created by"
BLOCKING = "this is a blocking function; call it from a thread"


async def current_task() -> trio.lowlevel.Task:
    await trio.lowlevel.checkpoint()
    return trio.lowlevel.current_task()


def in_foreign_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a thread that no async library knows; in trio, wait with `trio`."""
    result = None

    def run() -> None:
        nonlocal result
        try:
            result = function()
        except BaseException as error:
            result = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result, BaseException):
        raise result
    return result


# ---- Values and exceptions -----------------------------------------------------------------------


async def test_arguments_go_in_and_results_come_out(library: ModuleType) -> None:
    async def add(first: int, second: int) -> int:
        await trio.lowlevel.checkpoint()
        return first + second

    def in_thread() -> tuple[int, tuple[int, int]]:
        return library.from_thread.run(add, 1, 2), library.from_thread.run_sync(divmod, 17, 5)

    assert await library.to_thread.run_sync(in_thread) == (3, (3, 2))


@pytest.mark.parametrize("way", ["run", "run_sync"])
async def test_nothing_keeps_the_arguments_of_a_function_that_has_ended(
    library: ModuleType, way: str
) -> None:
    class Argument: ...

    async def asynchronous(argument: Argument) -> None: ...

    def synchronous(argument: Argument) -> None: ...

    token = trio.lowlevel.current_trio_token()

    def in_thread() -> object:
        argument = Argument()
        watch = weakref.ref(argument)
        if way == "run":
            library.from_thread.run(asynchronous, argument)
        else:
            library.from_thread.run_sync(synchronous, argument)
        del argument
        # By a system task: until the task that made the call waits for it again.
        library.from_thread.run(trio.testing.wait_all_tasks_blocked, trio_token=token)
        return watch()

    assert await library.to_thread.run_sync(in_thread) is None


@pytest.mark.parametrize("way", ["run", "run_sync"])
async def test_an_exception_comes_out_in_the_thread_and_can_be_caught_there(
    library: ModuleType, way: str
) -> None:
    error = LookupError("in trio")

    def fail() -> None:
        raise error

    async def fail_async() -> None:
        await trio.lowlevel.checkpoint()
        fail()

    def in_thread() -> str:
        function = fail_async if way == "run" else fail
        with pytest.raises(LookupError, match="in trio") as raised:
            getattr(library.from_thread, way)(function)
        assert raised.value is error
        assert raised.traceback[-1].name == "fail"
        return "caught"

    assert await library.to_thread.run_sync(in_thread) == "caught"


async def test_an_exception_that_the_thread_lets_go_comes_out_of_the_call(
    library: ModuleType,
) -> None:
    async def fail() -> None:
        raise LookupError("all the way")

    with pytest.raises(LookupError, match="all the way"):
        await library.to_thread.run_sync(library.from_thread.run, fail)


async def test_stop_iteration_comes_out_of_a_sync_function_as_it_is(library: ModuleType) -> None:
    def in_thread() -> None:
        with pytest.raises(StopIteration):
            library.from_thread.run_sync(next, iter(()))

    await library.to_thread.run_sync(in_thread)


async def test_a_function_can_talk_to_other_tasks(library: ModuleType) -> None:
    """The example of trio's documentation: a thread between two channels."""
    to_send, to_receive = trio.open_memory_channel[int](0)
    from_send, from_receive = trio.open_memory_channel[int](0)

    def in_thread() -> None:
        while True:
            try:
                number = library.from_thread.run(to_receive.receive)
            except trio.EndOfChannel:
                library.from_thread.run(from_send.aclose)
                return
            library.from_thread.run(from_send.send, number + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(library.to_thread.run_sync, in_thread)
        for number in (0, 10, 20):
            await to_send.send(number)
            assert await from_receive.receive() == number + 1
        await to_send.aclose()
        with pytest.raises(trio.EndOfChannel):
            await from_receive.receive()


async def test_a_thread_may_go_back_and_forth_many_times(library: ModuleType) -> None:
    def in_thread() -> int:
        count = 0
        for _ in range(100):
            count = library.from_thread.run_sync(count.__add__, 1)
            library.from_thread.run(trio.lowlevel.checkpoint)
        return count

    assert await library.to_thread.run_sync(in_thread) == 100


# ---- Which task ----------------------------------------------------------------------------------


async def test_functions_run_in_the_task_that_made_the_call(library: ModuleType) -> None:
    def in_thread() -> list[trio.lowlevel.Task]:
        return [
            library.from_thread.run(current_task),
            library.from_thread.run_sync(trio.lowlevel.current_task),
        ]

    assert await library.to_thread.run_sync(in_thread) == [trio.lowlevel.current_task()] * 2


@pytest.mark.parametrize("abandon_on_cancel", [False, True])
async def test_with_a_token_functions_run_in_another_task(
    library: ModuleType, abandon_on_cancel: bool
) -> None:
    token = trio.lowlevel.current_trio_token()

    def in_thread() -> list[trio.lowlevel.Task]:
        return [
            library.from_thread.run(current_task, trio_token=token),
            library.from_thread.run_sync(trio.lowlevel.current_task, trio_token=token),
        ]

    tasks = await library.to_thread.run_sync(in_thread, abandon_on_cancel=abandon_on_cancel)
    assert trio.lowlevel.current_task() not in tasks


async def test_functions_of_a_call_that_may_be_abandoned_run_in_another_task(
    library: ModuleType,
) -> None:
    def in_thread() -> list[trio.lowlevel.Task]:
        return [
            library.from_thread.run(current_task),
            library.from_thread.run_sync(trio.lowlevel.current_task),
        ]

    tasks = await library.to_thread.run_sync(in_thread, abandon_on_cancel=True)
    assert trio.lowlevel.current_task() not in tasks


async def test_a_system_task_that_a_thread_starts_bears_the_functions_name(
    library: ModuleType,
) -> None:
    token = trio.lowlevel.current_trio_token()

    def in_thread() -> str:
        task: trio.lowlevel.Task = library.from_thread.run(current_task, trio_token=token)
        return task.name

    name = await library.to_thread.run_sync(in_thread)
    assert name == f"{current_task.__module__}.current_task"


async def test_any_thread_may_enter_with_a_token(library: ModuleType) -> None:
    token = trio.lowlevel.current_trio_token()

    def enter() -> tuple[bool, int]:
        task = library.from_thread.run(current_task, trio_token=token)
        return isinstance(task, trio.lowlevel.Task), library.from_thread.run_sync(
            int, "7", trio_token=token
        )

    assert await trio.to_thread.run_sync(in_foreign_thread, enter) == (True, 7)


# ---- Cancellation --------------------------------------------------------------------------------


async def test_the_cancel_scopes_of_the_task_apply_to_an_async_function(
    library: ModuleType,
) -> None:
    raised = []

    async def sleep() -> None:
        scope.cancel()
        await trio.sleep_forever()

    def in_thread() -> None:
        try:
            library.from_thread.run(sleep)
        except BaseException as error:
            raised.append(error)
            raise

    with trio.CancelScope() as scope:
        await library.to_thread.run_sync(in_thread)
    assert scope.cancelled_caught
    assert [type(error) for error in raised] == [trio.Cancelled]


async def test_an_async_function_that_starts_after_the_cancellation_is_cancelled(
    library: ModuleType,
) -> None:
    reached = []

    async def work() -> None:
        reached.append("started")
        await trio.lowlevel.checkpoint()
        reached.append("went on")

    def in_thread() -> str:
        library.from_thread.run_sync(scope.cancel)
        with pytest.raises(trio.Cancelled):
            library.from_thread.run(work)
        return "kept"

    with trio.CancelScope() as scope:
        assert await library.to_thread.run_sync(in_thread) == "kept"
    assert reached == ["started"]
    assert not scope.cancelled_caught


async def test_a_sync_function_runs_after_the_cancellation(library: ModuleType) -> None:
    def in_thread() -> int:
        library.from_thread.run_sync(scope.cancel)
        number: int = library.from_thread.run_sync(int, "7")
        return number

    with trio.CancelScope() as scope:
        assert await library.to_thread.run_sync(in_thread) == 7


async def test_a_scope_within_the_function_is_left_in_the_function(library: ModuleType) -> None:
    async def give_up() -> bool:
        with trio.CancelScope() as inner:
            inner.cancel()
            await trio.sleep_forever()
        return inner.cancelled_caught

    with trio.CancelScope() as scope:
        assert await library.to_thread.run_sync(library.from_thread.run, give_up)
    assert not scope.cancelled_caught


async def test_a_shielded_function_is_not_cancelled(library: ModuleType) -> None:
    async def work() -> str:
        scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            return "done"

    with trio.CancelScope() as scope:
        assert await library.to_thread.run_sync(library.from_thread.run, work) == "done"


@pytest.mark.parametrize("abandon_on_cancel", [False, True])
async def test_the_cancel_scopes_of_the_task_do_not_apply_with_a_token(
    library: ModuleType, abandon_on_cancel: bool
) -> None:
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    async def work() -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    def in_thread() -> None:
        library.from_thread.run(work, trio_token=token)

    with trio.CancelScope() as scope:
        await library.to_thread.run_sync(in_thread, abandon_on_cancel=abandon_on_cancel)
    assert scope.cancelled_caught == abandon_on_cancel
    await done.wait()


async def test_a_call_that_was_abandoned_can_still_run_functions_in_trio(
    library: ModuleType,
) -> None:
    begun, abandoned, done = trio.Event(), threading.Event(), trio.Event()

    async def finish() -> None:
        await trio.lowlevel.checkpoint()
        done.set()

    def in_thread() -> None:
        library.from_thread.run_sync(begun.set)
        abandoned.wait(10)
        library.from_thread.run_sync(int)
        library.from_thread.run(finish)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: library.to_thread.run_sync(in_thread, abandon_on_cancel=True))
        await begun.wait()
        nursery.cancel_scope.cancel()
    abandoned.set()
    await done.wait()


# ---- Where it is refused -------------------------------------------------------------------------


def calls_of(library: ModuleType, **options: Any) -> list[Callable[[], Any]]:
    return [
        lambda: library.from_thread.run(current_task, **options),
        lambda: library.from_thread.run_sync(int, **options),
    ]


@pytest.mark.parametrize("number", [0, 1], ids=["run", "run_sync"])
async def test_the_trio_thread_may_not_wait_for_itself(library: ModuleType, number: int) -> None:
    call = calls_of(library, trio_token=trio.lowlevel.current_trio_token())[number]
    with pytest.raises(RuntimeError, match=BLOCKING):
        call()
    with pytest.raises(RuntimeError, match=NOT_CREATED):
        calls_of(library)[number]()


@pytest.mark.parametrize("number", [0, 1], ids=["run", "run_sync"])
async def test_a_function_that_a_thread_runs_in_trio_may_not_wait_for_itself(
    library: ModuleType, number: int
) -> None:
    call = calls_of(library, trio_token=trio.lowlevel.current_trio_token())[number]

    def in_thread() -> None:
        with pytest.raises(RuntimeError, match=BLOCKING):
            library.from_thread.run_sync(call)

    await library.to_thread.run_sync(in_thread)


@pytest.mark.parametrize("number", [0, 1], ids=["run", "run_sync"])
async def test_a_foreign_thread_needs_a_token(library: ModuleType, number: int) -> None:
    with pytest.raises(RuntimeError, match=NOT_CREATED):
        in_foreign_thread(calls_of(library)[number])


@pytest.mark.parametrize("number", [0, 1], ids=["run", "run_sync"])
async def test_a_thread_that_a_call_starts_is_a_foreign_one(
    library: ModuleType, number: int
) -> None:
    with pytest.raises(RuntimeError, match=NOT_CREATED):
        await library.to_thread.run_sync(in_foreign_thread, calls_of(library)[number])


@pytest.mark.parametrize("number", [0, 1], ids=["run", "run_sync"])
@pytest.mark.parametrize("token", [3, "token", object()], ids=["int", "str", "object"])
async def test_what_is_no_token_is_refused(library: ModuleType, number: int, token: object) -> None:
    message = "Passed kwarg trio_token is not of type TrioToken"
    with pytest.raises(RuntimeError, match=message):
        await library.to_thread.run_sync(calls_of(library, trio_token=token)[number])
