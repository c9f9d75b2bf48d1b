"""One call's way through a pool, seen from the trio task that makes it."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from sniffio import current_async_library_cvar
from trio import current_time
from trio.lowlevel import (
    Abort,
    current_task,
    in_trio_task,
    wait_task_rescheduled,
)

from ._bridge import ABANDON, WAIT
from ._callables import check_sync, name_of
from ._chunks import run_chunk
from ._errors import ClosedPoolError, QueueFull
from ._from_thread import MESSAGES, serve
from ._futures import PoolFuture
from ._interruption import Escalation, check_interruption, in_time
from ._limiter import acquire_nowait
from ._native_call import argument_address, function_address
from ._port import current_port, note_withdrawn, on_own_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from trio.lowlevel import Task

    from . import _bridge
    from ._limiter import Limiter
    from ._trio_run import TrioRun

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


def run_sync(
    run: TrioRun,
    pool: _bridge.Pool,
    sync_fn: Callable[..., RetT],
    args: tuple[object, ...],
    thread_name: str | None,
    abandon_on_cancel: bool,
    interrupt_on_cancel: bool,
    limiter: Limiter | None,
    timeout: float | None,
    grace_period: float | None,
) -> Coroutine[Any, Any, RetT]:
    """What `Pool.run_sync` and `dromon.to_thread.run_sync` do; described at the first.

    They protect it, and all that it calls here, from KeyboardInterrupt, and look whether the task
    is cancelled before.
    """
    if type(sync_fn) is not FunctionType:  # of which the bridge sees what they are
        check_sync("sync_fn", sync_fn)
    task = current_task()
    begun = 0.0 if timeout is None else current_time()
    on_abort = ABANDON if abandon_on_cancel else WAIT
    if interrupt_on_cancel or timeout is not None or grace_period is not None:
        on_abort = check_interruption(on_abort, interrupt_on_cancel, timeout, grace_period)
    if current_async_library_cvar.get() is None:  # nearly always: outside_async would do the same
        call = pool.call(sync_fn, args, on_abort, thread_name, task)
    else:
        call = outside_async(pool.call, sync_fn, args, on_abort, thread_name, task)
    outcome = _outcome(run, task, call, limiter, grace_period)
    return outcome if timeout is None else in_time(outcome, begun, timeout, sync_fn)


def run_native(
    run: TrioRun,
    pool: _bridge.Pool,
    fn: object,
    arg: object,
    abandon_on_cancel: bool,
    limiter: Limiter | None,
) -> Coroutine[Any, Any, int]:
    """What `Pool.run_native` does, which protects it from KeyboardInterrupt."""
    on_abort = ABANDON if abandon_on_cancel else WAIT
    address = function_address(fn)
    argument, buffer = argument_address(arg)
    call = pool.native_call(address, argument, (fn, arg, buffer), on_abort)
    return _outcome(run, current_task(), call, limiter, None)


async def _outcome(
    run: TrioRun,
    task: Task,
    call: _bridge.Call,
    limiter: Limiter | None,
    grace_period: float | None,
    port: _bridge.Port | None = None,
) -> Any:
    """Queue a call, wait for it and return its result.

    On the port of the trio run, unless it is given another one.
    """
    port = port or run.port or current_port()
    if port is None:
        return await on_own_port(partial(_outcome, run, task, call, limiter, grace_period))
    escalation = None
    abort = call.abort
    if grace_period is not None:
        escalation = Escalation(call, task, grace_period)
        abort = escalation.abort
    if limiter is not None:
        if not acquire_nowait(limiter, call):
            await limiter.acquire_on_behalf_of(call)
        call.limiter = limiter
    try:
        if not call.submit(port, task):
            raise ClosedPoolError("the pool is closed")
        result = await wait_task_rescheduled(abort)
        while id(type(result)) in MESSAGES:  # by identity: a metaclass may compare as it likes
            await serve(call, result)
            del result  # or the task would keep the message alive while it waits
            result = await wait_task_rescheduled(abort)
        return result
    except BaseException:
        if call.waiter is None:
            note_withdrawn(port)
        raise
    finally:
        if escalation is not None:
            escalation.cancel()
        # Unless it was abandoned: then who delivers the call will release the limiter.
        if limiter is not None and (call.waiter is not None or call.limiter is None):
            limiter.release_on_behalf_of(call)


def refuse_outside_trio(function: str) -> None:
    """Raise a clear error, if this is not a trio task.

    For who has caught a RuntimeError of `checkpoint_if_cancelled`, which each calls itself: in a
    function for both it would be a coroutine more in each call.
    """
    if not in_trio_task():
        raise RuntimeError(
            f"{function} must be awaited in a trio task; elsewhere use `with dromon.Pool() as pool`"
            " and `pool.submit`, or `dromon.Executor`, which asyncio's run_in_executor takes"
        ) from None


def outside_async(function: Callable[..., RetT], *args: object) -> RetT:
    """Call a function that copies the current context for a worker.

    The worker is not inside an async library, whatever this thread's context says.
    """
    if current_async_library_cvar.get() is None:
        return function(*args)
    context = copy_context()
    context.run(current_async_library_cvar.set, None)
    return context.run(function, *args)


def start_call(
    pool: _bridge.Pool, fn: Callable[..., RetT], args: tuple[object, ...], if_full: int
) -> Future[RetT]:
    """Queue a call and return its future; what `Pool.submit` does."""
    check_sync("fn", fn)
    future = outside_async(pool.future, PoolFuture, fn, args, if_full)
    if future is None:
        raise ClosedPoolError("the pool is closed")
    if future is False:
        raise QueueFull("the pool's queue is full")
    return future  # type: ignore[no-any-return]


def called_function(
    function: Callable[..., object], args: tuple[Any, ...]
) -> Callable[..., object]:
    """Return what a queued call of ``function(*args)`` will call for its user."""
    called: Callable[..., object] = args[0].fn if function is run_chunk else function
    return called


def name_of_call(function: Callable[..., object], args: tuple[Any, ...]) -> str:
    """Return what people call that."""
    return name_of(called_function(function, args))


async def close_pool(
    pool: _bridge.Pool, last: Callable[[], object], port: _bridge.Port | None = None
) -> bool:
    """Refuse later calls and wait, cancelled or not, until all accepted ones have ended.

    The very last is `last`.

    Returns False, at once, if the pool was closed already. The caller protects it from
    KeyboardInterrupt.
    """
    if port is None and (port := current_port()) is None:
        return await on_own_port(partial(close_pool, pool, last))
    call = pool.close(port, current_task(), last)
    if call is None:
        return False
    # It can't be withdrawn: its turn comes only when there is nothing else to wait for.
    await wait_task_rescheduled(lambda _: Abort.FAILED)
    return True
