"""The pool of workers: opening and closing it, calling into it, looking at it."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, overload
from weakref import WeakSet

import attrs
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection, in_trio_run

from . import _bridge, _call
from ._bridge import BLOCK, REFUSE
from ._children import remember_mask
from ._cpus import usable_cpus
from ._errors import ClosedPoolError, SpawnError
from ._isolation import await_delivery, choose_isolation, delivery_port, isolated_table
from ._map import Order
from ._native import ffi, lib
from ._open_map import map_all, open_map
from ._options import (
    PoolOptions,
    environment_workers,
    is_debugging,
    open_core,
    takes_options,
)
from ._port import current_port
from ._saturation import SaturationHook
from ._stalls import StallHook
from ._statistics import PoolStatistics, read_statistics
from ._stuck import StuckHook
from ._trio_run import current_run
from ._worker import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import NoReturn, Self

    import outcome

    from ._bridge import Port
    from ._map import Progress
    from ._open_map import MapResults

RetT = TypeVar("RetT")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Pool:
    """A fixed number of OS threads that run synchronous callables.

    The constructor starts the threads. A pool is closed by leaving its ``with`` block, or by
    `close`; in a trio task use `open_pool` instead, which takes the same arguments. It can be used
    from any threads, and from any number of trio runs, one after the other or several at once.

    Args:
      workers (int | None): How many OS threads, from 1 to 1024. By default as many as the CPUs that
          the process may use, by its affinity and its control groups' quota, or as ``affinity`` has
          entries.
      name (str): What the names of the threads begin with: worker *n* is ``{name}-{n}``. Printable
          characters. In what the system shows, 15 bytes, the name is cut and not the number.
      queue_capacity (int | None): How many calls may be queued before submitters have to wait, from
          1 to 1,048,576; rounded up to a power of two that is at least 2. By default 4096.
      stack_size (int | None): Bytes of each worker's stack, at least 262,144; rounded up to whole
          pages. Only what is used takes memory. By default 8 MiB.
      guard_size (int | None): Bytes without access below each stack. By default 64 KiB.
      initializer (Callable[[], object] | None): Called once on each worker before its first call,
          and once on each further green thread (`dromon.green`), but in an isolated worker once
          only. What it sets of context variables the calls do not see, which run in the contexts
          of their submitters; thread-locals they do, but in an isolated worker.
      affinity (Iterable[int | Iterable[int]] | None): For each worker the CPU, or the set of CPUs,
          that it may run on. By default those of the thread that opens the pool.
      nice (int): Added to the nice value of each worker: with 5, say, the event loop gets the CPU
          before them. Below 0 only with the right to do so. See :manpage:`nice(2)`.
      sched_policy (int | None): `os.SCHED_OTHER`, `os.SCHED_BATCH` (workers that wake up do not
          pre-empt the event loop) or `os.SCHED_IDLE`; see :manpage:`sched(7)`. By default that of
          the thread that opens the pool.
      stall_after (float | None): Seconds, from 0.001 to 1e9, after which a running call counts as
          stalled, see `PoolStatistics`, and is reported once. By default none is.
      on_stall (Callable[[Stall], object] | None): Called with a `Stall` for each stalled call, soon
          after: in the trio run that opened the pool if `open_pool` did, else on a thread of the
          pool that exists for this alone, where it must not take long. By default a warning goes
          to the logger ``dromon``.
      isolation (str): ``"thread"``: calls run on threads of this interpreter, and take turns for
          its GIL. ``"interpreter"``: each worker has an interpreter with a GIL of its own, so that
          pure Python runs in parallel, see below; on Python 3.12 and later. ``"auto"``:
          interpreters on a Python with a GIL, if it has them, and threads on a free-threaded one.
      max_tasks_per_worker (int | None): After how many calls a worker empties its interpreter: then
          all modules are imported anew, and ``initializer`` is called again. By default it never
          does. For interpreters.
      context_vars (Iterable[ContextVar]): Context variables whose values travel with each call that
          is made while they have one. For interpreters: threads see all.

    What a call or the initializer changes of its worker's CPU affinity, thread name or signal mask
    is changed back before the next call; only the name that a C function of less than a microsecond
    gave its thread may stay a while. So is a change from outside, as by ``taskset``.

    **Interpreters**: what a call needs, and its outcome, travel between interpreters as copies.
    Functions are found by module and name, in modules that the worker imports for itself; lambdas,
    closures and functions of ``__main__`` are sent by value, with what they use, and once as long
    as that is the same. None, numbers, strings, bytes and tuples of them travel fast, and all else
    by :mod:`pickle`. A `memoryview` is a `memoryview` on the same memory, read-only unless
    `dromon.writable` shared it; as long as the call, or what it keeps, has it, the memory cannot be
    resized. Exceptions keep their traceback; those that cannot travel arrive as `RemoteError`.
    Extension modules that were not made for such interpreters, NumPy for one, cannot be imported
    there: `IsolationError` says which, and `dromon.explain` tells beforehand. The interpreters are
    made in the background when the pool opens (with an ``initializer`` opening waits for them), and
    are emptied and kept for later pools when it closes.

    A pool that is dropped without being closed is told of by a `ResourceWarning`, and its threads
    end when they have run what was queued. At the end of the process they end at once.

    Raises:
      ValueError: An argument is out of range.
      TypeError: An argument is of a wrong type.
      SpawnError: The threads could not be started; nothing is left behind.
      IsolationError: This Python has no interpreters with a GIL of their own.
      BaseException: What ``initializer`` raised; nothing is left behind.

    Example::

        with dromon.Pool(workers=4, nice=5) as pool:
            digests = [future.result() for future in [pool.submit(hash_file, p) for p in paths]]
    """

    _options: PoolOptions
    _core: Any  # cffi's dromon_pool *
    _bridge: Any  # _bridge.Pool, or _PoolOfTheParent after a fork
    _workers: int
    _ended: threading.Event  # all accepted calls have
    _joining: threading.Lock
    _joined: bool = True  # or never started
    _table: object  # kept alive for workers that are still to enter
    _on_stall: StallHook | None  # kept alive for the monitor
    _on_saturated: SaturationHook | None  # this, too
    _on_stuck: StuckHook | None  # and this

    @takes_options
    def __init__(self, options: PoolOptions) -> None:
        self._start_workers(options, None)

    @classmethod
    def _open(cls, options: PoolOptions, port: Port | None = None) -> Pool:
        """Start a pool whose stalled calls, if it watches for them, are reported to `port`."""
        pool = cls.__new__(cls)
        pool._start_workers(options, port)
        return pool

    def _start_workers(self, options: PoolOptions, port: Port | None) -> None:
        join_dropped_pools()
        remember_mask()
        self._options = options
        self._workers = options.workers or usable_cpus()
        self._ended = threading.Event()
        self._joining = threading.Lock()
        self._on_stall = hook = None
        if options.stall_after is not None:
            self._on_stall = StallHook(options.name, options.on_stall, port)
            hook = _bridge.stall_hook(self._on_stall)
        self._on_saturated = saturation_hook = None
        if options.warns_of_saturation:
            self._on_saturated = SaturationHook(options.name, self._workers)
            saturation_hook = _bridge.saturation_hook(self._on_saturated)
        self._on_stuck = stuck_hook = None
        if is_debugging():
            self._on_stuck = StuckHook(options.name)
            stuck_hook = _bridge.stall_hook(self._on_stuck)
        entry = Entry(options.name, None if self._is_isolated else options.initializer)
        table = isolated_table(entry, options) if self._is_isolated else _bridge.worker_table(entry)
        error: BaseException | None = None
        try:
            self._core = open_core(
                options,
                self._workers,
                table,
                hook,
                saturation_hook,
                stuck_hook,
            )
        except SpawnError:
            error = entry.take_error()
            if error is None:
                raise
        if error is not None:
            try:
                raise error  # here, where nothing else is its context
            finally:
                del error  # whose traceback leads to this frame
        if self._on_stall is not None:
            self._on_stall.core = self._core
        if self._on_stuck is not None:
            self._on_stuck.core = self._core
        address = int(ffi.cast("uintptr_t", self._core))
        if self._is_isolated:
            self._bridge = _bridge.Pool(address, delivery_port(), options.context_vars)
        else:
            self._bridge = _bridge.Pool(address)
        self._table = table
        if self._on_saturated is not None:
            self._on_saturated.bridge = self._bridge
        self._joined = False
        _open_pools.add(self)

    def __enter__(self) -> Self:
        self._refuse_trio()
        if self._joined:
            raise ClosedPoolError("the pool is closed")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._joined or is_finalizing():  # when this module has no names any more
            return
        self._end()
        needed = (self._table, self._on_stall, self._on_saturated, self._on_stuck)
        _dropped_pools.append(_DroppedPool(self._core, self._ended, needed))
        warnings.warn(
            f"unclosed dromon pool {self._options.name!r}",
            ResourceWarning,
            source=self,
            stacklevel=1,
        )

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
          RuntimeError: This is not a trio task.
          ValueError: A number of seconds is negative, or arguments exclude each other.
          Exception: Whatever ``sync_fn(*args)`` raises, with its traceback.

        **Cancellation**: a call that no worker has started yet is withdrawn at once and never runs.
        A running one is waited for and its outcome kept; the cancellation then comes at the task's
        next checkpoint. Inside the call `dromon.green.Cancelled` is raised where it waits by
        `dromon.green`, now or later. With ``abandon_on_cancel`` this function raises
        `trio.Cancelled` at once instead, while the call goes on in the background, and its outcome
        is discarded; where it waits by `dromon.green` it is cancelled when the pool is closed. If
        the run ends before the call, the limiter is never released.

        **Interrupts**: with ``interrupt_on_cancel``, `Interrupted` is raised inside the call, at
        whatever point its Python code is. It unwinds, and its ``finally`` blocks run; when it has
        ended, `trio.Cancelled` is raised here. If the call catches the `Interrupted` and returns or
        raises something else, that is its outcome, and is kept. A call that is in a C function
        (`time.sleep`, a lock, NumPy, hashing) notices when that returns to Python code. No other
        call is ever hit. While the call waits for trio, in `dromon.from_thread.run`, the async
        function is cancelled in its place, and the interrupt comes after it. An interrupt that hits
        a ``__del__`` method or a callback of the garbage collector is printed and lost, as any
        exception there: hence the second one of a ``grace_period``. A call that runs an event loop
        of its own (`trio.run`, `asyncio.run`) is torn out of the middle of that, and the loop may
        well complain; let such a call end by `dromon.from_thread.check_cancelled`.

        CPython raises exceptions from outside, KeyboardInterrupt as well, past a ``try`` whose body
        is nothing but a loop, so that its ``finally`` does not run: up to 3.12 ``while True: pass``
        (gh-108214), in 3.13 ``while condition: ...`` (gh-130279).

        Example::

            async with dromon.open_pool(workers=4) as pool:
                digest = await pool.run_sync(hash_file, path)
                page = await pool.run_sync(render, template, timeout=0.5)
        """
        try:
            await checkpoint_if_cancelled()
        except RuntimeError:
            _call.refuse_outside_trio("run_sync")
            raise
        return await _call.run_sync(
            current_run(),
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
          RuntimeError: This is not a trio task.

        **Cancellation** is as for `run_sync`. An abandoned function goes on; ``arg`` lives as long.

        Example::

            lib = ffi.dlopen("libwork.so")
            job = ffi.new("struct job *", {"count": 1000})
            await pool.run_native(ffi.addressof(lib, "work"), job)
        """
        try:
            await checkpoint_if_cancelled()
        except RuntimeError:
            _call.refuse_outside_trio("run_native")
            raise
        return await _call.run_native(
            current_run(), self._bridge, fn, arg, abandon_on_cancel, limiter
        )

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
          TypeError: ``fn`` is not callable, or asynchronous.
          KeyboardInterrupt: While it waited; then the call was not queued.

        Example::

            futures = [pool.submit(hash_file, path) for path in paths]
        """
        return _call.start_call(self._bridge, fn, args, BLOCK)

    def submit_nowait(self, fn: Callable[[*Ts], RetT], /, *args: *Ts) -> Future[RetT]:
        """Queue ``fn(*args)`` as `submit` does, or raise `QueueFull` in the place of waiting.

        Raises:
          QueueFull: The queue is full; the call was not queued.
          ClosedPoolError: The pool is closed.
          TypeError: ``fn`` is not callable, or asynchronous.

        Example::

            try:
                future = pool.submit_nowait(resize, image)
            except dromon.QueueFull:
                return "busy, come again"
        """
        return _call.start_call(self._bridge, fn, args, REFUSE)

    async def map(
        self,
        fn: Callable[[T], RetT],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        chunksize: int | Literal["auto"] = "auto",
        max_in_flight: int | None = None,
        progress: Progress | bool | None = None,
    ) -> list[RetT]:
        """Call ``fn(item)`` on the workers for each item, and return the list of the results.

        What is said of `open_map` holds here, too; ``max_in_flight`` bounds the items that have
        been read and have not ended.

        Args:
          fn: A synchronous callable.
          iterable: The items, sync or async.
          chunksize (int | str): As for `open_map`.
          max_in_flight (int | None): As for `open_map`.
          progress (Callable | bool | None): As for `open_map`.

        Returns:
          The results, in the order of the items.

        Raises:
          ExceptionGroup: An item, the iterable or ``progress`` has failed, see `open_map`.
          ClosedPoolError: The pool is closed.
          TypeError: An argument is of a wrong type.
          ValueError: An argument is out of range.

        **Cancellation** withdraws what no worker has started and waits for the items that run. This
        is a checkpoint, and another one for each chunk.

        Example::

            sizes = await pool.map(os.path.getsize, paths)
        """
        return await map_all(
            open_map(
                self,
                fn,
                iterable,
                max_in_flight=max_in_flight,
                order=Order.ALL_AT_THE_END,
                chunksize=chunksize,
                progress=progress,
            )
        )

    async def starmap(
        self,
        fn: Callable[[*Ts], RetT],
        iterable: Iterable[tuple[*Ts]] | AsyncIterable[tuple[*Ts]],
        *,
        chunksize: int | Literal["auto"] = "auto",
        max_in_flight: int | None = None,
        progress: Progress | bool | None = None,
    ) -> list[RetT]:
        """Call ``fn(*item)`` on the workers for each item; all else is as for `map`.

        Example::

            scaled = await pool.starmap(scale, [(image, 2), (image, 4)])
        """
        return await map_all(
            open_map(
                self,
                fn,
                iterable,
                max_in_flight=max_in_flight,
                order=Order.ALL_AT_THE_END,
                chunksize=chunksize,
                progress=progress,
                star=True,
            )
        )

    @overload
    def open_map(
        self,
        fn: Callable[[T], RetT],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        max_in_flight: int | None = None,
        ordered: bool = True,
        chunksize: int | Literal["auto"] = "auto",
        progress: Progress | bool | None = None,
        return_outcomes: Literal[False] = False,
    ) -> AbstractAsyncContextManager[MapResults[RetT]]: ...

    @overload
    def open_map(
        self,
        fn: Callable[[T], RetT],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        max_in_flight: int | None = None,
        ordered: bool = True,
        chunksize: int | Literal["auto"] = "auto",
        progress: Progress | bool | None = None,
        return_outcomes: Literal[True],
    ) -> AbstractAsyncContextManager[MapResults[outcome.Outcome[RetT]]]: ...

    def open_map(
        self,
        fn: Callable[[T], RetT],
        iterable: Iterable[T] | AsyncIterable[T],
        *,
        max_in_flight: int | None = None,
        ordered: bool = True,
        chunksize: int | Literal["auto"] = "auto",
        progress: Progress | bool | None = None,
        return_outcomes: bool = False,
    ) -> AbstractAsyncContextManager[MapResults[Any]]:
        """Call ``fn(item)`` on the workers for each item, in an ``async with`` block that takes the
        results as they come.

        Items are read from the iterable as the results are taken, and go to the workers in chunks.
        Each is called in a fresh copy of the context that is current here (`contextvars`).

        Args:
          fn: A synchronous callable. For more arguments use `functools.partial`; an item that is a
              tuple of arguments takes ``lambda item: fn(*item)``.
          iterable: The items, sync or async. It is read in the trio thread, by a task of its own.
              An async iterable is not closed; the ``async with`` block of its owner is around this
              one (`contextlib.aclosing`). If the block is left while the next item is waited for,
              `trio.Cancelled` is raised there.
          max_in_flight (int | None): How many items at most have been read and their results not
              been taken. So a consumer that is slower than the workers holds up the reading, and
              if ``ordered``, an item that takes long does, too. By default the items of four chunks
              for each worker.
          ordered (bool): Whether the results come in the order of the items; else as they are
              there.
          chunksize (int | str): How many items a worker gets at once. ``"auto"`` begins with one
              and follows the time that the items take, so that a chunk takes 5 milliseconds: at
              most 512, and at most so many that ``max_in_flight`` holds two chunks for each worker.
              A chunk that proves too long is divided. With a number all chunks have that size, but
              the last, and those of an async iterable that does not give items fast enough.
          progress (Callable | bool | None): Called as ``progress(done, total)`` in the trio thread,
              at most once for each chunk that has ended: how many items are done, and how many
              there are, by `len`, or None. True shows a progress bar on stderr, if that is a
              terminal.
          return_outcomes (bool): Whether each result is an `outcome.Value` or an `outcome.Error`.
              An item that fails is then a result like others.

        Returns:
          An async context manager whose value is the `MapResults`, an async iterator.

        Raises:
          ClosedPoolError: The pool is closed.
          SpawnError: No descriptor is left for this trio run; from entering the block.
          TypeError: An argument is of a wrong type, or a function is asynchronous.
          ValueError: An argument is out of range.

        **Failures** end the map: what leaves the block is an `ExceptionGroup`, as it would be from
        a nursery. It has the exceptions of the items that failed, of the iterable and of
        ``progress``; a note (``__notes__``) of each says which of these it was, and the index of
        the item. It has the exception that left the block, too, if one did.

        **Cancellation**, a failure, and leaving the block in any other way end the map as they end
        a call of `run_sync`: items that no worker has started never run, and those that run are
        waited for; a chunk ends before its next item.

        **Checkpoints**: entering and leaving the block, and taking the first result of each chunk.
        The results of the same chunk follow without one.

        To the pool a chunk is one call: in its statistics, for ``stall_after``, and when what a
        call changed of its worker is changed back. No task waits for an item alone, so
        `dromon.from_thread.run` runs in a system task there; `dromon.from_thread.check_cancelled`
        looks at the map.

        Example::

            async with pool.open_map(thumbnail, paths, ordered=False) as thumbnails:
                async for image in thumbnails:
                    await upload(image)
        """
        return open_map(
            self,
            fn,
            iterable,
            max_in_flight=max_in_flight,
            order=Order.AS_THE_ITEMS if ordered else Order.AS_THEY_FINISH,
            chunksize=chunksize,
            progress=progress,
            return_outcomes=return_outcomes,
        )

    def statistics(self) -> PoolStatistics:
        """Return a `PoolStatistics`: the workers, and counts of what they did.

        Example::

            print(pool.statistics().queued, "calls wait for a worker")
        """
        return read_statistics(self._core, 0 if self._joined else self._workers, self._options.name)

    def close(self) -> None:
        """Refuse later calls, wait until all accepted ones have ended, and end the threads.

        Calls that wait by `dromon.green` are waited for as others are. Those that were abandoned
        get `~dromon.green.Cancelled` there.

        A pool that is closed already is left as it is; one that is being closed is waited for.
        Ctrl-C in the main thread ends the wait; the pool then remains closed to new calls.

        Raises:
          RuntimeError: This is a trio task, whose loop would stand still, for ever if a call waits
              for it; or a worker of the pool, which would wait for itself. In a trio task use
              `open_pool`, or ``await trio.to_thread.run_sync(pool.close)``.

        Example::

            pool = dromon.Pool(workers=4)
            atexit.register(pool.close)
        """
        if self._joined:
            return
        self._refuse_trio()
        self._close()

    def _close(self) -> None:
        if any(worker.tid == threading.get_native_id() for worker in self.statistics().workers):
            raise RuntimeError("a worker cannot close its own pool: it would wait for itself")
        self._end()
        self._ended.wait()
        self._join()
        if self._is_isolated:
            await_delivery()

    @property
    def _is_isolated(self) -> bool:
        return self._options.isolation == "interpreter"

    def _end(self) -> None:
        """Refuse later calls, and let the threads end when all accepted ones have ended."""
        self._bridge.end(self._ended.set)

    def _refuse_trio(self) -> None:
        if in_trio_run():
            raise RuntimeError(
                "closing a pool waits, and a trio task must not: use `async with"
                " dromon.open_pool()`, or `await trio.to_thread.run_sync(pool.close)`"
            )

    @enable_ki_protection
    async def _aclose(self) -> None:
        if self._joined:
            return
        if await _call.close_pool(self._bridge, self._ended.set):
            self._join()
            if self._is_isolated:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(await_delivery)
        else:  # another thread was first, and waits
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.close)

    def _join(self) -> None:
        """Wait for the threads, of which all are about to end."""
        with self._joining:
            if self._joined:
                return
            try:
                lib.dromon_pool_join(self._core)
            finally:  # Ctrl-C meanwhile is raised here, and they must not be joined again
                self._joined = True
                _open_pools.discard(self)


