"""One list of arguments for several functions, which get them checked and in one object."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
CheckedT = TypeVar("CheckedT")
RetT = TypeVar("RetT")
SelfT = TypeVar("SelfT")


class ArgumentsOf(Generic[P, CheckedT]):
    """A decorator: callers of the function give what `check` takes, and it gets what that returns.

    The signature says so, to type checkers as to `inspect.signature`.
    """

    def __init__(self, check: Callable[P, CheckedT]) -> None:
        self._check = check

    @overload
    def __call__(self, function: Callable[[CheckedT], RetT], /) -> Callable[P, RetT]: ...

    @overload
    def __call__(
        self, function: Callable[[SelfT, CheckedT], RetT], /
    ) -> Callable[Concatenate[SelfT, P], RetT]: ...

    def __call__(self, function: Callable[..., RetT], /) -> Callable[..., RetT]:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[:-1]  # `self`, or nothing

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> RetT:
            return function(*args[: len(own)], self._check(*args[len(own) :], **kwargs))

        taken = inspect.signature(self._check).parameters.values()
        checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *taken]
        )
        return checked
