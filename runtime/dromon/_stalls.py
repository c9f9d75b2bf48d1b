"""Reports of calls that run too long; the pool's monitor thread finds them."""

from __future__ import annotations

import logging
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from ._native import lib
from ._stacks import stack_of_thread
from ._statistics import read_worker
from ._worker import forget_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import _bridge

logger = logging.getLogger("dromon")


@attrs.frozen
class Stall:
    """A call that has run longer than its pool's ``stall_after``, as it was at that moment.

    Attributes:
      worker (str): The name of the worker that runs it.
      tid (int): The worker's kernel thread id.
      seconds (float): How long the call had run.
      ended (bool): Whether it had ended before its stack could be looked at, for which the
          interpreter was needed.
      stack (traceback.StackSummary): Where the call was in its Python code, outermost frame first;
          empty for a native task, in an isolated worker, and if the call had ended.
          ``"".join(stall.stack.format())`` is as in a traceback.
    """

    worker: str
    tid: int
    seconds: float
    ended: bool
    stack: traceback.StackSummary


@attrs.define(eq=False)
class StallHook:
    """What a pool's monitor calls, on its own thread, for each call that runs too long."""

    pool_name: str
    on_stall: Callable[[Stall], object] | None
    port: _bridge.Port | None  # of the trio run that gets the reports; None: this thread does
    core: Any = attrs.field(default=None, init=False)  # the pool, once there is one

    def __call__(self, index: int, began: int, seconds: float) -> None:
        worker = read_worker(self.core, index, self.pool_name)

        def goes_on() -> bool:
            return bool(lib.dromon_pool_read_began(self.core, index) == began)

        if self.port is None:
            threading.current_thread().name = f"{self.pool_name}-monitor"
        note_stall(self.port, self.on_stall, worker.name, worker.tid, seconds, goes_on)


def note_stall(
    port: _bridge.Port | None,
    on_stall: Callable[[Stall], object] | None,
    name: str,
    tid: int,
    seconds: float,
    goes_on: Callable[[], bool],
) -> None:
    """Look at a worker that stalls, on the monitor thread, and leave the rest to the trio run.

    Without one, do the rest here.
    """
    stack = stack_of_thread(tid)
    # Asked afterwards: if it is the same call still, it was while its stack was looked at.
    ended = not goes_on()
    stall = Stall(name, tid, seconds, ended, traceback.StackSummary() if ended else stack)
    if port is not None:
        port.post(partial(_report, stall, on_stall))
        return
    try:
        _report(stall, on_stall)
    finally:
        forget_thread()  # to whoever asked, as logging does, it seemed a thread like another


def _report(stall: Stall, on_stall: Callable[[Stall], object] | None) -> None:
    if on_stall is None:
        where = "".join(stall.stack.format()) or "  (no Python code)\n"
        logger.warning(
            "a call on %s (thread %d) has run for %.3f s%s",
            stall.worker,
            stall.tid,
            stall.seconds,
            ", and ended soon after" if stall.ended else f" so far; it is at\n{where}",
        )
        return
    try:
        on_stall(stall)
    except BaseException:  # out of a system task it would end the whole run as an internal error
        logger.exception("on_stall=%r failed", on_stall)
