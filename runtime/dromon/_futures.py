"""The futures of calls that synchronous code submits."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from . import _bridge


class PoolFuture(_bridge.FutureState, Future[Any]):
    """A `concurrent.futures.Future` that is cheap as long as nobody waits for it."""

    __slots__ = ()
