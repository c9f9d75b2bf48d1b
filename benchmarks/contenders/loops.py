"""What an async function of a load runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


def in_asyncio(function: Callable[..., Awaitable[object]], *args: Any) -> None:
    async def run() -> None:
        await function(*args)

    asyncio.run(run())


def in_no_loop(function: Callable[..., Awaitable[object]], *args: Any) -> None:
    """For ways that block, and are never suspended."""
    try:
        function(*args).__await__().__next__()
    except StopIteration:
        return
    raise AssertionError("it waits for an event loop")
