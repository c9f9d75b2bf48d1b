"""`dromon.green` but for what is in the bridge."""

from __future__ import annotations

from . import _bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    RetT = TypeVar("RetT")


def open_scope() -> _bridge.Scope:
    """Open a scope for green tasks, to be used in a with statement.

    As `trio.open_nursery`, for sync functions on a dromon worker: ``spawn`` starts children, the
    with statement ends when all of them have ended, and so no task outlives it. A child that fails
    cancels the others and what the with statement waits for.

    Returns:
      Scope: With ``spawn(fn, *args, name=None)``, ``cancel()`` and ``cancel_called``.

    Raises:
      RuntimeError: When the with statement begins, if this is no function on a worker.
      ExceptionGroup: At its end, of all that children and the with statement itself have raised
          (a `BaseExceptionGroup` if there is something like a `KeyboardInterrupt` in it).

    **Cancellation**: leaving waits for the children, cancelled or not; a cancellation meanwhile is
    passed on to them, and raised afterwards.

    Example::

        def checksum(paths):  # on a worker
            with dromon.green.open_scope() as scope:
                tasks = [scope.spawn(sha256, path) for path in paths]
            return [task.result() for task in tasks]
    """
    return _bridge.Scope()


def map(fn: Callable[..., RetT], *iterables: Iterable[Any]) -> list[RetT]:
    """Return ``[fn(*items) for items in zip(*iterables)]``, with each call a green task.

    Fork-join: calls that no other worker has begun run here, one after the other, so that it never
    waits for a free worker.

    Args:
      fn: A sync function.
      *iterables: One for each of its positional arguments; the shortest one ends it.

    Returns:
      list: The results, in the order of the items.

    Raises:
      TypeError: ``fn`` is asynchronous or no function, or there is no iterable.
      ExceptionGroup: Of what calls have raised; the others were cancelled.
      RuntimeError: This is no function on a worker.

    **Cancellation** of the calling task cancels all calls.

    Example::

        def size(path):  # on a worker
            if path.is_dir():
                return sum(dromon.green.map(size, path.iterdir()))
            return path.stat().st_size
    """
    from ._callables import check_sync  # not before: it is heavy to import

    if not iterables:
        raise TypeError("map() needs at least one iterable")
    check_sync("fn", fn)
    calls = list(zip(*iterables, strict=False))
    with _bridge.Scope() as scope:
        tasks = [scope.spawn(fn, *items) for items in calls]
    return [task.result() for task in tasks]