_open_pools: WeakSet[Pool] = WeakSet()


@attrs.frozen(eq=False)
class _DroppedPool:
    """What is left of a pool that was dropped unclosed, until its threads can be joined."""

    core: Any
    ended: threading.Event
    needed: tuple[object, ...]  # by its threads, still


_dropped_pools: list[_DroppedPool] = []


def join_dropped_pools() -> None:
    """Free what is left of dropped pools whose threads have ended."""
    for pool in _dropped_pools.copy():
        if pool.ended.is_set():
            with suppress(ValueError):  # another thread was faster
                _dropped_pools.remove(pool)
                lib.dromon_pool_join(pool.core)


@takes_options
def open_pool(options: PoolOptions) -> AbstractAsyncContextManager[Pool]:
    """Open a pool of workers for an ``async with`` block in a trio task.

    Leaving the block refuses later calls, waits (whether cancelled or not) for the calls that were
    accepted, abandoned ones included, and ends the threads. Abandoned calls that wait by
    `dromon.green` get `~dromon.green.Cancelled` there.

    The arguments are those of `Pool`, which describes them, and so are the errors. ``on_stall`` is
    called in the current trio run.

    Raises:
      RuntimeError: This is not a trio task.
      SpawnError: Also if the process has no descriptor left for this trio run.

    Example::

        async with dromon.open_pool(workers=4, nice=5) as pool:
            print(await pool.run_sync(sum, range(1000)))
    """
    return _open_pool(options)


