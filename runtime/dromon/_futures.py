"""The futures of calls that synchronous code submits."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from . import _bridge


class PoolFuture(_bridge.FutureState, Future[Any]):
    """A `concurrent.futures.Future` that is cheap as long as nobody waits for it."""

    __slots__ = ()

    def cancel(self) -> bool:
        if self.withdraw():
            super().cancel()
            self.set_running_or_notify_cancel()
            return True
        return not self.begun and super().cancel()

    def running(self) -> bool:
        return self.begun or super().running()
