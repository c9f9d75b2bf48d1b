"""`dromon.Executor`: a pool that is a `concurrent.futures.Executor`."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextlib import closing
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast
from weakref import WeakSet, ref

import attrs

from ._bridge import LINE_UP
from ._call import outside_async
from ._callables import check_sync
from ._cpus import usable_cpus
from ._errors import SpawnError
from ._functions import function_of
from ._futures import PoolFuture
from ._isolated_chunks import run_calls
from ._isolation import choose_isolation
from ._options import check_name, check_options, check_workers
from ._pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextvars import ContextVar
    from typing import NoReturn

    from ._stalls import Stall

P = ParamSpec("P")
RetT = TypeVar("RetT")

logger = getLogger("concurrent.futures")  # as ThreadPoolExecutor tells of initializers


class Executor(ThreadPoolExecutor):
    """A `concurrent.futures.Executor` whose threads are the workers of a pool.

    It takes the place of `concurrent.futures.ThreadPoolExecutor`, which it is by its type, too:
    asyncio takes nothing else for its default executor. What is said there holds here, and
    besides: a call runs in a copy of the context (`contextvars`) of its submitter, ``chunksize``
    has its effect, ``buffersize`` is there on every version of Python, asynchronous functions are
    refused, and all threads start at the first `submit`.

    The queue has no bound. An executor that is dropped ends its threads when its calls have ended;
    at the end of the process, what was submitted is run to its end first.

    Args:
      max_workers (int | None): How many threads, from 1 to 1024. By default as many as ``affinity``
          has entries, or 4 more than the usable CPUs (see `Pool`) and 32 at most, for a mixture of
          calls that compute and calls that wait.
      thread_name_prefix (str): What the names of the threads begin with, as ``name`` for `Pool`.
      initializer (Callable[..., object] | None): Called once on each thread, and each
          further green thread (`dromon.green`), before its first call.
          It cannot use the executor, which waits for it. If it raises, all calls raise
          `concurrent.futures.thread.BrokenThreadPool`.
      initargs (tuple): Its arguments.
      stack_size, guard_size, affinity, nice, sched_policy: As for `Pool`.
      stall_after, on_stall, isolation, max_tasks_per_worker, context_vars: As for `Pool`.

    Raises:
      ValueError: An argument is out of range.
      TypeError: An argument is of a wrong type.

    Example::

        with dromon.Executor(max_workers=4) as executor:
            digests = list(executor.map(hash_file, paths, chunksize=16))
    """

    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        stack_size: int | None = None,
        guard_size: int | None = None,
        affinity: Iterable[int | Iterable[int]] | None = None,
        nice: int = 0,
        sched_policy: int | None = None,
        stall_after: float | None = None,
        on_stall: Callable[[Stall], object] | None = None,
        isolation: Literal["thread", "interpreter", "auto"] = "thread",
        max_tasks_per_worker: int | None = None,
        context_vars: Iterable[ContextVar[Any]] = (),
    ) -> None:
        if max_workers is not None:
            check_workers("max_workers", max_workers)
        elif affinity is None:
            max_workers = min(32, usable_cpus() + 4)
        if initializer is not None:
            check_sync("initializer", initializer)
            if choose_isolation(isolation) == "interpreter":
                initializer = partial(initializer, *initargs)
            else:
                initializer = partial(_initialize, ref(self), initializer, tuple(initargs))
        if thread_name_prefix == "":
            thread_name_prefix = f"Executor-{self._counter()}"
        self._options = check_options(
            max_workers,
            name=check_name("thread_name_prefix", thread_name_prefix),
            stack_size=stack_size,
            guard_size=guard_size,
            initializer=initializer,
            affinity=affinity,
            nice=nice,
            sched_policy=sched_policy,
            stall_after=stall_after,
            on_stall=on_stall,
            isolation=isolation,
            max_tasks_per_worker=max_tasks_per_worker,
            context_vars=context_vars,
        )
        self._max_workers = cast("int", self._options.workers)
        self._starting = threading.Lock()
        self._pool: Pool | None = None  # once it has started
        self._refusal: type[RuntimeError] | None = None
        self._refusal_text = ""
        _executors.add(self)

    def submit(self, fn: Callable[P, RetT], /, *args: P.args, **kwargs: P.kwargs) -> Future[RetT]:
        """Queue ``fn(*args, **kwargs)`` and return its future. Never waits.

        Raises:
          RuntimeError: The executor was shut down, the interpreter is ending, or this process was
              forked since the executor has started.
          SpawnError: The threads, which the first call starts, could not be started.
          concurrent.futures.thread.BrokenThreadPool: The initializer has raised.
          TypeError: ``fn`` is not callable, or asynchronous.
        """
        check_sync("fn", fn)
        pool = self._pool or self._start()
        call = partial(fn, **kwargs) if kwargs else fn
        future = outside_async(pool._bridge.future, PoolFuture, call, args, LINE_UP)
        if future is None:
            self._refuse()
        return future  # type: ignore[no-any-return]

    def map(
        self,
        fn: Callable[..., RetT],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[RetT]:
        """Return an iterator of ``map(fn, *iterables)``, whose calls run on the workers.

        Args:
          fn (Callable): What to call.
          *iterables (Iterable): Its arguments; the shortest says how many calls there are.
          timeout (float | None): Seconds from now in which a result must be there when it is asked
              for. By default there is no limit.
          chunksize (int): How many calls run one after the other as one, which costs less.
          buffersize (int | None): How many chunks may be submitted whose results were not yet
              taken; the iterables are read as far as that. By default all is submitted at once.

        Raises:
          TimeoutError: From the iterator, if a result was not there in time.
          Exception: From the iterator, what a call raised, at its place.
          ValueError: ``chunksize`` or ``buffersize`` is less than 1.
          TypeError: One of them is no integer; ``fn`` is not callable, or asynchronous.
        """
        check_sync("fn", fn)
        _check_positive("chunksize", chunksize)
        if buffersize is not None:
            _check_positive("buffersize", buffersize)
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            return self._results(fn, calls, timeout, buffersize)
        called: Any = function_of(fn) if self._options.isolation == "interpreter" else fn
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        arguments = ((called, chunk) for chunk in chunks)
        return _drain(self._results(run_calls, arguments, timeout, buffersize))

    def _results(
        self,
        fn: Callable[..., Any],
        calls: Iterator[tuple[Any, ...]],
        timeout: float | None,
        buffersize: int | None,
    ) -> Generator[Any, None, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        futures = deque(self.submit(fn, *args) for args in itertools.islice(calls, buffersize))
        rest = iter(()) if buffersize is None else calls
        return _take_results(ref(self), fn, futures, rest, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse later calls, and let the threads end when all accepted ones have ended.

        Args:
          wait (bool): Whether to wait for that.
          cancel_futures (bool): Whether to cancel all calls that no worker has begun.

        Raises:
          RuntimeError: It should wait, and is called on a worker of this executor.
        """
        self._refuse_initializer()
        with self._starting:
            self._set_refusal(RuntimeError, "cannot schedule new futures after shutdown")
            pool = self._pool
        if pool is None:
            return
        pool._end()
        if cancel_futures:
            for future in pool._bridge.pending():
                future.cancel()
        if wait and not pool._joined:
            pool._close()
            _running_pools.discard(pool)

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and not pool._joined and not sys.is_finalizing():
            pool._end()

    def _start(self) -> Pool:
        self._refuse_initializer()
        with self._starting:
            if self._refusal is not None or _exiting:
                self._refuse()
            if self._pool is None:
                self._pool = self._open()
            return self._pool

    def _open(self) -> Pool:
        _join_ended_pools()
        try:
            # A long queue is what an executor is for.
            pool = Pool._open(attrs.evolve(self._options, warns_of_saturation=False))
        except _InitializerError as error:
            self._break(error.__cause__)
        except Exception as error:
            if self._options.isolation == "thread" or isinstance(error, SpawnError):
                raise
            logger.critical("Exception in initializer:", exc_info=True)
            self._break(error)
        with _exit_lock:
            is_too_late = _exiting
            if not is_too_late:
                _running_pools.add(pool)
        if is_too_late:
            pool._close()
            self._refuse()
        return pool

    def _break(self, cause: BaseException | None) -> NoReturn:
        text = "a thread initializer failed, the thread pool is not usable anymore"
        self._set_refusal(BrokenThreadPool, text)
        raise BrokenThreadPool(text) from cause

    def _refuse_initializer(self) -> None:
        """Whoever starts the executor waits for its initializers, so they cannot wait for it."""
        initializing = getattr(_of_thread, "initializing", None)
        if initializing is not None and initializing() is self:
            raise RuntimeError("an initializer cannot use its own executor, which waits for it")

    def _set_refusal(self, kind: type[RuntimeError], text: str) -> None:
        if self._refusal is None:
            self._refusal, self._refusal_text = kind, text

    def _refuse(self) -> NoReturn:
        if self._refusal is not None:
            raise self._refusal(self._refusal_text)
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _forget_parent(self) -> None:
        """In the child of a fork."""
        self._starting = threading.Lock()
        if self._pool is not None:
            self._pool = None
            text = "the executor belongs to the process that forked this one; make another here"
            self._set_refusal(RuntimeError, text)


