"""The limiter that all calls of a trio run share unless they are given another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio import CapacityLimiter, WouldBlock

from ._native import lib

if TYPE_CHECKING:
    from . import _bridge

DEFAULT_TOKENS: Final = int(lib.DROMON_QUEUE_CAPACITY_DEFAULT)


class DefaultLimiter:
    """A `trio.CapacityLimiter` that is made when somebody asks for it, or its tokens run out.

    Until then nobody can see it nor change it, and all that matters is who has tokens of it: they
    are then given those. It saves a quarter of what an empty call costs.
    """

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None
        self._borrowers: set[_bridge.Call] = set()

    def made(self) -> CapacityLimiter:
        """The limiter, made now if it was not."""
        limiter = self._limiter
        if limiter is None:
            limiter = self._limiter = CapacityLimiter(DEFAULT_TOKENS)
            for call in self._borrowers:
                limiter.acquire_on_behalf_of_nowait(call)
            self._borrowers.clear()
        return limiter

    def acquire_nowait(self, call: _bridge.Call) -> bool:
        """Borrow a token, if there is one."""
        if self._limiter is None and len(self._borrowers) < DEFAULT_TOKENS:
            self._borrowers.add(call)
            return True
        return acquire_nowait(self.made(), call)

    async def acquire_on_behalf_of(self, call: _bridge.Call) -> None:
        await self.made().acquire_on_behalf_of(call)

    def release_on_behalf_of(self, call: _bridge.Call) -> None:
        if self._limiter is None:
            self._borrowers.remove(call)
        else:
            self._limiter.release_on_behalf_of(call)


Limiter = CapacityLimiter | DefaultLimiter


def acquire_nowait(limiter: Limiter, call: _bridge.Call) -> bool:
    """Borrow a token, if it is known how to without giving the loop a turn: the call will do that.

    The call stands in for its thread, as trio has a placeholder do.
    """
    if type(limiter) is DefaultLimiter:
        return limiter.acquire_nowait(call)
    if type(limiter) is not CapacityLimiter:
        return False
    try:
        limiter.acquire_on_behalf_of_nowait(call)
    except WouldBlock:
        return False
    return True
