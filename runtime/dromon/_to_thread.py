"""`dromon.to_thread`: calls on the default pool, within a limit that the whole trio run shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from . import _call
from ._pool import Pool, thread_pool
from ._trio_run import current_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio import CapacityLimiter

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


def current_default_thread_limiter() -> CapacityLimiter:
    """Return the limiter that `run_sync` uses unless it is given another one.

    Takes the place of `trio.to_thread.current_default_thread_limiter`: each trio run has its own,
    and its ``total_tokens`` can be changed. It begins with as many tokens as the queue of the
    default pool has places, 4096. (Trio's has 40: there it decides how many threads there are.
    Here the pool does, and more calls than workers only wait in another place.)

    Raises:
      RuntimeError: Outside of trio.

    Example::

        dromon.to_thread.current_default_thread_limiter().total_tokens = 2
    """
    return current_run().thread_limiter.made()


@enable_ki_protection
async def run_sync(
    sync_fn: Callable[[*Ts], RetT],
    *args: *Ts,
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: CapacityLimiter | None = None,
    interrupt_on_cancel: bool = False,
    timeout: float | None = None,
    grace_period: float | None = None,
    pool: Pool | None = None,
) -> RetT:
    """Run ``sync_fn(*args)`` on a worker of the default pool and wait for it.

    Takes the place of `trio.to_thread.run_sync`: same arguments, same cancellation. They, and
    those that are dromon's own, are described at `dromon.Pool.run_sync`.

    The default pool is opened at first use and lasts as long as the process. It has as many workers
    as the process may use CPUs (by its affinity and its control groups' quota), or as many as the
    environment variable ``DROMON_WORKERS`` says.

    Args:
      limiter (trio.CapacityLimiter | None): By default `current_default_thread_limiter`.
      pool (Pool | None): The pool that runs it. By default the default pool.

    Raises:
      ValueError: ``DROMON_WORKERS`` is not a number in range.
      SpawnError: The workers could not be started, or the process has no descriptor left for this
          trio run.
      TypeError: ``sync_fn`` is not callable, or an async function.
      Exception: Whatever ``sync_fn(*args)`` raises.

    Example::

        digest = await dromon.to_thread.run_sync(hash_file, path)
    """
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool must be a Pool or None, not {pool!r}")
    try:
        await checkpoint_if_cancelled()
    except RuntimeError:
        _call.refuse_outside_trio("run_sync")
        raise
    run = current_run()
    return await _call.run_sync(
        run,
        thread_pool.get()._bridge if pool is None else pool._bridge,
        sync_fn,
        args,
        thread_name,
        abandon_on_cancel,
        interrupt_on_cancel,
        run.thread_limiter if limiter is None else limiter,
        timeout,
        grace_period,
    )
