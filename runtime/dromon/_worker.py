"""What a worker thread does in Python at its start and end; called by the bridge, on the worker."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ._children import add_worker, remove_worker

if TYPE_CHECKING:
    from collections.abc import Callable

RetT = TypeVar("RetT")


def worker_name(index: int) -> str:
    """The name of a worker, for `threading`, ``ps``, ``top`` and gdb alike."""
    return f"dromon-{index}"


def enter(index: int) -> None:
    """Give this thread its permanent entry in `threading`'s table, under its own name.

    Without one, each task that asks for the current thread would make and leave a dummy there.
    """
    threading.current_thread().name = worker_name(index)
    add_worker()
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
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        threading._active.pop(threading.get_ident(), None)  # type: ignore[attr-defined]


def named(thread_name: str, function: Callable[..., RetT]) -> Callable[..., RetT]:
    """Wrap a function so that the thread that runs it bears `thread_name` meanwhile."""
    if not isinstance(thread_name, str):
        raise TypeError(f"thread_name must be a string or None, not {thread_name!r}")

    def run_named(*args: object) -> RetT:
        thread = threading.current_thread()
        own_name = thread.name
        try:
            _rename(thread, thread_name)
            return function(*args)
        finally:
            _rename(thread, own_name)

    return run_named


def _rename(thread: threading.Thread, name: str) -> None:
    thread.name = name
    # Before Python 3.14 that is only Python's name. The kernel cuts its own to 15 bytes; where it
    # cannot be written (no /proc), the name is not worth an error.
    with suppress(OSError):
        Path("/proc/thread-self/comm").write_bytes(name.encode(errors="replace"))
