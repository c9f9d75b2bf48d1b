"""Several calls as one: the chunks of maps in isolated workers, and of executors.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ._bridge import is_cancelled
from ._callables import refuse_coroutine
from ._pickling import dumps
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
    if return_errors:
        _replace_what_stays(results, errors, first)
    return tuple(results), tuple(errors), None, perf_counter() - began


_TRAVELS: Final = frozenset((type(None), bool, int, float, str, bytes))


def _replace_what_stays(results: list[Any], errors: list[int], first: int) -> None:
    """Put an exception in the place of each result that cannot travel: else none of them would."""
    doubtful = [index for index, each in enumerate(results) if type(each) not in _TRAVELS]
    try:
        dumps(tuple(results[index] for index in doubtful))
    except Exception:
        for index in doubtful:
            try:
                dumps((results[index],))
            except Exception as error:
                error.add_note(f"the result for item {first + index} of the map")
                results[index] = error
                errors.append(index)


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
