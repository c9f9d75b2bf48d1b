"""What a thread that may have an event loop is told when it is about to wait for green threads."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def refuse_event_loop(instead: str) -> None:
    """Raise `RuntimeError` if this is the thread of an event loop, which would stand still.

    Called by the bridge, on threads that are no workers. `instead` is what a trio task would use.
    """
    # Where neither is imported neither runs: so nothing is imported here.
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        raise RuntimeError(
            f"this would block the event loop of this thread: in a trio task use {instead}"
        )
    asyncio: Any = sys.modules.get("asyncio.events")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "this would block the event loop of this thread: in an asyncio task use what asyncio"
            " has for it"
        )
