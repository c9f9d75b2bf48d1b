"""`dromon.to_interpreter`: calls on the default pool of workers that have an interpreter each."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from . import _call
from ._pool import interpreter_pool
from ._trio_run import current_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio import CapacityLimiter

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


def current_default_interpreter_limiter() -> CapacityLimiter:
    """Return the limiter that `run_sync` uses unless it is given another one.

    Named as in `anyio.to_interpreter`. Each trio run has its own, and its ``total_tokens`` can be
    changed. It begins with 4096 tokens, see `dromon.to_thread.current_default_thread_limiter`.

    Raises:
      RuntimeError: Outside of trio.

    Example::

        dromon.to_interpreter.current_default_interpreter_limiter().total_tokens = 2
    """
    return current_run().interpreter_limiter.made()


@enable_ki_protection
async def run_sync(
    sync_fn: Callable[[*Ts], RetT],
    *args: *Ts,
    abandon_on_cancel: bool = False,
    interrupt_on_cancel: bool = False,
    limiter: CapacityLimiter | None = None,
    timeout: float | None = None,
    grace_period: float | None = None,
) -> RetT:
    """Run ``sync_fn(*args)`` in an interpreter with a GIL of its own and wait for it.

    So pure Python runs in parallel, and the event loop goes on beside it, on an ordinary CPython
    (3.12 or later). The function, its arguments and its result travel between the interpreters;
    what that means is described at `dromon.Pool`, under ``isolation``, and cancellation, interrupts
    and ``timeout`` at `dromon.Pool.run_sync`.

    The default pool for this is opened at first use and lasts as long as the process. It has as
    many workers as that of `dromon.to_thread`; `dromon.configure_default_pool` with
    ``isolation="interpreter"`` says otherwise.

    Args:
      limiter (trio.CapacityLimiter | None): By default `current_default_interpreter_limiter`.

    Raises:
      IsolationError: This Python has no such interpreters (it is too old); or an extension module
          that the call needs refuses them, which the attribute ``module`` names.
      RemoteError: The call raised what cannot travel.
      TypeError: ``sync_fn`` is not callable, or an async function; or the function, an argument or
          the result cannot travel.
      SpawnError: The workers could not be started.
      Exception: Whatever ``sync_fn(*args)`` raises.

    Example::

        tree = await dromon.to_interpreter.run_sync(parse, source)
    """
    try:
        await checkpoint_if_cancelled()
    except RuntimeError:
        _call.refuse_outside_trio("run_sync")
        raise
    run = current_run()
    return await _call.run_sync(
        run,
        interpreter_pool.get()._bridge,
        sync_fn,
        args,
        None,
        abandon_on_cancel,
        interrupt_on_cancel,
        run.interpreter_limiter if limiter is None else limiter,
        timeout,
        grace_period,
    )