# ---- Initializers --------------------------------------------------------------------------------


class _InitializerError(Exception):
    """An initializer has raised what is the cause of this."""


_of_thread = threading.local()


def _initialize(
    executor: ref[Executor], initializer: Callable[..., object], initargs: tuple[Any, ...]
) -> None:
    _of_thread.initializing = executor
    try:
        initializer(*initargs)
    except BaseException as error:
        logger.critical("Exception in initializer:", exc_info=True)
        raise _InitializerError from error
    finally:
        del _of_thread.initializing


# ---- map -----------------------------------------------------------------------------------------


def _check_positive(argument: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{argument} must be an integer, not {number!r}")
    if number < 1:
        raise ValueError(f"{argument} must be 1 or more, not {number}")


def _drain(
    chunks: Generator[tuple[tuple[RetT, ...], BaseException | None], None, None],
) -> Iterator[RetT]:
    """Give results without keeping those that were taken."""
    with closing(chunks):
        for chunk, error in chunks:
            results = [*reversed(chunk)]
            del chunk
            while results:
                yield results.pop()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # or its traceback, which leads here, would make a cycle


def _take_results(
    executor: ref[Executor],
    fn: Callable[..., RetT],
    futures: deque[Future[RetT]],
    rest: Iterator[tuple[Any, ...]],
    deadline: float | None,
) -> Generator[RetT, None, None]:
    # An executor that was dropped goes on with what it has, and gets no more.
    try:
        while futures:
            if (submitter := executor()) is not None and (args := next(rest, None)) is not None:
                futures.append(submitter.submit(fn, *args))
            del submitter
            yield _take_result(futures.popleft(), deadline)
    finally:
        for future in futures:
            future.cancel()


def _take_result(future: Future[RetT], deadline: float | None) -> RetT:
    try:
        try:
            return future.result(None if deadline is None else deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future  # or the traceback of what it raised, which leads here, would make a cycle


# ---- The end of the process, and forks -----------------------------------------------------------

_executors: WeakSet[Executor] = WeakSet()
_running_pools: set[Pool] = set()  # of all executors, also of dropped ones
_exiting = False
_exit_lock = threading.Lock()  # so that no pool joins them unseen when _exiting is set


def _join_ended_pools() -> None:
    """Free what is left of executors that were dropped or shut down without waiting."""
    for pool in list(_running_pools):
        if pool._ended.is_set():
            pool._join()
            _running_pools.discard(pool)


def _finish_all() -> None:
    """Run everything to its end, as ThreadPoolExecutor does when the interpreter ends."""
    global _exiting
    with _exit_lock:
        _exiting = True
    for pool in list(_running_pools):
        pool._end()
    for pool in list(_running_pools):
        pool._close()
        _running_pools.discard(pool)


def _forget_parent() -> None:
    global _exit_lock
    _exit_lock = threading.Lock()
    _running_pools.clear()
    for executor in _executors:
        executor._forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
# Not by atexit, which comes when other threads that are no daemons have been waited for already:
# these may wait for calls.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
