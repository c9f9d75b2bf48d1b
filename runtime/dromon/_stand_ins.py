"""What stands for the parts of dromon that are for the main interpreter, in all others.

A module that is imported there may name them: in annotations, say. Who calls one is told where it
works. To find that out nothing has to be loaded: not cffi, which refuses other interpreters than
the main one, nor trio.
"""

from __future__ import annotations

from importlib import import_module
from types import GenericAlias

from ._errors import IsolationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class _StandIn:
    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[var-annotated]

    def __new__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise IsolationError(
            f"{cls.__module__}.{cls.__qualname__} works in the main interpreter only, and this is"
            " another one; dromon.from_thread.run and run_sync call from an isolated worker into"
            " the main interpreter",
            "_cffi_backend",
        )


def stand_ins(module: str, names: str) -> dict[str, type]:
    """Make one for each of the functions and classes of a module."""
    return {name: type(name, (_StandIn,), {"__module__": module}) for name in names.split()}


# What is real here, too, but takes a while to load.
_LATE = {
    "RemoteError": "_remote",
    "WritableBuffer": "_pickling",
    "writable": "_pickling",
}


def load_late(name: str) -> object:
    """The ``__getattr__`` of the package."""
    if name == "__version__":
        from importlib.metadata import version

        return version("dromon")
    if name not in _LATE:
        raise AttributeError(f"module 'dromon' has no attribute {name!r}")
    return getattr(import_module(f"dromon.{_LATE[name]}"), name)
