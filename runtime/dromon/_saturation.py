"""The warning that a pool is saturated; its monitor thread finds out."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

import attrs

from ._call import name_of_call
from ._worker import forget_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import _bridge

logger = logging.getLogger("dromon")

# Seconds that a call has waited, and no worker has slept, before a pool counts as saturated. A
# variable, so that tests need not wait as long.
SATURATED_AFTER = 1.0

NAMED_AT_MOST: Final = 10

WHAT_TO_DO: Final = (
    "If a call blocks its worker until another call of the same pool has ended, they may wait for"
    " each other for ever: let it wait by dromon.green, which gives the worker back, or give the"
    " other one a second pool. If there is just too much to do, open the pool with more"
    " workers, or submit less at once (limiter=trio.CapacityLimiter(...)). With stall_after=... a"
    " pool tells where its calls spend their time. This is said once for each pool."
)


@attrs.define(eq=False)
class SaturationHook:
    """What a pool's monitor calls, on its own thread, when the pool is saturated."""

    pool_name: str
    workers: int
    bridge: _bridge.Pool | None = attrs.field(default=None, init=False)  # once there is one

    def __call__(self, waiting: int, seconds: float) -> None:
        assert self.bridge is not None  # for as long as it takes to be saturated
        thread = threading.current_thread()
        thread.name = f"{self.pool_name}-monitor"
        try:
            warn_saturated(self.pool_name, self.bridge.waiting(), waiting, self.workers, seconds)
        finally:
            forget_thread()


def warn_saturated(
    pool_name: str,
    calls: list[tuple[Callable[..., object], tuple[object, ...]]],
    waiting: int,
    workers: int,
    seconds: float,
) -> None:
    """Warn of a saturated pool, on its monitor thread: the trio run may be stuck as well.

    `calls` are those of Python functions that wait now, oldest first, as `_bridge.Pool.waiting` has
    them; `waiting` counts native ones, too.
    """
    logger.warning(
        "the pool %r has been saturated for %.1f s: %s, and %s. %s",
        pool_name,
        seconds,
        "its only worker is busy" if workers == 1 else f"its {workers} workers are all busy",
        _describe(calls, max(waiting, len(calls))),
        WHAT_TO_DO,
    )


def _describe(calls: list[tuple[Callable[..., object], tuple[object, ...]]], total: int) -> str:
    counts = Counter(name_of_call(*call) for call in calls)
    named = dict(islice(counts.items(), NAMED_AT_MOST))
    names = [name if count == 1 else f"{name} ({count} times)" for name, count in named.items()]
    rest = total - sum(named.values())
    text = "1 call waits" if total == 1 else f"{total} calls wait"
    if not names:  # native calls, which have none
        return text
    more = f" and {rest} more" if rest else ""
    return f"{text}, oldest first: {', '.join(names)}{more}"
