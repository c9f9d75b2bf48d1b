"""KeyboardInterrupt: what is protected from it, what is not, and where it comes out."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import ModuleType

import pytest
import trio
from blocked_call import BlockedCall
from trio.lowlevel import currently_ki_protected


async def protected() -> bool:
    return currently_ki_protected()


async def test_a_limiter_is_protected(library: ModuleType) -> None:
    seen = []

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None:
            seen.append(currently_ki_protected())

        def release_on_behalf_of(self, borrower: object) -> None:
            seen.append(currently_ki_protected())

    await library.to_thread.run_sync(int, limiter=Limiter())
    assert seen == [True, True]


async def test_the_limiter_of_an_abandoned_call_is_protected_when_it_is_released(
    library: ModuleType,
) -> None:
    seen = []
    released = trio.Event()

    class Limiter:
        async def acquire_on_behalf_of(self, borrower: object) -> None: ...

        def release_on_behalf_of(self, borrower: object) -> None:
            seen.append(currently_ki_protected())
            released.set()

    call = BlockedCall()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await library.to_thread.run_sync(call, None, abandon_on_cancel=True, limiter=Limiter())

        nursery.start_soon(run)
        await call.begun.wait()
        nursery.cancel_scope.cancel()
    call.release()
    await released.wait()
    assert seen == [True]


@pytest.mark.parametrize("foreign", [False, True], ids=["host_task", "system_task"])
async def test_functions_that_a_thread_runs_in_trio_are_not_protected(
    library: ModuleType, foreign: bool
) -> None:
    options = {"trio_token": trio.lowlevel.current_trio_token()} if foreign else {}

    def in_thread() -> list[bool]:
        return [
            library.from_thread.run(protected, **options),
            library.from_thread.run_sync(currently_ki_protected, **options),
        ]

    assert await library.to_thread.run_sync(in_thread) == [False, False]


async def test_functions_that_an_abandoned_call_runs_in_trio_are_not_protected(
    library: ModuleType,
) -> None:
    def in_thread() -> list[bool]:
        return [
            library.from_thread.run(protected),
            library.from_thread.run_sync(currently_ki_protected),
        ]

    seen = await library.to_thread.run_sync(in_thread, abandon_on_cancel=True)
    assert seen == [False, False]


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("it was not interrupted")


async def interrupt_async() -> None:
    interrupt()


@pytest.mark.parametrize("way", ["run", "run_sync"])
def test_ctrl_c_in_a_function_that_a_thread_runs_in_trio_goes_through_the_thread(
    library: ModuleType, way: str
) -> None:
    caught = []

    def in_thread() -> None:
        try:
            if way == "run":
                library.from_thread.run(interrupt_async)
            else:
                library.from_thread.run_sync(interrupt)
        except KeyboardInterrupt as error:
            caught.append(error)
            raise

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt) as raised:
            await library.to_thread.run_sync(in_thread)
        assert caught == [raised.value]

    trio.run(main)


def test_ctrl_c_while_the_main_task_waits_for_a_call_is_seen_by_check_cancelled(
    library: ModuleType,
) -> None:
    """The main task cannot leave its call, so the call is asked to end."""
    began = threading.Event()

    def in_thread() -> None:
        began.set()
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            library.from_thread.check_cancelled()
            time.sleep(0.001)

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await library.to_thread.run_sync(in_thread)

    trio.run(main)
    assert began.is_set()


def test_ctrl_c_abandons_a_call_of_the_main_task_that_may_be_abandoned(library: ModuleType) -> None:
    async def main() -> BlockedCall:
        call = BlockedCall()

        def in_thread() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            call(None)

        with pytest.raises(KeyboardInterrupt):
            await library.to_thread.run_sync(in_thread, abandon_on_cancel=True)
        return call

    trio.run(main).release()
