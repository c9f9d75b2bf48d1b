"""What a pool can run: callables that are not asynchronous."""

from __future__ import annotations

from functools import partial
from inspect import CO_COROUTINE, iscoroutinefunction
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine


def check_sync(name: str, function: object) -> None:
    """Refuse what cannot be called, or would only give a coroutine.

    Raises:
      TypeError: Says so, and calls the argument by `name`.
    """
    kind = type(function)
    if kind is FunctionType and not function.__dict__:  # an attribute could mark it as async
        is_async = bool(function.__code__.co_flags & CO_COROUTINE)  # type: ignore[attr-defined]
    elif kind is BuiltinFunctionType or kind is type:
        is_async = False
    elif callable(function):
        is_async = _is_async(function)
    else:
        raise TypeError(f"{name} must be callable, not {function!r}")
    if is_async:
        raise _asynchronous(name, function)


def name_of(function: object) -> str:
    """What people call a function."""
    while isinstance(function, partial):
        function = function.func
    # What has none is an object that can be called: its repr may be anything, and take its time.
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def refuse_coroutine(
    name: str, function: object, coroutine: Coroutine[object, object, object]
) -> None:
    """Raise a TypeError for what a function returned that did not look asynchronous."""
    coroutine.close()  # or Python warns that it was never awaited
    raise _asynchronous(name, function)


def _asynchronous(name: str, function: object) -> TypeError:
    given = getattr(function, "__qualname__", function)
    return TypeError(
        f"dromon expected a sync function, but {given!r} appears to be asynchronous,"
        f" given as {name}"
    )


def _is_async(function: object) -> bool:
    while isinstance(function, partial):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)
