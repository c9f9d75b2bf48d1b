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

    def result(self, timeout: float | None = None) -> Any:
        if _bridge.root_call() is None:
            return super().result(timeout)
        self._park_until_done(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if _bridge.root_call() is None:
            return super().exception(timeout)
        self._park_until_done(timeout)
        return super().exception(0)

    def _park_until_done(self, timeout: float | None) -> None:
        """Wait on a worker, which runs others meanwhile: perhaps what is waited for."""
        done = _bridge.Event()
        self.add_done_callback(lambda _: done.set())
        done.wait(timeout)
