"""What a worker thread does in Python at its start and end; called by the bridge, on the worker."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from . import _trio_threads
from ._children import add_worker, remove_worker

if TYPE_CHECKING:
    from . import _bridge


def worker_name(index: int) -> str:
    """The name of a worker, for `threading`, ``ps``, ``top`` and gdb alike."""
    return f"dromon-{index}"


class WorkerThread(threading._DummyThread):
    """The permanent entry of a worker in `threading`'s table, for the thread that makes it.

    Without one, each task that asks for the current thread would make and leave a dummy there.

    It is named after the call that the worker runs, if that was given a name. Nothing is done for
    that unless somebody asks.
    """

    def __init__(self, worker: _bridge.Worker, name: str) -> None:
        self._worker = worker
        super().__init__()
        self._name = name

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


def enter(worker: _bridge.Worker, index: int) -> None:
    """Make this thread, in which `worker` lives, at home in Python."""
    WorkerThread(worker, worker_name(index))
    add_worker()
    _trio_threads.adopt_thread(worker)
    # As threading.Thread does: coverage and debuggers set these. They may raise at once.
    if (trace := threading.gettrace()) is not None:
        sys.settrace(trace)
    if (profile := threading.getprofile()) is not None:
        sys.setprofile(profile)


def leave() -> None:
    """Remove the entry: the kernel may give the thread's ident to another thread later.

    Also after an `enter` that raised, wherever that came to.
    """
    remove_worker()
    forget_thread()


def forget_thread() -> None:
    """Remove the calling thread from `threading`'s table, if it is there."""
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]
