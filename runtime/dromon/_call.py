"""One call's way through a pool, seen from the trio task that makes it."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs
import outcome
from sniffio import current_async_library_cvar
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    wait_task_rescheduled,
)

from ._errors import ClosedPoolError
from ._port import current_port, deliver_rest, new_port
from ._worker import named

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio
    from trio.lowlevel import Task

    from . import _bridge

RetT = TypeVar("RetT")


async def run_call(
    pool: _bridge.Pool,
    sync_fn: Callable[..., RetT],
    args: tuple[object, ...],
    thread_name: str | None,
    abandon_on_cancel: bool,
    limiter: trio.CapacityLimiter | None,
) -> RetT:
    """What `Pool.run_sync` and `dromon.to_thread.run_sync` do; described at the first.

    They protect it, and all that it calls here, from KeyboardInterrupt.
    """
    await checkpoint_if_cancelled()
    abandon = bool(abandon_on_cancel)
    if not callable(sync_fn):
        raise TypeError(f"sync_fn must be callable, not {sync_fn!r}")
    if thread_name is not None:
        sync_fn = named(thread_name, sync_fn)
    if limiter is not None:
        return await _run_limited(pool, sync_fn, args, abandon, limiter)
    port = current_port()
    if port is None:
        return await _run_alone(pool, sync_fn, args)
    call = _submit(pool, port, current_task(), sync_fn, args, abandon)
    result: RetT = await wait_task_rescheduled(call.abort)
    return result


async def _run_alone(
    pool: _bridge.Pool, sync_fn: Callable[..., RetT], args: tuple[object, ...]
) -> RetT:
    """Make a call at the very end of a run, when no system task can deliver it.

    Only shielded code gets so far, so cancellation is of no concern.
    """
    port = new_port()
    try:
        call = _submit(pool, port, None, sync_fn, args, False)
        await deliver_rest(port)
    finally:
        port.close()
    result: RetT = call.unwrap()
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
        port = current_port()
        if port is None:
            return await _run_alone(pool, sync_fn, args)
        call = _submit(pool, port, current_task(), sync_fn, args, abandon)
        call.after_abandoned = release_later
        result: RetT = await wait_task_rescheduled(call.abort)
        return result
    finally:
        if call is None or call.waiter is not release_later:
            release()


def _submit(
    pool: _bridge.Pool,
    port: _bridge.Port,
    waiter: Task | None,
    sync_fn: Callable[..., object],
    args: tuple[object, ...],
    abandon: bool,
) -> _bridge.Call:
    call: _bridge.Call | None
    if current_async_library_cvar.get(None) is not None:
        # The worker is not inside an async library, whatever this task's context says.
        context = copy_context()
        context.run(current_async_library_cvar.set, None)
        call = context.run(pool.submit, port, waiter, sync_fn, args, abandon)
    else:
        call = pool.submit(port, waiter, sync_fn, args, abandon)
    if call is None:
        raise ClosedPoolError("the pool is closed")
    return call


async def close_pool(pool: _bridge.Pool) -> bool:
    """Refuse later calls and wait, cancelled or not, until all accepted ones have ended.

    Returns False, at once, if the pool was closed already. The caller protects it from
    KeyboardInterrupt.
    """
    port = current_port()
    if port is None:  # the end of the run, see _run_alone
        port = new_port()
        call = pool.close(port, None, _last_call, (), False)
        await deliver_rest(port)
        port.close()
        return call is not None
    call = pool.close(port, current_task(), _last_call, (), False)
    if call is None:
        return False
    # It can't be withdrawn: its turn comes only when there is nothing else to wait for.
    await wait_task_rescheduled(lambda _: Abort.FAILED)
    return True


def _last_call() -> None:
    """What a pool runs when everything else has ended."""
