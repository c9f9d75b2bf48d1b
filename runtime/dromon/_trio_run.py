"""What a trio run has of dromon's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from trio.lowlevel import RunVar

from ._limiter import DefaultLimiter

if TYPE_CHECKING:
    from trio import Event

    from ._bridge import Port


@attrs.define(eq=False)
class TrioRun:
    """One for each run, from the first time that anybody asks for it."""

    port: Port | None = None  # see _port.py; None before the first call, and when `is_over`
    is_over: bool = False  # trio runs system tasks no longer
    idle: Event | None = None  # set when no call is waited for any more; None: nobody asked
    thread_limiter: DefaultLimiter = attrs.field(factory=DefaultLimiter)  # of dromon.to_thread
    interpreter_limiter: DefaultLimiter = attrs.field(factory=DefaultLimiter)


_current: RunVar[TrioRun] = RunVar("dromon")


def current_run() -> TrioRun:
    """That of the current trio run; RuntimeError outside of one."""
    try:
        return _current.get()
    except LookupError:
        run = TrioRun()
        _current.set(run)
        return run
