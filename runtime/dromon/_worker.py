"""What a worker thread does in Python at its start and end; called by the bridge, on the worker."""

from __future__ import annotations

import sys
import threading
import traceback
from functools import cached_property
from inspect import iscoroutine
from typing import TYPE_CHECKING

from . import _trio_threads
from ._callables import refuse_coroutine
from ._children import add_worker, remove_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import _bridge


def worker_name(pool_name: str, index: int) -> str:
    """The name of a worker, for `threading`, ``ps``, ``top`` and gdb alike."""
    return f"{pool_name}-{index}"


class WorkerThread(threading._DummyThread):
    """The permanent entry of a worker in `threading`'s table, for the thread that makes it.

    Without one, each task that asks for the current thread would make and leave a dummy there.

    It is named after the call that the worker runs, if that was given a name. Nothing is done for
    that unless somebody asks.
    """

    def __init__(
        self, worker: _bridge.Worker, name: str, initializer: Callable[[], object] | None = None
    ) -> None:
        self._worker = worker
        self.worker_name = name
        self._initializer = initializer
        super().__init__()
        self._name = name

    def begin_green_thread(self) -> None:
        """Do for a new green thread of the worker what was done for the worker.

        To Python it is a thread of its own: with thread-locals that are its own, and trace hooks.
        """
        self.begin()
        if self._initializer is not None:
            self._initializer()

    def begin(self) -> None:
        """Do for this thread, or for a green one on it, what others find in thread-locals."""
        _trio_threads.adopt_thread(self._facts)
        # As threading.Thread does: coverage and debuggers set these. They may raise at once.
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        if (profile := threading.getprofile()) is not None:
            sys.setprofile(profile)

    @cached_property
    def _facts(self) -> _trio_threads.Facts:
        return _trio_threads.facts_of(self._worker)

    @property
    def name(self) -> str:
        call = self._worker.call
        named = None if call is None else call.thread_name
        return self._name if named is None else named

    @name.setter
    def name(self, name: str) -> None:
        call = self._worker.call
        if call is None or call.thread_name is None:
            self._name = name
        else:
            call.thread_name = name


class Entry:
    """What the workers of a pool do first, each on its own thread."""

    def __init__(self, pool_name: str, initializer: Callable[[], object] | None) -> None:
        self._pool_name = pool_name
        self._initializer = initializer
        self._errors: dict[int, BaseException] = {}  # what initializers raised, by worker

    def __call__(self, worker: _bridge.Worker, index: int) -> bool:
        """Enter, and return whether the initializer had nothing against it."""
        name = worker_name(self._pool_name, index)
        enter(worker, name, self._initializer)
        if self._initializer is None:
            return True
        try:
            result = self._initializer()
            if iscoroutine(result):
                refuse_coroutine("initializer", self._initializer, result)
        except BaseException as error:
            error.add_note(f"raised by the initializer of {name}")
            self._errors[index] = error
            return False
        return True

    def fail(self, index: int, error: BaseException) -> None:
        """The initializer of an isolated worker has raised this, in its own interpreter."""
        error.add_note(f"raised by the initializer of {worker_name(self._pool_name, index)}")
        self._errors[index] = error

    def take_error(self) -> BaseException | None:
        """What the initializer raised, in the first of the workers where it did."""
        errors, self._errors = self._errors, {}
        return errors[min(errors)] if errors else None


def enter(
    worker: _bridge.Worker, name: str, initializer: Callable[[], object] | None = None
) -> None:
    """Make this thread, in which `worker` lives, at home in Python."""
    thread = WorkerThread(worker, name, initializer)
    add_worker()
    thread.begin()


def begin_green_thread() -> None:
    """Begin one, on the thread of its worker; called by the bridge."""
    thread = threading.current_thread()
    assert isinstance(thread, WorkerThread)
    thread.begin_green_thread()


def clear_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an exception hold, and of those that it came out of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def leave() -> None:
    """Remove the entry: the kernel may give the thread's ident to another thread later.

    Also after an `enter` that raised, wherever that came to.
    """
    remove_worker()
    forget_thread()


def forget_thread() -> None:
    """Remove the calling thread from `threading`'s table, in which it has come by itself."""
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]
