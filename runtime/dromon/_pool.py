"""The pool of workers: opening and closing it, calling into it, looking at it."""

from __future__ import annotations

import operator
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, TypeVarTuple

import attrs
from trio.lowlevel import checkpoint, enable_ki_protection

from . import _bridge
from ._call import close_pool, run_call
from ._children import remember_mask
from ._cpus import usable_cpus
from ._errors import ClosedPoolError, SpawnError
from ._native import ffi, lib
from ._port import current_port
from ._worker import worker_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    import trio

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")

WORKERS_VARIABLE: Final = "DROMON_WORKERS"


@attrs.frozen
class WorkerStatistics:
    """What is known of one worker thread.

    Attributes:
      name (str): Its name in `threading`, ``ps -L``, ``top -H`` and gdb.
      tid (int): Its kernel thread id, as in ``/proc/self/task``.
      spawn (str): How the thread was made: ``"clone3"``, or ``"pthread"`` where taking over libc's
          thread control block could not be proven safe.
      spawn_error (str | None): Why it is not a clone3 thread.
      stack_address (int): The lowest usable byte of its stack.
      stack_size (int): Usable bytes of its stack.
      guard_size (int): Inaccessible bytes below its stack.
    """

    name: str
    tid: int
    spawn: str
    spawn_error: str | None
    stack_address: int
    stack_size: int
    guard_size: int


@attrs.frozen
class PoolStatistics:
    """A snapshot of a pool. Each number is exact for some moment, not all for the same one.

    Attributes:
      workers (tuple[WorkerStatistics, ...]): The worker threads; empty once the pool is closed.
      parked (int): Workers that sleep because there is no work.
      queued (int): Calls that no worker has started. A withdrawn one counts until a worker has come
          across it.
      running (int): Calls that a worker has started and not finished.
      completed (int): Calls that have ended, with a result or an exception; abandoned ones too.
      withdrawn (int): Calls that were cancelled before they began and have left the queue.
      batches (int): How often a worker took the interpreter for one or more calls.
      parks (int): How often a worker went to sleep.
      wakes (int): How often one was woken by a system call.
    """

    workers: tuple[WorkerStatistics, ...]
    parked: int
    queued: int
    running: int
    completed: int
    withdrawn: int
    batches: int
    parks: int
    wakes: int


