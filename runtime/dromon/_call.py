"""One call's way through a pool, seen from the trio task that makes it."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

import attrs
import outcome
from sniffio import current_async_library_cvar
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    wait_task_rescheduled,
)

from ._errors import ClosedPoolError, QueueFull
from ._native_call import argument_address, function_address
from ._port import current_port, deliver_rest, new_port
from ._worker import named

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    import trio
    from trio.lowlevel import Task

    from . import _bridge

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


class Submit(Protocol):
    """Queues one call, of whatever kind."""

    def __call__(
        self, port: _bridge.Port, waiter: Task | None, abandon: bool, /
    ) -> _bridge.Call: ...


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
    result: RetT
    if limiter is not None:
        name = getattr(sync_fn, "__qualname__", repr(sync_fn))
        submit = partial(_submit, pool, sync_fn, args)
        result = await _run_limited(submit, name, abandon, limiter)
    elif (port := current_port()) is None:
        result = await _run_alone(partial(_submit, pool, sync_fn, args))
    else:
        call = _submit(pool, sync_fn, args, port, current_task(), abandon)
        result = await wait_task_rescheduled(call.abort)
    return result


async def run_native_call(
    pool: _bridge.Pool,
    fn: object,
    arg: object,
    abandon_on_cancel: bool,
    limiter: trio.CapacityLimiter | None,
) -> int:
    """What `Pool.run_native` does, which protects it from KeyboardInterrupt."""
    await checkpoint_if_cancelled()
    abandon = bool(abandon_on_cancel)
    address = function_address(fn)
    argument, buffer = argument_address(arg)
    submit = partial(_submit_native, pool, address, argument, (fn, arg, buffer))
    if limiter is not None:
        status: int = await _run_limited(submit, repr(fn), abandon, limiter)
    elif (port := current_port()) is None:
        status = await _run_alone(submit)
    else:
        status = await wait_task_rescheduled(submit(port, current_task(), abandon).abort)
    return status


async def _run_alone(submit: Submit) -> Any:
    """Make a call at the very end of a run, when no system task can deliver it.

    Only shielded code gets so far, so cancellation is of no concern.
    """
    port = new_port()
    try:
        call = submit(port, None, False)
        await deliver_rest(port)
    finally:
        port.close()
    return call.unwrap()


@attrs.frozen(eq=False)
class _Borrower:
    """Stands in for a call at a limiter, as trio has it for its own threads."""

    name: str


async def _run_limited(
    submit: Submit, name: str, abandon: bool, limiter: trio.CapacityLimiter
) -> Any:
    borrower = _Borrower(name)
    release = partial(limiter.release_on_behalf_of, borrower)
    release_later = partial(outcome.capture, release)  # as in trio, its errors have nowhere to go
    await limiter.acquire_on_behalf_of(borrower)
    call = None
    try:
        port = current_port()
        if port is None:
            return await _run_alone(submit)
        call = submit(port, current_task(), abandon)
        call.after_abandoned = release_later
        return await wait_task_rescheduled(call.abort)
    finally:
        if call is None or call.waiter is not release_later:
            release()


def _submit(
    pool: _bridge.Pool,
    sync_fn: Callable[..., object],
    args: tuple[object, ...],
    port: _bridge.Port,
    waiter: Task | None,
    abandon: bool,
) -> _bridge.Call:
    return _accepted(_outside_async(pool.submit, port, waiter, sync_fn, args, abandon))


def _submit_native(
    pool: _bridge.Pool,
    fn: int,
    arg: int,
    kept_alive: object,
    port: _bridge.Port,
    waiter: Task | None,
    abandon: bool,
) -> _bridge.Call:
    return _accepted(pool.submit_native(port, waiter, fn, arg, kept_alive, abandon))


def _outside_async(function: Callable[[*Ts], RetT], *args: *Ts) -> RetT:
    """Call a function that copies the current context for a worker.

    The worker is not inside an async library, whatever this thread's context says.
    """
    if current_async_library_cvar.get(None) is None:
        return function(*args)
    context = copy_context()
    context.run(current_async_library_cvar.set, None)
    return context.run(function, *args)


def _accepted(call: _bridge.Call | None) -> _bridge.Call:
    if call is None:
        raise ClosedPoolError("the pool is closed")
    return call


def start_call(
    pool: _bridge.Pool,
    future: Future[RetT],
    fn: Callable[..., RetT],
    args: tuple[object, ...],
    wait: bool,
) -> None:
    """Queue a call whose outcome goes into `future`; what `Pool.submit` does."""
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r}")
    started = _outside_async(pool.start, _run_into, (future, fn, args), wait)
    if started is None:
        raise ClosedPoolError("the pool is closed")
    if not started:
        raise QueueFull("the pool's queue is full")


def _run_into(future: Future[RetT], fn: Callable[..., RetT], args: tuple[object, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args)
    except BaseException as error:
        future.set_exception(error)
        del future  # or the traceback, which leads here, would make a cycle
    else:
        future.set_result(result)


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
