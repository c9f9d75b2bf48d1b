"""Reports of calls that run too long; the pool's monitor thread finds them."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING

import attrs

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
          empty for a native task, and if the call had ended. ``"".join(stall.stack.format())`` is
          as in a traceback.
    """

    worker: str
    tid: int
    seconds: float
    ended: bool
    stack: traceback.StackSummary


def note_stall(
    port: _bridge.Port,
    on_stall: Callable[[Stall], object] | None,
    name: str,
    tid: int,
    seconds: float,
    goes_on: Callable[[], bool],
) -> None:
    """Look at a worker that stalls, on the monitor thread, and leave the rest to the trio run."""
    stack = _stack_of(tid)
    # Asked afterwards: if it is the same call still, it was while its stack was looked at.
    ended = not goes_on()
    stall = Stall(name, tid, seconds, ended, traceback.StackSummary() if ended else stack)
    port.post(partial(_report, stall, on_stall))


def _stack_of(tid: int) -> traceback.StackSummary:
    idents = [thread.ident for thread in threading.enumerate() if thread.native_id == tid]
    frame = sys._current_frames().get(idents[0] or 0) if idents else None
    if frame is None:
        return traceback.StackSummary()
    # Lines are looked up when they are printed, in another thread: that reads files.
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    stack.reverse()
    return stack


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
