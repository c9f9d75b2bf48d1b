"""One call's way through a pool, seen from the trio task that makes it."""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs
import outcome
from sniffio import current_async_library_cvar
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    wait_task_rescheduled,
)

from ._errors import ClosedPoolError
from ._port import current_port
from ._worker import named

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from . import _bridge

RetT = TypeVar("RetT")


@enable_ki_protection
async def run_call(
    pool: _bridge.Pool,
    sync_fn: Callable[..., RetT],
    args: tuple[object, ...],
    thread_name: str | None,
    abandon_on_cancel: bool,
    limiter: trio.CapacityLimiter | None,
) -> RetT:
    """What `Pool.run_sync` and `dromon.to_thread.run_sync` do; described at the first."""
    await checkpoint_if_cancelled()
    abandon = bool(abandon_on_cancel)
    if not callable(sync_fn):
        raise TypeError(f"sync_fn must be callable, not {sync_fn!r}")
    if thread_name is not None:
        sync_fn = named(thread_name, sync_fn)
    if limiter is not None:
        return await _run_limited(pool, sync_fn, args, abandon, limiter)
    call = _submit(pool, sync_fn, args)
    result: RetT = await wait_task_rescheduled(_aborter(call, abandon))
    return result


@attrs.frozen(eq=False)
class _Borrower:
    """Stands in for a call at a limiter, as trio has it for its own threads."""

    name: str


async def _run_limited(
    pool: _bridge.Pool,
    sync_fn: Callable[..., RetT],
    args: tuple[object, ...],
    abandon: bool,
    limiter: trio.CapacityLimiter,
) -> RetT:
    borrower = _Borrower(getattr(sync_fn, "__qualname__", repr(sync_fn)))
    release = partial(limiter.release_on_behalf_of, borrower)
    release_later = partial(outcome.capture, release)  # as in trio, its errors have nowhere to go
    await limiter.acquire_on_behalf_of(borrower)
    call = None
    try:
        call = _submit(pool, sync_fn, args)
        result: RetT = await wait_task_rescheduled(_aborter(call, abandon, release_later))
        return result
    finally:
        if call is None or call.waiter is not release_later:
            release()


def _submit(
    pool: _bridge.Pool, sync_fn: Callable[..., object], args: tuple[object, ...]
) -> _bridge.Call:
    context = contextvars.copy_context()
    if current_async_library_cvar.get(None) is not None:
        # The worker is not inside an async library, whatever this task's context says.
        context.run(current_async_library_cvar.set, None)
    call = pool.submit(current_port(), current_task(), context, sync_fn, args)
    if call is None:
        raise ClosedPoolError("the pool is closed")
    return call


def _aborter(
    call: _bridge.Call, abandon: bool, after_abandoned: Callable[[], object] | None = None
) -> Callable[[object], Abort]:
    """What trio calls when the task that waits for `call` is cancelled.

    If a running call is abandoned, ``after_abandoned()`` is called in this run once it has ended.
    """

    def abort(_raise_cancel: object) -> Abort:
        if call.withdraw():
            return Abort.SUCCEEDED
        if abandon and call.abandon():
            call.waiter = after_abandoned
            return Abort.SUCCEEDED
        return Abort.FAILED

    return abort


async def close_pool(pool: _bridge.Pool) -> bool:
    """Refuse later calls and wait, cancelled or not, until all accepted ones have ended.

    Returns False, at once, if the pool was closed already.
    """
    context = contextvars.copy_context()
    call = pool.close(current_port(), current_task(), context, _last_call, ())
    if call is None:
        return False
    await wait_task_rescheduled(lambda _: Abort.FAILED)
    return True


def _last_call() -> None:
    """What a pool runs when everything else has ended."""
