"""What calls of isolated workers ask of trio: found by name in both interpreters, so it is light.

In the main interpreter the test has left there what these look at.
"""

from __future__ import annotations

from typing import Any

seen: dict[str, Any] = {}


def note(key: str, value: object) -> None:
    seen[key] = value


def noted(key: str) -> Any:
    return seen[key]


def current_task_id() -> int:
    from trio.lowlevel import current_task

    return id(current_task())


async def current_task_id_after_a_while() -> int:
    from trio.lowlevel import checkpoint

    await checkpoint()
    return current_task_id()


async def parent_of_the_task() -> str:
    from trio.lowlevel import current_task

    nursery = current_task().parent_nursery
    return "none" if nursery is None else nursery.parent_task.name


async def add(a: int, b: int) -> int:
    return a + b


async def fail(text: str) -> None:
    raise LookupError(text)


def fail_at_once(text: str) -> None:
    raise LookupError(text)


async def wait_for_ever() -> None:
    from trio import sleep_forever

    seen["waits"].set()
    try:
        await sleep_forever()
    finally:
        seen["unwound"] = True


async def wait_and_catch() -> str:
    from trio import Cancelled, sleep_forever

    seen["waits"].set()
    try:
        await sleep_forever()
    except Cancelled:
        return "caught"


async def divide_in_the_pool(a: int, b: int) -> tuple[int, int]:
    result: tuple[int, int] = await seen["pool"].run_sync(divmod, a, b)
    return result


def set_event(key: str) -> None:
    seen[key].set()


async def wait_for_event(key: str) -> None:
    await seen[key].wait()
