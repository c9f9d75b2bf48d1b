"""Interrupts of calls in isolated workers, and the retirement of workers that do not answer."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from isolated_functions import CAN_ISOLATE, WHY_NOT, Pipe, give, spin, swallow
from outcome import Error, Outcome, acapture
from trio.testing import MockClock, wait_all_tasks_blocked

import dromon

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)

GRACE = 0.02


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        yield pool


def make_pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


begun = pytest.fixture(make_pipe, name="begun")
caught = pytest.fixture(make_pipe, name="caught")


async def cancel_once_begun(
    begun: Pipe, call: Callable[[], Awaitable[object]]
) -> Outcome[object] | None:
    """What a call ends with that is cancelled when it has begun."""
    outcome: Outcome[object] | None = None

    async def run() -> None:
        nonlocal outcome
        outcome = await acapture(call)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(run)
                await begun.wait()
                scope.cancel()
        nursery.cancel_scope.cancel()
    return outcome


def error_of(outcome: Outcome[object] | None) -> BaseException:
    assert isinstance(outcome, Error)
    return outcome.error


async def retire(pool: dromon.Pool, begun: Pipe, caught: Pipe) -> bytearray:
    """Have a worker of the pool replaced, whose call ends when the first byte is set."""
    end = bytearray(1)
    outcome = await cancel_once_begun(
        begun,
        lambda: pool.run_sync(
            swallow,
            begun.writer,
            caught.writer,
            dromon.writable(end),
            interrupt_on_cancel=True,
            grace_period=GRACE,
        ),
    )
    assert isinstance(error_of(outcome), trio.Cancelled)
    while not pool.statistics().retired:
        await trio.sleep(0.001)
    return end


# ---- Cancellation --------------------------------------------------------------------------------


async def test_cancellation_ends_a_call_that_would_never_end(
    pool: dromon.Pool, begun: Pipe
) -> None:
    outcome = await cancel_once_begun(
        begun, lambda: pool.run_sync(spin, begun.writer, interrupt_on_cancel=True)
    )
    error = error_of(outcome)
    assert isinstance(error, trio.Cancelled)
    assert isinstance(error.__cause__, dromon.Interrupted)
    assert pool.statistics().interrupted == 1


async def test_the_worker_lives_on_after_an_interrupt(pool: dromon.Pool, begun: Pipe) -> None:
    before = pool.statistics().workers[0].tid
    await cancel_once_begun(
        begun, lambda: pool.run_sync(spin, begun.writer, interrupt_on_cancel=True)
    )
    assert await pool.run_sync(divmod, 17, 5) == (3, 2)
    assert (pool.statistics().workers[0].tid, pool.statistics().retired) == (before, 0)


async def test_the_default_pool_can_be_interrupted(begun: Pipe) -> None:
    outcome = await cancel_once_begun(
        begun,
        lambda: dromon.to_interpreter.run_sync(spin, begun.writer, interrupt_on_cancel=True),
    )
    assert isinstance(error_of(outcome), trio.Cancelled)


async def test_a_call_that_takes_too_long_is_interrupted(pool: dromon.Pool, begun: Pipe) -> None:
    with pytest.raises(trio.TooSlowError, match=r"^spin did not end within 0.05 s$") as caught:
        await pool.run_sync(spin, begun.writer, timeout=0.05)
    # It is not there if the call had not begun.
    assert begun.is_given() == isinstance(caught.value.__cause__, dromon.Interrupted)


class TakesLong:
    """A number that takes long to pickle."""

    def __init__(self, number: int, clock: MockClock) -> None:
        self.number = number
        self.clock = clock

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        self.clock.jump(10)
        return int, (self.number,)


async def test_the_time_it_takes_to_send_the_arguments_counts(
    pool: dromon.Pool, begun: Pipe, mock_clock: MockClock
) -> None:
    with pytest.raises(trio.TooSlowError):
        await pool.run_sync(spin, TakesLong(begun.writer, mock_clock), timeout=5)


async def test_finally_blocks_run(pool: dromon.Pool, begun: Pipe, caught: Pipe) -> None:
    unwound = caught.writer

    def call(begun: int) -> None:
        try:
            spin(begun)
        finally:
            give(unwound)

    await cancel_once_begun(
        begun, lambda: pool.run_sync(call, begun.writer, interrupt_on_cancel=True)
    )
    assert caught.is_given()


async def test_the_result_of_a_call_that_catches_the_interrupt_is_kept(
    pool: dromon.Pool, begun: Pipe
) -> None:
    def call(begun: int) -> str:
        try:
            spin(begun)
        except dromon.Interrupted:
            return "caught"
        return "never"

    outcome = await cancel_once_begun(
        begun, lambda: pool.run_sync(call, begun.writer, interrupt_on_cancel=True)
    )
    assert outcome is not None
    assert outcome.unwrap() == "caught"
    assert pool.statistics().interrupted == 0


async def test_without_interrupt_on_cancel_a_call_is_waited_for(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    end = bytearray(1)
    ended: list[str] = []

    async def run() -> None:
        view = dromon.writable(end)
        ended.append(await pool.run_sync(swallow, begun.writer, caught.writer, view))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        end[0] = 1
    assert ended == ["ended"]
    assert not caught.is_given()


async def test_queued_calls_are_withdrawn_and_never_run(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.run_sync(spin, begun.writer, interrupt_on_cancel=True))
        await begun.wait()
        for _ in range(20):
            nursery.start_soon(pool.run_sync, give, caught.writer)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await pool.run_sync(int)
    assert not caught.is_given()
    assert pool.statistics().cancelled == 20


async def test_an_abandoned_call_goes_on(pool: dromon.Pool, begun: Pipe, caught: Pipe) -> None:
    end = bytearray(1)
    view = dromon.writable(end)
    outcome = await cancel_once_begun(
        begun,
        lambda: pool.run_sync(swallow, begun.writer, caught.writer, view, abandon_on_cancel=True),
    )
    assert isinstance(error_of(outcome), trio.Cancelled)
    assert pool.statistics().running == 1
    end[0] = 1
    await pool.run_sync(int)
    assert pool.statistics().abandoned == 1
    assert not caught.is_given()


async def test_a_second_interrupt_ends_a_call_that_has_swallowed_the_first(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    def call(begun: int, caught: int) -> None:
        try:
            spin(begun)
        except dromon.Interrupted:
            spin(caught)

    outcome = await cancel_once_begun(
        begun,
        lambda: pool.run_sync(
            call, begun.writer, caught.writer, interrupt_on_cancel=True, grace_period=1
        ),
    )
    assert isinstance(error_of(outcome).__cause__, dromon.Interrupted)
    assert caught.is_given()
    assert pool.statistics().retired == 0


# ---- Retirement ----------------------------------------------------------------------------------


async def test_a_worker_that_swallows_its_interrupts_is_replaced(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    before = pool.statistics().workers[0].tid
    end = await retire(pool, begun, caught)
    await caught.wait()
    assert await pool.run_sync(divmod, 17, 5) == (3, 2)
    after = pool.statistics()
    assert (after.retired, len(after.workers)) == (1, 1)
    assert after.workers[0].tid != before
    end[0] = 1


async def test_a_worker_that_is_stuck_in_c_is_replaced(pool: dromon.Pool) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"!")
    await pool.run_sync(os.read, reader, 1)  # from now on no bytecode leads there
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: pool.run_sync(
                    os.read, reader, 1, interrupt_on_cancel=True, grace_period=GRACE
                )
            )
            while not pool.statistics().running:
                await trio.sleep(0.001)
            scope.cancel()
    assert await pool.run_sync(divmod, 17, 5) == (3, 2)
    assert pool.statistics().retired == 1
    os.write(writer, b"!")
    while pool.statistics().abandoned == 0:
        await trio.sleep(0.001)
    os.close(reader)
    os.close(writer)


async def test_a_worker_that_keeps_its_gil_is_replaced(pool: dromon.Pool, begun: Pipe) -> None:
    def call(begun: int) -> int:
        give(begun)
        return sum(range(2 * 10**7))  # one C function

    outcome = await cancel_once_begun(
        begun,
        lambda: pool.run_sync(call, begun.writer, interrupt_on_cancel=True, grace_period=0.001),
    )
    assert isinstance(error_of(outcome), trio.Cancelled)
    assert await pool.run_sync(divmod, 17, 5) == (3, 2)


async def test_calls_that_were_queued_behind_a_stuck_one_run_on_the_new_worker(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    results: list[Any] = []

    async def run(number: int) -> None:
        results.append(await pool.run_sync(divmod, number, 5))

    async with trio.open_nursery() as nursery:
        retired: list[bytearray] = []

        async def stuck() -> None:
            retired.append(await retire(pool, begun, caught))

        nursery.start_soon(stuck)
        while not pool.statistics().running:
            await trio.sleep(0.001)
        for number in range(20):
            nursery.start_soon(run, number)
    assert sorted(results) == [divmod(number, 5) for number in range(20)]
    retired[0][0] = 1


async def test_the_retired_worker_ends_with_its_call(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    tid = pool.statistics().workers[0].tid
    end = await retire(pool, begun, caught)
    task = trio.Path(f"/proc/self/task/{tid}")
    assert await task.exists()
    end[0] = 1
    with trio.fail_after(30):
        while await task.exists():
            await trio.sleep(0.001)
    assert pool.statistics().abandoned == 1


async def test_a_call_with_a_timeout_can_have_its_worker_replaced(
    pool: dromon.Pool, begun: Pipe, caught: Pipe
) -> None:
    end = bytearray(1)
    view = dromon.writable(end)
    await pool.run_sync(int)  # an interpreter is there
    with pytest.raises(trio.TooSlowError):
        await pool.run_sync(
            swallow, begun.writer, caught.writer, view, timeout=0.2, grace_period=GRACE
        )
    assert await pool.run_sync(divmod, 17, 5) == (3, 2)
    assert pool.statistics().retired == 1
    end[0] = 1


async def test_workers_can_be_replaced_again_and_again(begun: Pipe, caught: Pipe) -> None:
    ends = []
    async with dromon.open_pool(2, isolation="interpreter") as pool:
        for number in range(5):
            end = bytearray(1)
            view = dromon.writable(end)
            await cancel_once_begun(
                begun,
                lambda view=view: pool.run_sync(  # type: ignore[misc]
                    swallow,
                    begun.writer,
                    caught.writer,
                    view,
                    interrupt_on_cancel=True,
                    grace_period=GRACE,
                ),
            )
            ends.append(end)
            while pool.statistics().retired <= number:
                await trio.sleep(0.001)
            assert await pool.map(int, "123") == [1, 2, 3]
        for end in ends:
            end[0] = 1


# ---- Never another call --------------------------------------------------------------------------


async def test_an_interrupt_never_hits_another_call() -> None:
    chance = random.Random(7)
    interrupted = 0

    async def disturb(pool: dromon.Pool, number: int) -> None:
        nonlocal interrupted
        deadline = trio.current_time() + chance.uniform(0, 0.003)
        with trio.CancelScope(deadline=deadline) as scope:
            loops = chance.randrange(40_000)
            result = await pool.run_sync(work, number, loops, interrupt_on_cancel=True)
            assert result == number
        interrupted += scope.cancelled_caught

    def work(number: int, loops: int) -> int:
        for _ in range(loops):
            number += 1
        return number - loops

    async def go_on(pool: dromon.Pool, number: int) -> None:
        for _ in range(20):
            assert await pool.run_sync(work, number, 500) == number

    async with dromon.open_pool(2, isolation="interpreter") as pool:
        for turn in range(40):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(disturb, pool, turn * 10 + number)
                nursery.start_soon(go_on, pool, turn)
        assert await pool.map(int, ["7"] * 100) == [7] * 100
    assert interrupted > 0