@asynccontextmanager
@enable_ki_protection
async def _open_pool(options: PoolOptions) -> AsyncIterator[Pool]:
    try:
        await checkpoint_if_cancelled()
    except RuntimeError:
        _call.refuse_outside_trio("open_pool")
        raise
    await checkpoint()
    # First, so that closing needs no descriptor that might not be there.
    port = current_port()
    pool = Pool._open(options, port)
    try:
        yield pool
    finally:
        await pool._aclose()


# ---- The default pool ----------------------------------------------------------------------------


@attrs.define(eq=False)
class DefaultPool:
    """The pool of calls that name none: opened at first use, it lasts as long as the process."""

    kind: str
    options: PoolOptions
    pool: Pool | None = None
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def get(self) -> Pool:
        if self.pool is None:
            with self.lock:
                if self.pool is None:
                    choose_isolation(self.options.isolation)
                    workers = self.options.workers or environment_workers()
                    self.pool = Pool._open(attrs.evolve(self.options, workers=workers))
        return self.pool

    def configure(self, options: PoolOptions) -> None:
        with self.lock:
            if self.pool is not None:
                raise RuntimeError(
                    "the default pool has been opened: configure it before the first call of"
                    f" dromon.to_{self.kind}.run_sync"
                )
            self.options = options

    def forget_parent(self) -> None:
        self.pool = None
        self.lock = threading.Lock()


