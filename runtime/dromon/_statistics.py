"""What can be known of a pool and its workers."""

from __future__ import annotations

import os
from typing import Any, Final

import attrs

from ._native import ffi, lib
from ._worker import worker_name

_SPAWN_NAMES: Final = {
    lib.DROMON_SPAWN_CLONE3: "clone3",
    lib.DROMON_SPAWN_CLONE: "clone",
    lib.DROMON_SPAWN_PTHREAD: "pthread",
}


@attrs.frozen
class WorkerStatistics:
    """What is known of one worker thread.

    Attributes:
      name (str): Its name in `threading`, ``ps -L``, ``top -H`` and gdb.
      tid (int): Its kernel thread id, as in ``/proc/self/task``.
      spawn (str): How the thread was made: ``"clone3"``; ``"clone"``, the older system call, where
          a sandbox or the kernel has no clone3; or ``"pthread"`` where taking over libc's thread
          control block could not be proven safe.
      spawn_error (str | None): Why it is not a clone3 thread.
      stack_address (int): The lowest usable byte of its stack.
      stack_size (int): Usable bytes of its stack.
      stack_used (int): The bytes of its stack that were ever used, by whole pages. Too few if the
          system has swapped out the lowest ones.
      guard_size (int): Inaccessible bytes below its stack.
    """

    name: str
    tid: int
    spawn: str
    spawn_error: str | None
    stack_address: int
    stack_size: int
    stack_used: int
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
      steals (int): Calls that a worker took over from another one, which had submitted them.
      stalls (int): Calls that ran longer than the pool's ``stall_after``.
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
    steals: int
    stalls: int
    parks: int
    wakes: int


def read_statistics(core: Any, workers: int, pool_name: str) -> PoolStatistics:
    """Look at a core pool, of which so many workers live."""
    numbers = ffi.new("dromon_pool_statistics *")
    lib.dromon_pool_read_statistics(core, numbers)
    return PoolStatistics(
        workers=tuple(read_worker(core, index, pool_name) for index in range(workers)),
        parked=numbers.parked,
        queued=numbers.queued,
        running=numbers.running,
        completed=numbers.completed,
        withdrawn=numbers.withdrawn,
        batches=numbers.batches,
        steals=numbers.steals,
        stalls=numbers.stalls,
        parks=numbers.parks,
        wakes=numbers.wakes,
    )


def read_worker(core: Any, index: int, pool_name: str) -> WorkerStatistics:
    """Look at one living worker of a core pool."""
    worker = ffi.new("dromon_worker *")
    lib.dromon_pool_read_worker(core, index, worker)
    return WorkerStatistics(
        name=worker_name(pool_name, index),
        tid=worker.tid,
        spawn=_SPAWN_NAMES[worker.spawn],
        spawn_error=os.strerror(-worker.spawn_error) if worker.spawn_error else None,
        stack_address=worker.stack_low,
        stack_size=worker.stack_size,
        stack_used=worker.stack_used,
        guard_size=worker.guard_size,
    )
