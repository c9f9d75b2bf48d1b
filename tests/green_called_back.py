"""What calls on green threads ask of trio, in tests; and the calls, which isolated workers import.

The async functions run in the main interpreter, where `stage` is set.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import trio

    import dromon


class Stage:
    """What a test and the functions that it has called back share."""

    pool: dromon.Pool
    event: trio.Event
    waiting = 0
    everybody = 0


stage = Stage()


async def wait() -> str:
    await stage.event.wait()
    return "waited"


async def set_event() -> None:
    stage.event.set()


async def wait_for_everybody(number: int) -> int:
    stage.waiting += 1
    if stage.waiting == stage.everybody:
        stage.event.set()
    await stage.event.wait()
    return number


async def go_deeper(depth: int) -> int:
    return 1 + await stage.pool.run_sync(dive, depth - 1)


# ---- Calls ---------------------------------------------------------------------------------------


def ask(afn: Callable[..., Any], *args: object) -> Any:
    from dromon import from_thread

    return from_thread.run(afn, *args)


def dive(depth: int) -> int:
    """From a worker to trio and back to a worker, and so on."""
    result: int = ask(go_deeper, depth) if depth else 0
    return result


def under_frames(number: int, depth: int = 6) -> int:
    """Waits for trio under frames of Python with one of C between."""
    if depth:
        return under_frames(number, depth - 1)

    def key(number: int) -> int:
        answer: int = ask(wait_for_everybody, number)
        return answer

    return sorted([number], key=key)[0]


def ask_in_children(count: int) -> list[int]:
    """All at once, as far as the interpreter lets them."""
    from dromon import green

    return green.map(lambda number: int(ask(wait_for_everybody, number)), range(count))
