"""What type checkers are to know of calls. Checked by mypy and pyright, and never run.

Each `type: ignore` is an error that both must find: one that is not needed is an error itself.
"""

from __future__ import annotations

from functools import partial
from typing import assert_type

import trio

import dromon


def no_arguments() -> bytes:
    raise NotImplementedError


def two_arguments(first: int, second: str) -> float:
    raise NotImplementedError


def default_argument(first: int, second: str = "") -> float:
    raise NotImplementedError


def any_number(*numbers: int) -> list[int]:
    raise NotImplementedError


def keyword(*, number: int) -> complex:
    raise NotImplementedError


async def asynchronous() -> int:
    raise NotImplementedError


class Callable:
    def __call__(self, number: int) -> bytearray:
        raise NotImplementedError

    def method(self, text: str) -> memoryview:
        raise NotImplementedError


async def default_pool() -> None:
    run_sync = dromon.to_thread.run_sync
    assert_type(await run_sync(no_arguments), bytes)
    assert_type(await run_sync(two_arguments, 1, "2"), float)
    assert_type(await run_sync(default_argument, 1), float)
    assert_type(await run_sync(any_number, 1, 2, 3), list[int])
    assert_type(await run_sync(partial(keyword, number=1)), complex)
    assert_type(await run_sync(lambda: "text"), str)
    assert_type(await run_sync(Callable(), 1), bytearray)
    assert_type(await run_sync(Callable().method, "text"), memoryview)

    await run_sync(no_arguments, 1)  # type: ignore[arg-type]
    await run_sync(two_arguments, 1)  # type: ignore[arg-type]
    await run_sync(two_arguments, "1", "2")  # type: ignore[arg-type]
    await run_sync(two_arguments, 1, "2", 3)  # type: ignore[arg-type]
    await run_sync(any_number, 1, "2")  # type: ignore[arg-type]
    await run_sync(keyword, number=1)  # type: ignore[call-arg, arg-type]
    await run_sync(Callable(), "1")  # type: ignore[arg-type]
    await run_sync(3)  # type: ignore[arg-type]


async def options_of_a_call() -> None:
    run_sync = dromon.to_thread.run_sync
    limiter = trio.CapacityLimiter(1)
    assert_type(
        await run_sync(
            two_arguments, 1, "2", thread_name="name", abandon_on_cancel=True, limiter=limiter
        ),
        float,
    )
    assert_type(await run_sync(no_arguments, thread_name=None, limiter=None), bytes)

    await run_sync(no_arguments, thread_name=1)  # type: ignore[arg-type]
    await run_sync(no_arguments, abandon_on_cancel="yes")  # type: ignore[arg-type]
    await run_sync(no_arguments, limiter=1)  # type: ignore[arg-type]
    await run_sync(no_arguments, cancellable=True)  # type: ignore[call-arg]


async def options_of_dromon(pool: dromon.Pool) -> None:
    run_sync = dromon.to_thread.run_sync
    assert_type(await run_sync(no_arguments, interrupt_on_cancel=True, grace_period=1), bytes)
    assert_type(await run_sync(two_arguments, 1, "2", timeout=0.5, pool=pool), float)
    assert_type(await run_sync(no_arguments, timeout=None, grace_period=None, pool=None), bytes)
    assert_type(await pool.run_sync(no_arguments, timeout=1, grace_period=0.5), bytes)

    await run_sync(no_arguments, timeout="1")  # type: ignore[arg-type]
    await run_sync(no_arguments, pool=1)  # type: ignore[arg-type]
    await pool.run_sync(no_arguments, pool=pool)  # type: ignore[call-arg]


def the_default_limiter() -> None:
    limiter = dromon.to_thread.current_default_thread_limiter()
    assert_type(limiter, trio.CapacityLimiter)


async def in_a_nursery(nursery: trio.Nursery) -> None:
    nursery.start_soon(dromon.to_thread.run_sync, no_arguments)
