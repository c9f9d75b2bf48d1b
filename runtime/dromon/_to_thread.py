"""`dromon.to_thread`: calls on the default pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from trio.lowlevel import enable_ki_protection

from ._call import run_call
from ._pool import default_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


@enable_ki_protection
async def run_sync(
    sync_fn: Callable[[*Ts], RetT],
    *args: *Ts,
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> RetT:
    """Run ``sync_fn(*args)`` on a worker of the default pool and wait for it.

    Takes the place of `trio.to_thread.run_sync`: same arguments, same cancellation. They are
    described at `dromon.Pool.run_sync`.

    The default pool is opened at first use and lasts as long as the process. It has as many workers
    as the process may use CPUs (by its affinity and its control groups' quota), or as many as the
    environment variable ``DROMON_WORKERS`` says.

    Raises:
      ValueError: ``DROMON_WORKERS`` is not a number in range.
      SpawnError: The workers could not be started, or the process has no descriptor left for this
          trio run.
      TypeError: ``sync_fn`` is not callable.
      Exception: Whatever ``sync_fn(*args)`` raises.

    Example::

        digest = await dromon.to_thread.run_sync(hash_file, path)
    """
    pool = default_pool()
    return await run_call(pool._bridge, sync_fn, args, thread_name, abandon_on_cancel, limiter)
