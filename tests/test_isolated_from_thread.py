"""`dromon.from_thread` in isolated workers: functions that run in trio, and what comes back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import called_back
import pytest
import trio
from isolated_functions import CAN_ISOLATE, WHY_NOT, ask, ask_sync

import dromon

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(2, isolation="interpreter") as pool:
        called_back.seen.clear()
        called_back.seen["pool"] = pool
        yield pool
    called_back.seen.clear()


# ---- Results and exceptions ----------------------------------------------------------------------


async def test_the_result_of_an_async_function_travels_back(pool: dromon.Pool) -> None:
    assert await pool.run_sync(ask, called_back.add, 2, 3) == 5


async def test_the_result_of_a_sync_function_travels_back(pool: dromon.Pool) -> None:
    called_back.note("key", {"a": [1, 2]})
    assert await pool.run_sync(ask_sync, called_back.noted, "key") == {"a": [1, 2]}


async def test_functions_run_in_the_main_interpreter(pool: dromon.Pool) -> None:
    await pool.run_sync(ask_sync, called_back.note, "key", b"value")
    assert called_back.seen["key"] == b"value"


async def test_functions_can_travel_by_value(pool: dromon.Pool) -> None:
    def call(factor: int) -> object:
        async def multiply(number: int) -> int:
            return number * factor

        return dromon.from_thread.run(multiply, 7), dromon.from_thread.run_sync(lambda: factor)

    assert await pool.run_sync(call, 6) == (42, 6)


@pytest.mark.parametrize(
    ("asks", "fails"), [(ask, called_back.fail), (ask_sync, called_back.fail_at_once)]
)
async def test_exceptions_travel_back(pool: dromon.Pool, asks: Any, fails: Any) -> None:
    def call(asks: Any, fails: Any) -> object:
        try:
            return asks(fails, "lost")
        except LookupError as error:
            return type(error).__name__, error.args

    assert await pool.run_sync(call, asks, fails) == ("LookupError", ("lost",))
    with pytest.raises(LookupError, match=r"^lost$"):
        await pool.run_sync(asks, fails, "lost")


async def test_a_result_that_cannot_travel_is_an_error_of_the_asking_call(
    pool: dromon.Pool,
) -> None:
    called_back.note("generator", (number for number in range(3)))
    with pytest.raises(TypeError, match="generator"):
        await pool.run_sync(ask_sync, called_back.noted, "generator")
    assert await pool.run_sync(ask, called_back.add, 2, 3) == 5


async def test_an_argument_that_cannot_travel_is_an_error_of_the_asking_call(
    pool: dromon.Pool,
) -> None:
    def call() -> object:
        return dromon.from_thread.run_sync(id, (number for number in range(3)))

    with pytest.raises(TypeError, match="generator"):
        await pool.run_sync(call)
    assert await pool.run_sync(ask, called_back.add, 2, 3) == 5


async def test_a_call_can_ask_often(pool: dromon.Pool) -> None:
    def call(add: Any) -> int:
        total = 0
        for number in range(500):
            total = dromon.from_thread.run(add, total, number)
        return total

    assert await pool.run_sync(call, called_back.add) == sum(range(500))


async def test_a_memoryview_is_on_the_same_memory_on_the_way_and_back(pool: dromon.Pool) -> None:
    def call(note: Any) -> int:
        data = bytearray(b"abc")
        dromon.from_thread.run_sync(note, "view", dromon.writable(data))
        data[0] = ord("x")
        return len(data)

    assert await pool.run_sync(call, called_back.note) == 3
    assert called_back.seen["view"].tobytes() == b"xbc"
    called_back.seen.clear()


# ---- Where it runs -------------------------------------------------------------------------------


async def test_functions_run_in_the_task_that_waits(pool: dromon.Pool) -> None:
    task = called_back.current_task_id()
    assert await pool.run_sync(ask_sync, called_back.current_task_id) == task
    assert await pool.run_sync(ask, called_back.current_task_id_after_a_while) == task


async def test_functions_of_calls_that_may_be_abandoned_run_in_a_system_task(
    pool: dromon.Pool,
) -> None:
    parent = await pool.run_sync(ask, called_back.parent_of_the_task, abandon_on_cancel=True)
    assert parent == "<init>"


async def test_a_call_can_be_abandoned_while_it_waits_for_an_answer(pool: dromon.Pool) -> None:
    called_back.seen["waits"], called_back.seen["event"] = trio.Event(), trio.Event()

    def call(set_event: Any, wait: Any) -> None:
        dromon.from_thread.run_sync(set_event, "waits")
        dromon.from_thread.run(wait, "event")
        dromon.from_thread.run_sync(set_event, "waits")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: pool.run_sync(
                call, called_back.set_event, called_back.wait_for_event, abandon_on_cancel=True
            )
        )
        await called_back.seen["waits"].wait()
        nursery.cancel_scope.cancel()
    called_back.seen["waits"] = trio.Event()
    called_back.seen["event"].set()
    await called_back.seen["waits"].wait()


async def test_the_cancel_scopes_of_the_task_apply(pool: dromon.Pool) -> None:
    called_back.seen["waits"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, ask, called_back.wait_for_ever)
        await called_back.seen["waits"].wait()
        nursery.cancel_scope.cancel()
    assert called_back.seen["unwound"]


async def test_what_was_cancelled_is_an_interrupt_in_the_call(pool: dromon.Pool) -> None:
    called_back.seen["waits"] = trio.Event()

    def call(wait: Any) -> str:
        try:
            dromon.from_thread.run(wait)
        except dromon.Interrupted:
            return "interrupted"
        return "not"

    results = []

    async def run() -> None:
        results.append(await pool.run_sync(call, called_back.wait_for_ever))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await called_back.seen["waits"].wait()
        nursery.cancel_scope.cancel()
    assert results == ["interrupted"]


async def test_a_call_that_waits_is_not_interrupted_but_its_function_cancelled(
    pool: dromon.Pool,
) -> None:
    called_back.seen["waits"] = trio.Event()

    def call(wait: Any) -> str:
        try:
            answer = "none"
            answer = dromon.from_thread.run(wait)
            while True:
                pass
        except dromon.Interrupted:
            return answer

    results = []

    async def run() -> None:
        results.append(
            await pool.run_sync(call, called_back.wait_and_catch, interrupt_on_cancel=True)
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await called_back.seen["waits"].wait()
        nursery.cancel_scope.cancel()
    # The interrupt comes after the answer: in the very next bytecode.
    assert results in (["caught"], ["none"])


async def test_a_function_can_call_into_the_same_pool(pool: dromon.Pool) -> None:
    assert await pool.run_sync(ask, called_back.divide_in_the_pool, 17, 5) == (3, 2)


async def test_two_calls_can_wait_for_each_other_by_events_of_trio(pool: dromon.Pool) -> None:
    called_back.seen["event"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, ask, called_back.wait_for_event, "event")
        nursery.start_soon(pool.run_sync, ask_sync, called_back.set_event, "event")


# ---- check_cancelled -----------------------------------------------------------------------------


async def test_check_cancelled_raises_in_the_call_once_its_task_is_cancelled(
    pool: dromon.Pool,
) -> None:
    called_back.seen["waits"] = trio.Event()

    def call(set_event: Any) -> None:
        dromon.from_thread.check_cancelled()
        dromon.from_thread.run_sync(set_event, "waits")
        while True:
            dromon.from_thread.check_cancelled()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, call, called_back.set_event)
            await called_back.seen["waits"].wait()
            scope.cancel()
    assert scope.cancelled_caught


async def test_check_cancelled_ends_an_abandoned_call(pool: dromon.Pool) -> None:
    called_back.seen["waits"] = trio.Event()

    def call(set_event: Any) -> None:
        dromon.from_thread.run_sync(set_event, "waits")
        while True:
            dromon.from_thread.check_cancelled()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: pool.run_sync(call, called_back.set_event, abandon_on_cancel=True)
        )
        await called_back.seen["waits"].wait()
        nursery.cancel_scope.cancel()
    # Leaving the pool waits for it.


# ---- Refusals ------------------------------------------------------------------------------------


async def test_a_token_is_refused(pool: dromon.Pool) -> None:
    def call(add: Any) -> object:
        return dromon.from_thread.run(add, 2, 3, trio_token=object())  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="trio_token must be None in an isolated worker"):
        await pool.run_sync(call, called_back.add)


async def test_an_async_function_is_refused_by_run_sync(pool: dromon.Pool) -> None:
    with pytest.raises(TypeError, match="async"):
        await pool.run_sync(ask_sync, called_back.add, 2, 3)


async def test_a_sync_function_is_refused_by_run(pool: dromon.Pool) -> None:
    with pytest.raises(TypeError, match="afn must be an async function"):
        await pool.run_sync(ask, called_back.noted, "pool")


@pytest.mark.parametrize("function", ["run", "run_sync", "check_cancelled"])
def test_a_call_that_no_trio_task_waits_for_has_nobody_to_ask(function: str) -> None:
    def call(function: str) -> object:
        args = () if function == "check_cancelled" else (int,)
        return getattr(dromon.from_thread, function)(*args)

    with (
        dromon.Pool(1, isolation="interpreter") as pool,
        pytest.raises(RuntimeError, match="this thread runs no call of a trio task"),
    ):
        pool.submit(call, function).result()


async def test_other_threads_of_the_interpreter_have_nobody_to_ask(pool: dromon.Pool) -> None:
    def call() -> str:
        import threading

        found = []

        def look() -> None:
            try:
                dromon.from_thread.check_cancelled()
            except RuntimeError as error:
                found.append(str(error))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return found[0]

    assert await pool.run_sync(call) == "this thread runs no call of a trio task"


def test_after_its_run_is_over_a_call_is_refused() -> None:
    flag, result = bytearray(1), bytearray(100)

    def call(begun: memoryview, flag: memoryview, result: memoryview) -> None:
        begun[0] = 1
        while not flag[0]:
            pass
        try:
            dromon.from_thread.run_sync(int)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}".encode()
            result[: len(text)] = text

    begun = bytearray(1)

    async def main(pool: dromon.Pool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: pool.run_sync(
                    call,
                    *map(dromon.writable, (begun, flag, result)),
                    abandon_on_cancel=True,
                )
            )
            while not begun[0]:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    with dromon.Pool(1, isolation="interpreter") as pool:
        trio.run(main, pool)
        flag[0] = 1
        # Closing the pool would cancel the call, which is abandoned.
        while not result[0]:
            time.sleep(0.001)
    assert result.rstrip(b"\0") == b"RuntimeError: the trio run is over"
