"""`trio.from_thread` on dromon's workers, for code that knows nothing of dromon.

The only module that touches private parts of trio. What `trio.from_thread` knows of the thread that
calls it is in a thread-local object, which trio fills for its own threads: the token of the run,
how the call may be cancelled, how it was, and the task that waits for it. It is filled here once
for each green thread, with objects that look at the call that their worker runs at that moment.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from . import _bridge

    Facts = Mapping[str, object]

_FIELDS: Final = {"token", "abandon_on_cancel", "cancel_register", "task_register"}


def _find_parts() -> tuple[Any, tuple[type, ...]]:
    """Trio's thread-local object, and the types of what `trio.from_thread` sends to a task.

    None and nothing if they are not as they are expected to be.
    """
    module = getattr(trio, "_threads", None)
    data = getattr(module, "PARENT_TASK_DATA", None)
    run, run_sync = getattr(module, "Run", None), getattr(module, "RunSync", None)
    if (
        isinstance(data, threading.local)
        and set(inspect.get_annotations(type(data))) == _FIELDS
        and isinstance(run, type)
        and inspect.iscoroutinefunction(getattr(run, "run", None))
        and isinstance(run_sync, type)
        and inspect.isfunction(getattr(run_sync, "run_sync", None))
    ):
        return data, (run, run_sync)
    return None, ()


_data, MESSAGES = _find_parts()


def facts_of(worker: _bridge.Worker) -> Facts:
    """What `trio.from_thread` is to know in the thread of a worker; and a warning, if it cannot."""
    if _data is None:
        warnings.warn(
            f"trio.from_thread does not work on dromon's workers with trio {trio.__version__},"
            " whose threads are not as dromon knows them; dromon.from_thread does",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return {
        "token": _Token(worker),
        "abandon_on_cancel": _AbandonOnCancel(worker),
        "cancel_register": _CancelRegister(worker),
        "task_register": _TaskRegister(worker),
    }


def adopt_thread(facts: Facts) -> None:
    """Let `trio.from_thread` work in the calling thread, or green thread, of a worker."""
    if facts:
        vars(_data).update(facts)


class _OfWorker:
    """One of trio's four facts about the call that a worker runs."""

    def __init__(self, worker: _bridge.Worker) -> None:
        self._worker = worker

    def _call(self, hint: str) -> _bridge.Call:
        call = self._worker.call
        if call is None or call.port is None:
            raise RuntimeError(f"this thread runs no call of a trio task, {hint}")
        return call


class _Token(_OfWorker):
    def run_sync_soon(self, sync_fn: Callable[[], object]) -> None:
        port = self._call("pass kwarg trio_token=...").port
        assert port is not None
        port.token.run_sync_soon(sync_fn)


class _AbandonOnCancel(_OfWorker):
    """Whether a system task has to serve, in place of the task that waits; asked each time."""

    def __bool__(self) -> bool:
        call = self._call("pass kwarg trio_token=...")
        return not (isinstance(call.waiter, Task) and call.visit())


class _CancelRegister(_OfWorker):
    def __getitem__(self, _: int) -> Callable[[], NoReturn] | None:
        return self._call("can't check for cancellation").raise_cancel


class _TaskRegister(_OfWorker):
    """Read in the trio thread, while the call waits for its answer."""

    def __getitem__(self, _: int) -> object:
        return self._call("can't reach its task").waiter
