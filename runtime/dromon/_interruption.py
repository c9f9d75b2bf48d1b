"""Calls that are interrupted: by time, by cancellation, and once more if that did not help."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from outcome import capture
from trio import Cancelled, CancelScope, TooSlowError, sleep
from trio.lowlevel import (
    Abort,
    current_trio_token,
    reschedule,
    spawn_system_task,
    start_thread_soon,
)

from ._bridge import ABANDON, INTERRUPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from trio.lowlevel import Task

    from . import _bridge

RetT = TypeVar("RetT")

_LOOK_AGAIN = 0.01  # seconds at least, so that no grace period makes the loop spin


def check_interruption(
    on_abort: int,
    interrupt_on_cancel: bool,
    timeout: float | None,
    grace_period: float | None,
) -> int:
    """Check the arguments of `Pool.run_sync` that have to do with interrupts.

    Returns what is to happen to the call when its task is cancelled.
    """
    if timeout is not None:
        _check_seconds("timeout", timeout)
    if on_abort == ABANDON:
        if interrupt_on_cancel:
            raise ValueError("abandon_on_cancel and interrupt_on_cancel exclude each other")
        if grace_period is not None:
            raise ValueError("grace_period is for calls that are interrupted, not abandoned")
        return ABANDON
    if grace_period is not None:
        _check_seconds("grace_period", grace_period)
        if not interrupt_on_cancel and timeout is None:
            raise ValueError("grace_period needs interrupt_on_cancel=True or a timeout")
    return INTERRUPT


def _check_seconds(name: str, seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {seconds!r}")
    if math.isnan(seconds) or (not 0 <= seconds <= sys.float_info.max and seconds != math.inf):
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")


async def in_time(
    call: Awaitable[RetT], begun: float, timeout: float, sync_fn: Callable[..., RetT]
) -> RetT:
    """Await a call, but no longer than `timeout` seconds from `begun`, by trio's clock."""
    interrupted: BaseException | None = None
    with CancelScope(deadline=begun + timeout):
        try:
            return await call
        except Cancelled as cancelled:
            interrupted = cancelled.__cause__
            raise
    name = getattr(sync_fn, "__qualname__", sync_fn)
    raise TooSlowError(f"{name} did not end within {timeout} s") from interrupted


def raise_soon(call: _bridge.Call) -> None:
    """Raise the interrupts of a call that runs in another interpreter, once its GIL can be had.

    That may take as long as a C function in there keeps it, so a thread waits in place of the loop.
    """
    start_thread_soon(call.raise_interrupt, _ignore, "dromon interrupt")


def _retire_soon(call: _bridge.Call) -> None:
    """Give the place of its worker to a new one, if it is an isolated one."""
    start_thread_soon(call.retire, _ignore, "dromon retire")


def _ignore(_: object) -> None:
    pass


class Escalation:
    """What happens to a call that does not end when it is interrupted.

    A grace period after the first interrupt comes a second one; after another period the call is
    given up: its task gets its cancellation, and the call goes on in the background.
    """

    def __init__(self, call: _bridge.Call, task: Task, grace_period: float) -> None:
        self._call = call
        self._task = task
        self._grace_period = grace_period
        self._begun = False
        self._scope = CancelScope(shield=True)  # also at the end of the run

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """Abort the call, for trio: each time that the task waits for it."""
        answer = self._call.abort(raise_cancel)
        if answer is Abort.FAILED and not self._begun:
            self._begun = True
            # Not here: trio may be about to cancel the system tasks, one by one.
            current_trio_token().run_sync_soon(self._start, raise_cancel)
        return answer

    def _start(self, raise_cancel: Callable[[], NoReturn]) -> None:
        with suppress(RuntimeError):  # the end of the run: no system tasks any more
            spawn_system_task(self._escalate, raise_cancel)

    def cancel(self) -> None:
        """It is over, in whatever way."""
        self._scope.cancel()

    async def _escalate(self, raise_cancel: Callable[[], NoReturn]) -> None:
        with self._scope:
            await sleep(self._grace_period)
            self._call.interrupt()
            await sleep(self._grace_period)
            # While its task does something for it, it cannot be given up.
            while not self._call.abandon():  # noqa: ASYNC110
                await sleep(max(self._grace_period, _LOOK_AGAIN))
            _retire_soon(self._call)
            self._call.waiter = None
            reschedule(self._task, capture(raise_cancel))
