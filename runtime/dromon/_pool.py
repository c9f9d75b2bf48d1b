"""The pool of workers: opening and closing it, calling into it, looking at it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from trio.lowlevel import checkpoint, enable_ki_protection

from . import _bridge, _call
from ._children import remember_mask
from ._errors import ClosedPoolError
from ._native import ffi, lib
from ._options import PoolOptions, check_options, default_workers, open_core
from ._port import current_port
from ._saturation import warn_saturated
from ._stalls import note_stall
from ._statistics import PoolStatistics, read_statistics, read_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    import trio

    from ._bridge import Port
    from ._stalls import Stall

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


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
    _on_stall: Callable[[int, int, float], object] | None  # kept alive for the monitor
    _on_saturated: Callable[[int, float], object]  # this, too

    @classmethod
    def _open(cls, options: PoolOptions, port: Port | None = None) -> Pool:
        """Start a pool whose stalled calls, if it watches for them, are reported to `port`."""
        remember_mask()
        pool = cls.__new__(cls)
        pool._on_stall = None
        if options.stall_after is not None and port is not None:
            pool._on_stall = pool._stall_hook(options, port)
        hook = None if pool._on_stall is None else _bridge.stall_hook(pool._on_stall)
        pool._on_saturated = pool._warn_saturated
        pool._core = open_core(
            options, _bridge.worker_table(), hook, _bridge.saturation_hook(pool._on_saturated)
        )
        pool._bridge = _bridge.Pool(int(ffi.cast("uintptr_t", pool._core)))
        pool._workers = options.workers
        pool._joined = False
        _open_pools.add(pool)
        return pool

    def _stall_hook(self, options: PoolOptions, port: Port) -> Callable[[int, int, float], object]:
        def stalled(index: int, began: int, seconds: float) -> None:
            worker = read_worker(self._core, index)

            def goes_on() -> bool:
                return bool(lib.dromon_pool_read_began(self._core, index) == began)

            note_stall(port, options.on_stall, worker.name, worker.tid, seconds, goes_on)

        return stalled

    def _warn_saturated(self, waiting: int, seconds: float) -> None:
        warn_saturated(self._bridge.waiting(), waiting, self._workers, seconds)

    @enable_ki_protection
    async def run_sync(
        self,
        sync_fn: Callable[[*Ts], RetT],
        *args: *Ts,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
        interrupt_on_cancel: bool = False,
        timeout: float | None = None,
        grace_period: float | None = None,
    ) -> RetT:
        """Run ``sync_fn(*args)`` on a worker of this pool and wait for it.

        The signature and the meaning are those of `trio.to_thread.run_sync`, and the last three
        arguments are dromon's own. ``sync_fn`` runs in a copy of the current context
        (`contextvars`). It can call back into trio by `dromon.from_thread` or `trio.from_thread`.

        Args:
          sync_fn: An arbitrary synchronous callable.
          *args: Positional arguments for it. For keyword arguments use `functools.partial`.
          thread_name (str | None): What the worker thread is called while the call runs; the OS
              sees its first 15 bytes. By default ``"{sync_fn.__name__} from {task.name}"``.
          abandon_on_cancel (bool): What cancellation does to a call that is already running, see
              below.
          limiter (trio.CapacityLimiter | None): Limits how many calls run at once: anything with
              its methods ``acquire_on_behalf_of`` and ``release_on_behalf_of``. It is released when
              the call has really ended. By default there is no limit but the number of workers.
          interrupt_on_cancel (bool): That cancellation interrupts a running call, see below.
          timeout (float | None): Seconds, from now on, in which the call has to end. If it does
              not, it is withdrawn or interrupted (or, with ``abandon_on_cancel``, abandoned) as if
              it were cancelled. A call with a timeout is interrupted by other cancellation, too.
          grace_period (float | None): Seconds that a call has to end after it was interrupted.
              Then it is interrupted a second time, and after as many seconds more it is abandoned.
              By default it is interrupted once, and waited for however long it takes.

        Returns:
          Whatever ``sync_fn(*args)`` returns.

        If the pool's queue is full, the call waits in line behind it, and this task with it.

        Raises:
          trio.TooSlowError: The ``timeout`` is over; its cause is the `Interrupted` that came out
              of the call, with a traceback that shows where it was.
          ClosedPoolError: The pool is closed.
          SpawnError: No descriptor is left for this trio run, whose first call this is.
          TypeError: ``sync_fn`` is not callable, or is an async function.
          ValueError: A number of seconds is negative, or arguments exclude each other.
          Exception: Whatever ``sync_fn(*args)`` raises, with its traceback.

        **Cancellation**: a call that no worker has started yet is withdrawn at once and never runs.
        A running one is waited for and its outcome kept; the cancellation then comes at the task's
        next checkpoint. With ``abandon_on_cancel`` this function raises `trio.Cancelled` at once
        instead, while the call goes on in the background, and its outcome is discarded. If the run
        ends before the call, the limiter is never released.

        **Interrupts**: with ``interrupt_on_cancel``, `Interrupted` is raised inside the call, at
        whatever point its Python code is. It unwinds, and its ``finally`` blocks run; when it has
        ended, `trio.Cancelled` is raised here. If the call catches the `Interrupted` and returns or
        raises something else, that is its outcome, and is kept. A call that is in a C function
        (`time.sleep`, a lock, NumPy, hashing) notices when that returns to Python code. No other
        call is ever hit. While the call waits for trio, in `dromon.from_thread.run`, the async
        function is cancelled in its place, and the interrupt comes after it. An interrupt that hits
        a ``__del__`` method or a callback of the garbage collector is printed and lost, as any
        exception there: hence the second one of a ``grace_period``.

        Example::

            async with dromon.open_pool(workers=4) as pool:
                digest = await pool.run_sync(hash_file, path)
                page = await pool.run_sync(render, template, timeout=0.5)
        """
        return await _call.run_sync(
            self._bridge,
            sync_fn,
            args,
            thread_name,
            abandon_on_cancel,
            interrupt_on_cancel,
            limiter,
            timeout,
            grace_period,
        )

    @enable_ki_protection
    async def run_native(
        self,
        fn: Any,
        arg: Any = None,
        *,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> int:
        """Call a C function ``int fn(void *arg)`` on a worker, without the GIL, and wait for it.

        Any number of native calls run in parallel, beside each other and beside Python code. The
        function must not touch Python objects unless it takes the GIL itself.

        Args:
          fn: The function: a function pointer of cffi (``ffi.addressof(lib, "work")``), a ctypes
              function, a compiled numba ``cfunc``, or an address.
          arg: What it gets: a pointer or an array of cffi; a pointer of ctypes, or the address of
              any other ctypes object; the memory of an object with a C-contiguous buffer (`bytes`,
              `bytearray`, an array of NumPy); an address; or NULL for None. It is kept alive until
              the function has ended, in whatever way the call ends.
          abandon_on_cancel (bool): As for `run_sync`.
          limiter (trio.CapacityLimiter | None): As for `run_sync`.

        Returns:
          What the function returned, 0 or more.

        Raises:
          OSError: The function returned a negative number: an errno with its sign changed.
          ClosedPoolError: The pool is closed.
          TypeError: ``fn`` or ``arg`` is nothing that has an address.
          ValueError: ``fn`` or ``arg`` is a number that is no address.

        **Cancellation** is as for `run_sync`. An abandoned function goes on; ``arg`` lives as long.

        Example::

            lib = ffi.dlopen("libwork.so")
            job = ffi.new("struct job *", {"count": 1000})
            await pool.run_native(ffi.addressof(lib, "work"), job)
        """
        return await _call.run_native(self._bridge, fn, arg, abandon_on_cancel, limiter)

    def submit(self, fn: Callable[[*Ts], RetT], /, *args: *Ts) -> Future[RetT]:
        """Queue ``fn(*args)`` from synchronous code, as `concurrent.futures.Executor.submit` does.

        From any thread. If the pool's queue is full this waits, without the GIL, until there is
        room; a worker of this pool never waits. In a trio task use `run_sync` instead: waiting here
        would hold up the loop.

        Args:
          fn (Callable): What to call, on a worker and in a copy of the current context.
          *args: Its arguments.

        Returns:
          A future. Its ``cancel`` keeps the call from running if no worker has started it.

        Raises:
          ClosedPoolError: The pool is closed.
          TypeError: ``fn`` is not callable.
          KeyboardInterrupt: While it waited; then the call was not queued.

        Example::

            futures = [pool.submit(hash_file, path) for path in paths]
        """
        return self._start(fn, args, wait=True)

    def submit_nowait(self, fn: Callable[[*Ts], RetT], /, *args: *Ts) -> Future[RetT]:
        """Queue ``fn(*args)`` as `submit` does, or raise `QueueFull` in the place of waiting.

        Raises:
          QueueFull: The queue is full; the call was not queued.
          ClosedPoolError: The pool is closed.
          TypeError: ``fn`` is not callable.

        Example::

            try:
                future = pool.submit_nowait(resize, image)
            except dromon.QueueFull:
                return "busy, come again"
        """
        return self._start(fn, args, wait=False)

    def _start(self, fn: Callable[..., RetT], args: tuple[object, ...], wait: bool) -> Future[RetT]:
        future: Future[RetT] = Future()
        _call.start_call(self._bridge, future, fn, args, wait)
        return future

    def statistics(self) -> PoolStatistics:
        """Return a `PoolStatistics`: the workers, and counts of what they did.

        Example::

            print(pool.statistics().queued, "calls wait for a worker")
        """
        return read_statistics(self._core, 0 if self._joined else self._workers)

    @enable_ki_protection
    async def _aclose(self) -> None:
        if await _call.close_pool(self._bridge):
            lib.dromon_pool_join(self._core)
            self._joined = True
            _open_pools.discard(self)


_open_pools: set[Pool] = set()


def open_pool(
    workers: int | None = None,
    *,
    queue_capacity: int | None = None,
    stack_size: int | None = None,
    guard_size: int | None = None,
    affinity: Iterable[int | Iterable[int]] | None = None,
    nice: int = 0,
    sched_policy: int | None = None,
    stall_after: float | None = None,
    on_stall: Callable[[Stall], object] | None = None,
) -> AbstractAsyncContextManager[Pool]:
    """Open a pool of workers for an ``async with`` block.

    Leaving the block refuses later calls, waits (whether cancelled or not) for the calls that were
    accepted, abandoned ones included, and ends the threads.

    Args:
      workers (int | None): How many OS threads, from 1 to 1024. By default as many as the CPUs that
          the process may use, by its affinity and its control groups' quota, or as ``affinity`` has
          entries.
      queue_capacity (int | None): How many calls may be queued before submitters have to wait, from
          1 to 1,048,576; rounded up to a power of two that is at least 2. By default 4096.
      stack_size (int | None): Bytes of each worker's stack, at least 262,144; rounded up to whole
          pages. Only what is used takes memory. By default 8 MiB.
      guard_size (int | None): Bytes without access below each stack. By default 64 KiB.
      affinity (Iterable[int | Iterable[int]] | None): For each worker the CPU, or the set of CPUs,
          that it may run on. By default those of the thread that opens the pool.
      nice (int): Added to the nice value of each worker: with 5, say, the event loop gets the CPU
          before them. Below 0 only with the right to do so. See :manpage:`nice(2)`.
      sched_policy (int | None): `os.SCHED_OTHER`, `os.SCHED_BATCH` (workers that wake up do not
          pre-empt the event loop) or `os.SCHED_IDLE`; see :manpage:`sched(7)`. By default that of
          the thread that opens the pool.
      stall_after (float | None): Seconds, from 0.001 to 1e9, after which a running call counts as
          stalled, see `PoolStatistics`, and is reported once. By default none is.
      on_stall (Callable[[Stall], object] | None): Called in the current trio run with a `Stall` for
          each stalled call, soon after. By default a warning goes to the logger ``dromon``.

    What a call changes of its worker's CPU affinity, thread name or signal mask is changed back
    before the next call; only the name that a C function of less than a microsecond gave its thread
    may stay a while. So is a change from outside, as by ``taskset``.

    Raises:
      ValueError: An argument is out of range.
      TypeError: An argument is of a wrong type.
      SpawnError: The threads could not be started, or the process has no descriptor left for this
          trio run; nothing is left behind.

    Example::

        async with dromon.open_pool(workers=4, nice=5) as pool:
            print(await pool.run_sync(sum, range(1000)))
    """
    options = check_options(
        workers,
        queue_capacity,
        stack_size,
        guard_size,
        affinity,
        nice,
        sched_policy,
        stall_after,
        on_stall,
    )
    return _open_pool(options)


@asynccontextmanager
@enable_ki_protection
async def _open_pool(options: PoolOptions) -> AsyncIterator[Pool]:
    await checkpoint()
    # First, so that closing needs no descriptor that might not be there.
    port = current_port()
    pool = Pool._open(options, port)
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
                _default_pool = Pool._open(PoolOptions(workers=default_workers()))
    return _default_pool


# ---- Forks ---------------------------------------------------------------------------------------


class _PoolOfTheParent:
    """What is left of an open pool's bridge in the child of a fork: it says so, in an error."""

    def _refuse(self, *args: object) -> NoReturn:
        raise ClosedPoolError(
            "the pool belongs to the process that forked this one; open another pool here"
        )

    call = native_call = start = _refuse

    def close(self, *args: object) -> None:
        return None


def _forget_pools() -> None:
    """In the child of a fork."""
    global _default_pool, _default_pool_lock
    _default_pool = None
    _default_pool_lock = threading.Lock()
    for pool in _open_pools:
        # For a call that is on its way to the old bridge, and for a worker that forked.
        lib.dromon_pool_forget(pool._core)
        pool._bridge = _PoolOfTheParent()
        pool._joined = True
    _open_pools.clear()


os.register_at_fork(after_in_child=_forget_pools)
