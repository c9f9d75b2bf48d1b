"""What comes out of a call: results, and exceptions as they were raised."""

from __future__ import annotations

import threading
import traceback
from types import ModuleType

import pytest
import trio

CALLS = 500


async def test_arguments_go_in_and_the_very_result_comes_out(library: ModuleType) -> None:
    thing = object()
    assert await library.to_thread.run_sync(lambda *args: args, 1, thing) == (1, thing)
    assert await library.to_thread.run_sync(lambda: thing) is thing


async def test_a_call_runs_in_another_thread_that_does_not_hold_up_the_exit(
    library: ModuleType,
) -> None:
    thread = await library.to_thread.run_sync(threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_an_exception_comes_out_with_its_traceback_cause_and_notes(
    library: ModuleType,
) -> None:
    error = LookupError("the message")
    error.add_note("a note")

    def inner() -> None:
        raise error from OSError("the cause")

    def outer() -> None:
        inner()

    with pytest.raises(LookupError, match="the message") as raised:
        await library.to_thread.run_sync(outer)
    assert raised.value is error
    assert isinstance(error.__cause__, OSError)
    assert error.__notes__ == ["a note"]
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["outer", "inner"]
    assert names[0] == test_an_exception_comes_out_with_its_traceback_cause_and_notes.__name__


async def test_the_context_of_an_exception_comes_out(library: ModuleType) -> None:
    def fail() -> None:
        try:
            raise OSError("the first")
        except OSError:
            raise LookupError("the second")  # noqa: B904

    with pytest.raises(LookupError, match="the second") as raised:
        await library.to_thread.run_sync(fail)
    assert isinstance(raised.value.__context__, OSError)


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), trio.TooSlowError(), Exception()],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_call_raises_comes_out_of_it(
    library: ModuleType, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await library.to_thread.run_sync(fail)
    assert raised.value is error
    assert await library.to_thread.run_sync(int, "7") == 7


async def test_stop_iteration_is_the_runtime_error_that_it_is_in_any_coroutine(
    library: ModuleType,
) -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as raised:
        await library.to_thread.run_sync(next, iter(()))
    assert isinstance(raised.value.__cause__, StopIteration)


async def test_an_exception_group_comes_out_as_a_whole(library: ModuleType) -> None:
    group = BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt()])

    def fail() -> None:
        raise group

    with pytest.raises(BaseExceptionGroup) as raised:
        await library.to_thread.run_sync(fail)
    assert raised.value is group


async def test_many_calls_at_once_all_come_out_with_their_own_results(
    library: ModuleType,
) -> None:
    results = {}

    async def call(number: int) -> None:
        results[number] = await library.to_thread.run_sync(str, number)

    async with trio.open_nursery() as nursery:
        for number in range(CALLS):
            nursery.start_soon(call, number)
    assert results == {number: str(number) for number in range(CALLS)}


async def test_calls_run_at_the_same_time(library: ModuleType) -> None:
    barrier = threading.Barrier(5)
    threads = set()

    async def call() -> None:
        def meet() -> None:
            barrier.wait(10)
            threads.add(threading.get_ident())

        await library.to_thread.run_sync(meet)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call)
    assert len(threads) == 5


@pytest.mark.parametrize("abandon_on_cancel", [False, True])
async def test_one_failing_call_cancels_its_siblings_which_are_waited_for(
    library: ModuleType, abandon_on_cancel: bool
) -> None:
    began, release = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        release.wait(10)

    def fail() -> None:
        began.wait(10)
        raise LookupError("one failed")

    async def let_go() -> None:
        try:
            await trio.sleep_forever()
        finally:
            release.set()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            nursery.start_soon(
                lambda: library.to_thread.run_sync(block, abandon_on_cancel=abandon_on_cancel)
            )
            nursery.start_soon(library.to_thread.run_sync, fail)

    with pytest.raises(ExceptionGroup) as raised:
        await run()
    assert raised.group_contains(LookupError, match="one failed", depth=1)
    assert len(raised.value.exceptions) == 1
