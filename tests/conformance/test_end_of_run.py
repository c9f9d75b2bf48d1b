"""Threads that outlast the run that they came from."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
import trio
from blocked_call import BlockedCall
from child import check_child


async def get_token() -> trio.lowlevel.TrioToken:
    return trio.lowlevel.current_trio_token()


@pytest.mark.parametrize("way", ["run", "run_sync"])
def test_a_run_that_has_finished_can_not_be_entered_with_its_token(
    library: ModuleType, way: str
) -> None:
    token = trio.run(get_token)
    function = get_token if way == "run" else int
    with pytest.raises(trio.RunFinishedError):
        getattr(library.from_thread, way)(function, trio_token=token)


@pytest.mark.parametrize("way", ["run", "run_sync"])
def test_a_call_that_was_abandoned_can_not_enter_its_run_when_that_has_finished(
    library: ModuleType, way: str
) -> None:
    finished, ended = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def in_thread(begun: Callable[[], object]) -> None:
        library.from_thread.run_sync(begun)
        finished.wait(10)
        try:
            getattr(library.from_thread, way)(get_token if way == "run" else int)
        except BaseException as error:
            raised.append(error)
        ended.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            begun = trio.Event()
            nursery.start_soon(
                lambda: library.to_thread.run_sync(in_thread, begun.set, abandon_on_cancel=True)
            )
            await begun.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    finished.set()
    assert ended.wait(10)
    assert [type(error) for error in raised] == [trio.RunFinishedError]


def test_a_function_in_a_system_task_is_cancelled_when_the_main_task_ends(
    library: ModuleType,
) -> None:
    ended = threading.Event()
    raised: list[BaseException] = []

    async def sleep(begun: trio.Event) -> None:
        begun.set()
        await trio.sleep_forever()

    def in_thread(begun: trio.Event) -> None:
        try:
            library.from_thread.run(sleep, begun)
        except BaseException as error:
            raised.append(error)
        ended.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            begun = trio.Event()
            nursery.start_soon(
                lambda: library.to_thread.run_sync(in_thread, begun, abandon_on_cancel=True)
            )
            await begun.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert ended.wait(10)
    assert [type(error) for error in raised] == [trio.Cancelled]


def test_an_abandoned_call_that_outlasts_its_run_harms_no_later_one(library: ModuleType) -> None:
    async def main() -> BlockedCall:
        call = BlockedCall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: library.to_thread.run_sync(call, None, abandon_on_cancel=True)
            )
            await call.begun.wait()
            nursery.cancel_scope.cancel()
        return call

    async def call_again() -> list[int]:
        results = [await library.to_thread.run_sync(int, "7")]
        first.release()
        results.append(await library.to_thread.run_sync(int, "8"))
        return results

    first = trio.run(main)
    assert trio.run(call_again) == [7, 8]


def in_last_generator(work: Callable[[], Any]) -> Any:
    """Run an async function so late in a trio run that there are no system tasks any more."""
    results = []

    async def generate() -> AsyncIterator[None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                results.append(await work())

    async def main() -> None:
        kept.append(generator := generate())
        await generator.asend(None)

    kept: list[Any] = []
    trio.run(main)
    (result,) = results
    return result


def test_at_the_very_end_of_a_run_calls_still_work(library: ModuleType) -> None:
    assert in_last_generator(lambda: library.to_thread.run_sync(int, "7")) == 7


def test_at_the_very_end_of_a_run_an_exception_comes_out_as_it_is(library: ModuleType) -> None:
    async def work() -> str:
        with pytest.raises(ValueError, match="invalid literal"):
            await library.to_thread.run_sync(int, "seven", limiter=trio.CapacityLimiter(1))
        return "caught"

    assert in_last_generator(work) == "caught"


def test_at_the_very_end_of_a_run_a_call_can_still_be_abandoned(library: ModuleType) -> None:
    released = threading.Event()

    async def work() -> bool:
        with trio.CancelScope() as scope:

            def in_thread() -> None:
                library.from_thread.run_sync(scope.cancel)
                released.wait(10)

            await library.to_thread.run_sync(in_thread, abandon_on_cancel=True)
        return scope.cancelled_caught

    assert in_last_generator(work)
    released.set()


def test_at_the_very_end_of_a_run_threads_still_enter_the_task_that_made_the_call(
    library: ModuleType,
) -> None:

    def in_thread() -> list[Any]:
        return [
            library.from_thread.run(get_token),
            library.from_thread.run_sync(trio.lowlevel.current_trio_token),
        ]

    first, second = in_last_generator(lambda: library.to_thread.run_sync(in_thread))
    assert first is second


def test_at_the_very_end_of_a_run_there_are_no_system_tasks_for_threads(
    library: ModuleType,
) -> None:
    def in_thread(token: trio.lowlevel.TrioToken) -> int:
        with pytest.raises(trio.RunFinishedError):
            library.from_thread.run(get_token, trio_token=token)
        number: int = library.from_thread.run_sync(int, "7", trio_token=token)
        return number

    async def work() -> Any:
        return await library.to_thread.run_sync(in_thread, trio.lowlevel.current_trio_token())

    assert in_last_generator(work) == 7


def test_an_abandoned_call_does_not_keep_the_process(library: ModuleType) -> None:
    check_child(
        f"""
        import threading, trio, {library.__name__}

        async def main():
            begun = trio.Event()
            token = trio.lowlevel.current_trio_token()

            def run():
                token.run_sync_soon(begun.set)
                threading.Event().wait()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: {library.__name__}.to_thread.run_sync(
                    run, abandon_on_cancel=True))
                await begun.wait()
                nursery.cancel_scope.cancel()
            print("abandoned")

        trio.run(main)
        """,
        "abandoned",
    )
