"""A call whose beginning and end a test decides on."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TypeVar

import trio

T = TypeVar("T")


class BlockedCall:
    """A callable that says when it runs, and returns its argument once it is released.

    It tells the trio run in which it was made, through nothing but trio's token.
    """

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.released = threading.Event()
        self._token = trio.lowlevel.current_trio_token()

    def release(self) -> None:
        self.released.set()

    def __call__(self, result: T) -> T:
        self._tell(self.begun)
        try:
            if not self.released.wait(10):
                raise TimeoutError("nobody released the call")
            return result
        finally:
            self._tell(self.ended)

    def _tell(self, event: trio.Event) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(event.set)
