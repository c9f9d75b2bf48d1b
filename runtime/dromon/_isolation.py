"""Workers with an interpreter, and so a GIL, of their own, as the main interpreter sees them."""

from __future__ import annotations

import atexit
import marshal
import os
import pickle
import select
import signal
import sys
import sysconfig
import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from . import _bridge, _pickling
from ._errors import IsolationError
from ._functions import function_of

if TYPE_CHECKING:
    from contextvars import ContextVar

    from ._options import PoolOptions
    from ._worker import Entry

ISOLATIONS: Final = ("thread", "interpreter", "auto")

# Run in a new interpreter, with `settings`. It finds dromon in the very files that this interpreter
# has loaded, and does not ask other finders, which might look whether they are up to date.
_BOOTSTRAP: Final = """\
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "dromon":
            return spec_from_file_location(
                name, settings["package"] + "/__init__.py",
                submodule_search_locations=[settings["package"]])
        if name == "dromon._bridge":
            return spec_from_file_location(name, settings["bridge"])
        if name.startswith("dromon."):
            return PathFinder.find_spec(name, path)

if "dromon" not in sys.modules:
    sys.meta_path.insert(0, Finder)
import dromon._isolated
"""

# Calls with a future that are delivered while others may run.
_DELIVER_AT_MOST: Final = 256


def can_isolate() -> bool:
    """Whether interpreters with a GIL of their own can be had."""
    return sys.version_info >= (3, 12)


def choose_isolation(isolation: str) -> str:
    """Check the argument `isolation` of a pool, and make up its mind.

    Raises:
      ValueError: It is none of those that are allowed.
      IsolationError: This Python has no such interpreters.
    """
    if isolation not in ISOLATIONS:
        allowed = ", ".join(map(repr, ISOLATIONS))
        raise ValueError(f"isolation must be one of {allowed}, not {isolation!r}")
    if isolation == "auto":
        # Without a GIL, threads run in parallel, and share their objects.
        has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
        return "interpreter" if has_gil and can_isolate() else "thread"
    if isolation == "interpreter" and not can_isolate():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise IsolationError(
            "interpreters with a GIL of their own need Python 3.12 or later, and this is Python"
            f" {version}: use a later one, or isolation='thread'"
        )
    return isolation


def isolated_table(entry: Entry, options: PoolOptions) -> tuple[int, int, object]:
    """What `open_core` needs for isolated workers, as `_bridge.worker_table` for others."""
    initializer = None if options.initializer is None else function_of(options.initializer)
    settings = marshal.dumps(_settings(options.context_vars))
    return _bridge.isolated_table(
        entry, options.name, settings, initializer, options.max_tasks_per_worker
    )


def _settings(variables: tuple[ContextVar[Any], ...]) -> dict[str, Any]:
    """What the interpreters of workers take over from this one, as `marshal` has it."""
    data, buffers = _pickling.dumps(variables)
    return {
        "bootstrap": _BOOTSTRAP,
        "package": os.path.dirname(__file__),
        "bridge": _bridge.__file__,
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": list(map(str, sys.argv)),
        "warning_filters": pickle.dumps(_warning_filters()),
        "variables": (data, buffers),
        "signal_mask": list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    }


def _warning_filters() -> list[Any]:
    """The filters of Python's own categories: others take imports, which may even be refused."""
    return [each for each in warnings.filters if each[2].__module__ == "builtins"]


# ---- Futures -------------------------------------------------------------------------------------

_delivery: _bridge.Port | None = None
_delivery_lock = threading.Lock()
_deliverer: threading.Thread | None = None
_waiting_for_delivery: deque[threading.Event] = deque()


def delivery_port() -> _bridge.Port:
    """Where isolated workers leave calls that have a future: they cannot touch it themselves."""
    global _delivery, _deliverer
    with _delivery_lock:
        if _delivery is None:
            _delivery = _bridge.Port(None, None, None)
            _deliverer = threading.Thread(
                target=_deliver, args=(_delivery,), name="dromon-delivery", daemon=True
            )
            _deliverer.start()
        return _delivery


def await_delivery() -> None:
    """Wait until the futures of all calls that have ended have their outcomes.

    Not in a callback of such a future, which would wait for itself.
    """
    if threading.current_thread() is _deliverer:
        return
    delivered = threading.Event()
    _waiting_for_delivery.append(delivered)
    delivery_port().post(int)  # wakes it
    delivered.wait()


def _deliver(port: _bridge.Port) -> None:
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    while True:
        poll.poll()
        _deliver_all(port)
        while _waiting_for_delivery:  # what wakes for them may have been among it
            waiting = len(_waiting_for_delivery)
            _deliver_all(port)
            for _ in range(waiting):
                _waiting_for_delivery.popleft().set()


def _deliver_all(port: _bridge.Port) -> None:
    while port.fulfil(_DELIVER_AT_MOST) == _DELIVER_AT_MOST:
        pass


# ---- The end of the process, and forks -----------------------------------------------------------


def _forget_parent() -> None:
    global _delivery, _delivery_lock
    _delivery = None
    _delivery_lock = threading.Lock()
    _waiting_for_delivery.clear()
    _bridge.forget_isolates()


os.register_at_fork(
    before=_bridge.hide_isolates,
    after_in_parent=_bridge.show_isolates,
    after_in_child=_forget_parent,
)
atexit.register(_bridge.end_isolates)
