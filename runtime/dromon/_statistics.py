"""What can be known of a pool and its workers."""

from __future__ import annotations

import math
import os
from itertools import accumulate
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


# The bounds of the core's buckets: each one's is twice that of the one before.
_BOUNDS: Final = tuple(2 ** (bucket + 1) / 1e9 for bucket in range(lib.DROMON_HISTOGRAM_BUCKETS))


@attrs.frozen
class Histogram:
    """How long something took, counted in buckets of which each is twice as wide as the last.

    The buckets are the same for all pools and never change, so histograms can be added up, and an
    older one can be subtracted.

    Attributes:
      counts (tuple[int, ...]): How many took so long, for each bucket.
      bounds (tuple[float, ...]): The upper bound of each bucket, in seconds: the first counts what
          took less than 2 ns, and each of the others what took less than its bound, but not less
          than the one before.

    Example::

        waits = pool.statistics().queue_wait
        for bound, count in zip(waits.bounds, waits.counts):
            if count:
                print(f"{count} calls waited less than {bound:.6f} s")
    """

    counts: tuple[int, ...]
    bounds: tuple[float, ...] = attrs.field(default=_BOUNDS, repr=False)

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def quantile(self, fraction: float) -> float:
        """Return the seconds that a fraction of all took at most.

        It is the upper bound of a bucket, so it may be up to twice what it should be, and is never
        too low.

        Args:
          fraction (float): From 0 to 1; 0.5 is the median.

        Returns:
          The seconds; ``nan`` if nothing was counted.

        Raises:
          ValueError: ``fraction`` is out of range.

        Example::

            print("95 % waited less than", pool.statistics().queue_wait.quantile(0.95), "s")
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be from 0 to 1, not {fraction}")
        rank = max(1, math.ceil(fraction * self.total))
        for bound, counted in zip(self.bounds, accumulate(self.counts), strict=True):
            if counted >= rank:
                return bound
        return math.nan


@attrs.frozen
class GreenStatistics:
    """What the green threads of a pool come to, see `dromon.green`.

    Attributes:
      parked (int): Those that wait, or could go on and have not had their turn.
      stacks (int): Stacks that are kept for them: a parked one has one, but for the first of each
          worker, which is on the worker's own; and some are kept for the next ones.
      stack_space (int): Bytes of address space that these stacks, and those of which there is no
          use at the moment, are reserved in. What was never used of it takes no memory.
      parks (int): How often one has parked.
      switches (int): How often a worker went from one stack to another.
      blocks (int): How often one had to wait with its OS thread, since it could not park.
    """

    parked: int
    stacks: int
    stack_space: int
    parks: int
    switches: int
    blocks: int


@attrs.frozen
class PoolStatistics:
    """A snapshot of a pool. Each number is exact for some moment, not all for the same one.

    Attributes:
      workers (tuple[WorkerStatistics, ...]): The worker threads; empty once the pool is closed.
      retired (int): Workers that were stuck in a call and have been replaced by fresh ones.
      parked (int): Workers that sleep because there is no work.
      queued (int): Calls that no worker has started. A withdrawn one counts until a worker has come
          across it.
      running (int): Calls that a worker has started and not finished.
      completed (int): Calls that have ended, with a result or an exception.
      abandoned (int): Of the completed: those that ended when nobody waited for them any more.
      interrupted (int): Of the completed: those that were cut short by an interrupt.
      cancelled (int): Calls that were cancelled before they began and have left the queue.
      batches (int): How often a worker took the interpreter for one or more calls.
      steals (int): Calls that a worker took over from another one, which had submitted them.
      stalls (int): Calls that ran longer than the pool's ``stall_after``.
      parks (int): How often a worker went to sleep.
      wakes (int): How often one was woken by a system call.
      queue_wait (Histogram): How long the calls that have begun had waited since their submission.
      run_time (Histogram): How long the calls that have ended had run, the time that they were
          parked included.
      green (GreenStatistics): Its green threads.

    Green threads that were spawned count as calls; those that ran in the place of the wait for them
    do not.

    Example::

        before = pool.statistics()
        await do_much_work(pool)
        after = pool.statistics()
        print(after.completed - before.completed, "calls")
        print("each ran for at most", after.run_time.quantile(1), "s")
    """

    workers: tuple[WorkerStatistics, ...]
    retired: int
    parked: int
    queued: int
    running: int
    completed: int
    abandoned: int
    interrupted: int
    cancelled: int
    batches: int
    steals: int
    stalls: int
    parks: int
    wakes: int
    queue_wait: Histogram
    run_time: Histogram
    green: GreenStatistics


def read_statistics(core: Any, workers: int, pool_name: str) -> PoolStatistics:
    """Look at a core pool, of which so many workers live."""
    numbers = ffi.new("dromon_pool_statistics *")
    lib.dromon_pool_read_statistics(core, numbers)
    return PoolStatistics(
        workers=tuple(read_worker(core, index, pool_name) for index in range(workers)),
        retired=numbers.retired,
        parked=numbers.parked,
        queued=numbers.queued,
        running=numbers.running,
        completed=numbers.completed,
        abandoned=numbers.abandoned,
        interrupted=numbers.interrupted,
        cancelled=numbers.withdrawn,
        batches=numbers.batches,
        steals=numbers.steals,
        stalls=numbers.stalls,
        parks=numbers.parks,
        wakes=numbers.wakes,
        queue_wait=Histogram(tuple(numbers.queue_wait)),
        run_time=Histogram(tuple(numbers.run_time)),
        green=GreenStatistics(
            parked=numbers.fibers_parked,
            stacks=numbers.fibers,
            stack_space=numbers.fiber_bytes,
            parks=numbers.fiber_parks,
            switches=numbers.fiber_switches,
            blocks=numbers.fiber_blocks,
        ),
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