thread_pool = DefaultPool("thread", PoolOptions())
interpreter_pool = DefaultPool("interpreter", PoolOptions(isolation="interpreter"))


@takes_options
def configure_default_pool(options: PoolOptions) -> None:
    """Say how a default pool shall be opened, before its first use.

    That of `dromon.to_thread` or, with ``isolation="interpreter"``, that of
    `dromon.to_interpreter`. The arguments are those of `Pool`, which describes them. Where neither
    ``workers`` nor ``affinity`` says how many workers there are, ``DROMON_WORKERS`` does. What was
    configured before is replaced. In the child of a fork, which opens a default pool of its own, it
    holds again.

    Raises:
      RuntimeError: The default pool has been opened.
      ValueError: An argument is out of range.
      TypeError: An argument is of a wrong type.

    Example::

        dromon.configure_default_pool(name="hashing", nice=5)
        trio.run(main)
    """
    (interpreter_pool if options.isolation == "interpreter" else thread_pool).configure(options)


# ---- Forks ---------------------------------------------------------------------------------------


class _PoolOfTheParent:
    """What is left of an open pool's bridge in the child of a fork: it says so, in an error."""

    def _refuse(self, *args: object) -> NoReturn:
        raise ClosedPoolError(
            "the pool belongs to the process that forked this one; open another pool here"
        )

    call = native_call = future = _refuse
    closed = property(_refuse)


def _forget_pools() -> None:
    """In the child of a fork."""
    thread_pool.forget_parent()
    interpreter_pool.forget_parent()
    for pool in _open_pools:
        # For a call that is on its way to the old bridge, and for a worker that forked.
        lib.dromon_pool_forget(pool._core)
        pool._bridge = _PoolOfTheParent()
        pool._joined = True
    _open_pools.clear()
    for dropped in _dropped_pools:
        lib.dromon_pool_forget(dropped.core)
    _dropped_pools.clear()


os.register_at_fork(after_in_child=_forget_pools)
