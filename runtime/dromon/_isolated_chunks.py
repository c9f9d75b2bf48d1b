"""Several calls as one: the chunks of maps, and of executors.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

import math
from collections import deque
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ._bridge import run_items
from ._pickling import dumps
from ._remote import name_refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

# Results, which of them are exceptions that were raised, and the exception that ended them.
Results: TypeAlias = tuple[list[Any], list[int], BaseException | None]

# The same of a chunk in an isolated worker, and the seconds that it took.
IsolatedChunkResult: TypeAlias = (
    "tuple[tuple[Any, ...], tuple[int, ...], BaseException | None, float]"
)


def run_each(
    fn: Callable[..., Any],
    star: bool,
    return_errors: bool,
    context: Context,
    end: float,
    first: int,
    items: deque[Any],
) -> Results:
    """Take items, the first of which has the index `first`, and run each in a copy of the context.

    Ends when none is left, when `perf_counter` has reached `end`, when nobody wants the results of
    an isolated worker any more, or when an item fails and errors are not results.
    """
    results: list[Any] = []
    errors: list[int] = []
    while True:
        try:
            while not run_items(fn, star, context, items, results, end):
                pass  # what Python code does between two steps
            return results, errors, None
        except BaseException as raised:
            here = raised.__traceback__  # as after run_sync: only the frames of `fn`
            raised.__traceback__ = here and here.tb_next
            error = name_refusal(raised)  # of which there are none in the main interpreter
            error.add_note(f"raised for item {first + len(results)} of the map")
            if not return_errors:
                return results, errors, error
            errors.append(len(results))
            results.append(error)
        if perf_counter() >= end:
            return results, errors, None


def run_chunk(
    fn: Callable[..., Any],
    star: bool,
    return_errors: bool,
    most_seconds: float,
    first: int,
    items: tuple[Any, ...],
) -> IsolatedChunkResult:
    """Run items, the first of which has the index `first`, in order, in an isolated worker."""
    began = perf_counter()
    end = began + most_seconds
    results, errors, failure = run_each(
        fn, star, return_errors, copy_context(), end, first, deque(items)
    )
    if return_errors:
        _replace_what_stays(results, errors, first)
    return tuple(results), tuple(errors), failure, perf_counter() - began


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
    context, items = copy_context(), deque(calls)
    try:
        while not run_items(fn, True, context, items, results, math.inf):
            pass
    except BaseException as error:
        return tuple(results), name_refusal(error)
    return tuple(results), None
