"""What type checkers are to know of functions that a thread runs in trio; see check_to_thread."""

from __future__ import annotations

from typing import assert_type

import trio

import dromon


def no_arguments() -> bytes:
    raise NotImplementedError


def two_arguments(first: int, second: str) -> float:
    raise NotImplementedError


async def no_arguments_async() -> bytes:
    raise NotImplementedError


async def two_arguments_async(first: int, second: str) -> float:
    raise NotImplementedError


def asynchronous_functions(token: trio.lowlevel.TrioToken) -> None:
    run = dromon.from_thread.run
    assert_type(run(no_arguments_async), bytes)
    assert_type(run(two_arguments_async, 1, "2"), float)
    assert_type(run(two_arguments_async, 1, "2", trio_token=token), float)
    assert_type(run(no_arguments_async, trio_token=None), bytes)
    run(trio.sleep, 1)

    run(no_arguments)  # type: ignore[arg-type]
    run(no_arguments_async())  # type: ignore[arg-type]
    run(two_arguments_async, 1)  # type: ignore[arg-type]
    run(two_arguments_async, "1", "2")  # type: ignore[arg-type]
    run(no_arguments_async, 1)  # type: ignore[arg-type]
    run(no_arguments_async, trio_token="token")  # type: ignore[arg-type]
    run(no_arguments_async, token=token)  # type: ignore[call-arg]


def synchronous_functions(token: trio.lowlevel.TrioToken) -> None:
    run_sync = dromon.from_thread.run_sync
    assert_type(run_sync(no_arguments), bytes)
    assert_type(run_sync(two_arguments, 1, "2"), float)
    assert_type(run_sync(two_arguments, 1, "2", trio_token=token), float)
    assert_type(run_sync(no_arguments, trio_token=None), bytes)

    run_sync(two_arguments, 1)  # type: ignore[arg-type]
    run_sync(two_arguments, "1", "2")  # type: ignore[arg-type]
    run_sync(no_arguments, 1)  # type: ignore[arg-type]
    run_sync(no_arguments, trio_token="token")  # type: ignore[arg-type]


def cancellation() -> None:
    check_cancelled = dromon.from_thread.check_cancelled
    check_cancelled()
    check_cancelled(1)  # type: ignore[call-arg]
