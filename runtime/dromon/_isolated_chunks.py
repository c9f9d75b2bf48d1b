"""Several calls as one: the chunks of maps in isolated workers, and of executors.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeAlias

from ._bridge import is_cancelled
from ._callables import refuse_coroutine
from ._remote import name_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

# Results, which of them are exceptions that were raised, the exception that ended the chunk, and
# the seconds that it took.
IsolatedChunkResult: TypeAlias = (
    "tuple[tuple[Any, ...], tuple[int, ...], BaseException | None, float]"
)


def run_chunk(
    fn: Callable[..., Any],
    star: bool,
    return_errors: bool,
    most_seconds: float,
    first: int,
    items: tuple[Any, ...],
) -> IsolatedChunkResult:
    """Run items, the first of which has the index `first`, in order.

    Ends before the last one when the time is up, when nobody wants the results any more, or when an
    item fails and errors are not results.
    """
    results: list[Any] = []
    errors: list[int] = []
    began = perf_counter()
    end = began + most_seconds
    for item in items:
        try:
            value = fn(*item) if star else fn(item)
            if type(value) is CoroutineType:
                refuse_coroutine("fn", fn, value)
        except BaseException as raised:
            here = raised.__traceback__  # as after run_sync: only the frames of `fn`
            raised.__traceback__ = here and here.tb_next
            error = name_refusal(raised)
            error.add_note(f"raised for item {first + len(results)} of the map")
            if not return_errors:
                return tuple(results), (), error, perf_counter() - began
            errors.append(len(results))
            value = error
        results.append(value)
        if perf_counter() >= end or is_cancelled():
            break
    return tuple(results), tuple(errors), None, perf_counter() - began


def run_calls(
    fn: Callable[..., Any], calls: tuple[tuple[Any, ...], ...]
) -> tuple[tuple[Any, ...], BaseException | None]:
    """Run calls until one raises, and return the results, and what it raised."""
    results: list[Any] = []
    try:
        for args in calls:
            result = fn(*args)
            if type(result) is CoroutineType:
                refuse_coroutine("fn", fn, result)
            results.append(result)
    except BaseException as error:
        return tuple(results), name_refusal(error)
    return tuple(results), None
