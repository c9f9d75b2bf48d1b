"""What happens inside the interpreter of an isolated worker when a worker comes and when it leaves,
and what `dromon.explain` does there.

Imports only what is light and loads in isolated interpreters. The bridge calls `enter` and `leave`.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, cast

from . import _functions, _pickling
from ._children import add_worker, remove_worker, use_mask

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

# The modules that were there before anything of a user's was.
_own_modules: frozenset[str] = frozenset()


def enter(settings: dict[str, Any], name: str) -> tuple[ContextVar[Any], ...]:
    """Set the interpreter up for a worker of this name, as `dromon._isolation` describes it.

    Returns:
      tuple: The context variables that travel with each call.
    """
    global _own_modules
    for stream in (sys.stdout, sys.stderr):
        # Lines of several interpreters shall not be mixed, nor come when all is over.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    thread = threading.current_thread()  # perhaps that of an earlier worker, with the same ident
    thread.name = name
    thread._set_native_id()  # type: ignore[attr-defined]
    use_mask(settings["signal_mask"])
    add_worker()
    if not _own_modules:
        if sys.version_info < (3, 13):
            # It refuses this interpreter only after it has written to memory of others. `decimal`
            # has a stand-in in Python.
            sys.modules["_decimal"] = None  # type: ignore[assignment]
        _own_modules = frozenset(sys.modules)
        # No fork comes here, and modules that are forgotten would live on in its hooks.
        os.register_at_fork = _register_nothing  # type: ignore[assignment]
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["argv"]
    warnings.resetwarnings()
    warnings.filters[:] = pickle.loads(settings["warning_filters"])  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    data, buffers = settings["variables"]
    return cast("tuple[ContextVar[Any], ...]", _pickling.loads(data, buffers))


def _register_nothing(**hooks: Callable[[], object]) -> None:
    pass


def finish() -> None:
    """Do what is done at the end of an interpreter, for the end of the process."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def leave() -> bool:
    """Forget all that came with the calls of a worker, and tell whether that could be done."""
    if not _own_modules:
        return False  # it was never set up
    finish()
    for thread in threading.enumerate():
        # Those that stand for this worker, or for an earlier one, are no threads of a user's.
        if not isinstance(thread, (threading._MainThread, threading._DummyThread)):  # type: ignore[attr-defined]
            thread.join()
    remove_worker()
    sys.stdout, sys.stderr, sys.stdin = sys.__stdout__, sys.__stderr__, sys.__stdin__
    for module in set(sys.modules) - _own_modules:
        del sys.modules[module]
    _pickling.forget()
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    gc.collect()
    return True


def load_call(kind: int, blob: bytes, data: bytes, buffers: list[bytes | bytearray]) -> None:
    """Load a function and the arguments for it, and call nothing."""
    _functions.load(kind, blob)
    _pickling.loads(data, [memoryview(buffer) for buffer in buffers])