class Pool:
    """A fixed number of OS threads that run synchronous callables for async tasks.

    Made by `open_pool`. A pool can be used from any number of trio runs, one after the other or in
    several threads at once.
    """

    def __init__(self) -> None:
        raise TypeError("a Pool is made by dromon.open_pool()")

    _core: Any  # cffi's dromon_pool *
    _bridge: Any  # _bridge.Pool, or _PoolOfTheParent after a fork
    _workers: int
    _joined: bool

    @classmethod
    def _open(cls, workers: int) -> Pool:
        remember_mask()
        pool = cls.__new__(cls)
        pool._core = _open_core(workers)
        pool._bridge = _bridge.Pool(int(ffi.cast("uintptr_t", pool._core)))
        pool._workers = workers
        pool._joined = False
        _open_pools.add(pool)
        return pool

    @enable_ki_protection
    async def run_sync(
        self,
        sync_fn: Callable[[*Ts], RetT],
        *args: *Ts,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> RetT:
        """Run ``sync_fn(*args)`` on a worker of this pool and wait for it.

        The signature and the meaning are those of `trio.to_thread.run_sync`. ``sync_fn`` runs in a
        copy of the current context (`contextvars`).

        Args:
          sync_fn: An arbitrary synchronous callable.
          *args: Positional arguments for it. For keyword arguments use `functools.partial`.
          thread_name (str | None): A name for the worker thread while the call runs; the OS sees
              its first 15 bytes. By default the worker keeps its own.
          abandon_on_cancel (bool): What cancellation does to a call that is already running, see
              below.
          limiter (trio.CapacityLimiter | None): Limits how many calls run at once: anything with
              its methods ``acquire_on_behalf_of`` and ``release_on_behalf_of``. It is released when
              the call has really ended. By default there is no limit but the number of workers.

        Returns:
          Whatever ``sync_fn(*args)`` returns.

        Raises:
          ClosedPoolError: The pool is closed.
          SpawnError: No descriptor is left for this trio run, whose first call this is.
          TypeError: ``sync_fn`` is not callable.
          Exception: Whatever ``sync_fn(*args)`` raises, with its traceback.

        **Cancellation**: a call that no worker has started yet is withdrawn at once and never runs.
        A running one is waited for and its outcome kept; the cancellation then comes at the task's
        next checkpoint. With ``abandon_on_cancel`` this function raises `trio.Cancelled` at once
        instead, while the call goes on in the background, and its outcome is discarded. If the run
        ends before the call, the limiter is never released.

        Example::

            async with dromon.open_pool(workers=4) as pool:
                digest = await pool.run_sync(hash_file, path)
        """
        return await run_call(self._bridge, sync_fn, args, thread_name, abandon_on_cancel, limiter)

    def statistics(self) -> PoolStatistics:
        """Return a `PoolStatistics`: the workers, and counts of what they did."""
        numbers = ffi.new("dromon_pool_statistics *")
        lib.dromon_pool_read_statistics(self._core, numbers)
        living = 0 if self._joined else self._workers
        return PoolStatistics(
            workers=tuple(self._worker_statistics(index) for index in range(living)),
            parked=numbers.parked,
            queued=numbers.queued,
            running=numbers.running,
            completed=numbers.completed,
            withdrawn=numbers.withdrawn,
            batches=numbers.batches,
            parks=numbers.parks,
            wakes=numbers.wakes,
        )

    def _worker_statistics(self, index: int) -> WorkerStatistics:
        worker = ffi.new("dromon_worker *")
        lib.dromon_pool_read_worker(self._core, index, worker)
        return WorkerStatistics(
            name=worker_name(index),
            tid=worker.tid,
            spawn="clone3" if worker.spawn == lib.DROMON_SPAWN_CLONE3 else "pthread",
            spawn_error=os.strerror(-worker.spawn_error) if worker.spawn_error else None,
            stack_address=worker.stack_low,
            stack_size=worker.stack_size,
            guard_size=worker.guard_size,
        )

    @enable_ki_protection
    async def _aclose(self) -> None:
        if await close_pool(self._bridge):
            lib.dromon_pool_join(self._core)
            self._joined = True
            _open_pools.discard(self)


_open_pools: set[Pool] = set()


def _open_core(workers: int) -> Any:
    """Start the workers, and return the core pool that they belong to, as a counted pointer."""
    ops, ops_arg = _bridge.worker_table()
    config = ffi.new(
        "dromon_pool_config *",
        {
            "workers": workers,
            "ops": ffi.cast("dromon_ops *", ops),
            "ops_arg": ffi.cast("void *", ops_arg),
        },
    )
    core = ffi.new("dromon_pool **")
    result = lib.dromon_pool_open(config, core)
    if result < 0:
        raise SpawnError.from_errno(-result, f"cannot start {workers} workers")
    return ffi.gc(core[0], lib.dromon_pool_unref)


def check_workers(workers: int | None) -> int:
    """Return how many workers to start: `usable_cpus` for None."""
    if workers is None:
        return usable_cpus()
    try:
        count = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers must be an integer or None, not {workers!r}") from None
    if not 1 <= count <= lib.DROMON_WORKERS_MAX:
        raise ValueError(f"workers must be from 1 to {lib.DROMON_WORKERS_MAX}, not {count}")
    return count


def open_pool(workers: int | None = None) -> AbstractAsyncContextManager[Pool]:
    """Open a pool of workers for an ``async with`` block.

    Leaving the block refuses later calls, waits (whether cancelled or not) for the calls that were
    accepted, abandoned ones included, and ends the threads.

    Args:
      workers (int | None): How many OS threads, from 1 to 1024. By default as many as the CPUs that
          the process may use, by its affinity and its control groups' quota.

    Raises:
      ValueError: ``workers`` is out of range.
      TypeError: ``workers`` is not an integer.
      SpawnError: The threads could not be started, or the process has no descriptor left for this
          trio run; nothing is left behind.

    Example::

        async with dromon.open_pool(workers=4) as pool:
            print(await pool.run_sync(sum, range(1000)))
    """
    return _open_pool(check_workers(workers))


@asynccontextmanager
@enable_ki_protection
async def _open_pool(workers: int) -> AsyncIterator[Pool]:
    await checkpoint()
    # First, so that closing needs no descriptor that might not be there.
    current_port()
    pool = Pool._open(workers)
    try:
        yield pool
    finally:
        await pool._aclose()


# ---- The default pool ----------------------------------------------------------------------------

_default_pool: Pool | None = None
_default_pool_lock = threading.Lock()


def default_pool() -> Pool:
    """The pool of `dromon.to_thread`, opened at first use; it lasts as long as the process."""
    global _default_pool
    if _default_pool is None:
        with _default_pool_lock:
            if _default_pool is None:
                _default_pool = Pool._open(_default_workers())
    return _default_pool


def _default_workers() -> int:
    text = os.environ.get(WORKERS_VARIABLE)
    if text is None:
        return check_workers(None)
    try:
        return check_workers(int(text))
    except ValueError:
        raise ValueError(
            f"{WORKERS_VARIABLE} must be a number from 1 to {lib.DROMON_WORKERS_MAX}, not {text!r}"
        ) from None


# ---- Forks ---------------------------------------------------------------------------------------


def _forget_pools() -> None:
    """In the child of a fork: its parent's workers do not exist here."""
    global _default_pool, _default_pool_lock
    _default_pool = None
    _default_pool_lock = threading.Lock()
    for pool in _open_pools:
        lib.dromon_pool_close(pool._core, ffi.NULL)
        pool._bridge = _PoolOfTheParent()
        pool._joined = True
    _open_pools.clear()


class _PoolOfTheParent:
    """What is left of an open pool's bridge in the child of a fork: it says so, in an error."""

    def submit(self, *args: object) -> NoReturn:
        raise ClosedPoolError(
            "the pool belongs to the process that forked this one; open another pool here"
        )

    def close(self, *args: object) -> None:
        return None


os.register_at_fork(after_in_child=_forget_pools)
