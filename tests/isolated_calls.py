"""Functions and types that isolated workers import, and so light ones."""

from __future__ import annotations

import array
import enum
import functools
import os
import sys
import typing
from dataclasses import dataclass
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CAN_ISOLATE = sys.version_info >= (3, 12)
WHY_NOT = "interpreters with a GIL of their own came with 3.12"

kept: list[Any] = []


class Color(enum.IntEnum):
    RED = 1


class Point(typing.NamedTuple):
    x: object
    y: object


class Text(str):
    pass


class Number(float):
    pass


class Data(bytes):
    pass


@dataclass
class Record:
    name: str
    data: object


class OutOfBand:
    """A type that gives pickle its memory instead of a copy."""

    def __init__(self, memory: object) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        import pickle

        return OutOfBand, (pickle.PickleBuffer(self.memory),)  # type: ignore[arg-type]


class Counter:
    def __init__(self, step: int) -> None:
        self.step = step

    def add(self, number: int) -> int:
        return number + self.step

    def __call__(self, number: int) -> int:
        return number + self.step

    @classmethod
    def make(cls, step: int) -> Counter:
        return cls(step)

    @staticmethod
    def double(number: int) -> int:
        return 2 * number


def same(value: Any) -> Any:
    return value


def arguments(*args: Any) -> tuple[Any, ...]:
    return args


def type_of(value: object) -> str:
    return type(value).__name__


def square(number: int) -> int:
    return number * number


def is_main() -> bool:
    from dromon import _bridge

    return _bridge.is_main_interpreter()


def enter(fds: tuple[int, int]) -> None:
    """Tell by the first descriptor that this runs, and wait for the other."""
    os.write(fds[0], b"x")
    os.read(fds[1], 1)


def factorial(number: int) -> int:
    return 1 if number < 2 else number * factorial(number - 1)


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args) + 1

    return wrapper


@decorated
def plus_two(number: int) -> int:
    return number + 1


# ---- Buffers -------------------------------------------------------------------------------------


def describe(view: memoryview) -> tuple[Any, ...]:
    return (
        type(view).__name__,
        view.readonly,
        view.format,
        view.itemsize,
        view.ndim,
        view.shape,
        view.strides,
        view.tobytes(),
    )


def keep(*values: Any) -> None:
    kept.extend(values)


def kept_now() -> list[Any]:
    return list(kept)


def drop() -> None:
    kept.clear()


def look_at_kept() -> bytes:
    return bytes(kept[0])


def fill(view: memoryview, value: int) -> None:
    for index in range(len(view)):
        view[index] = value


def lend_kept(size: int) -> memoryview:
    """A view on memory of this interpreter, which holds it by `kept`."""
    kept.append(array.array("B", bytes(size)))
    return memoryview(kept[-1])


def lend_writable() -> object:
    import dromon

    kept.append(bytearray(3))
    return dromon.writable(kept[-1])


def can_resize_kept() -> bool:
    try:
        kept[-1].append(0)
    except BufferError:
        return False
    return True


# ---- Errors --------------------------------------------------------------------------------------


class UnpicklableError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = __import__("threading").Lock()


class NeedsTwo(Exception):
    """Cannot be made again from its args."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


def raise_it(error: BaseException) -> None:
    raise error


def raise_value_error(number: int) -> int:
    if number == 3:
        raise ValueError(f"{number} is not allowed")
    return number


def raise_chain() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def raise_in_context() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second")  # noqa: B904


def raise_group() -> None:
    errors: list[Exception] = []
    for number in range(2):
        try:
            raise_value_error(3)
        except ValueError as error:
            error.add_note(f"note {number}")
            errors.append(error)
    raise ExceptionGroup("both", [*errors, TypeError("and")])


def raise_noted() -> None:
    error = ValueError("noted")
    error.add_note("by hand")
    raise error


def raise_unpicklable() -> None:
    raise UnpicklableError("with a lock")


def raise_needs_two() -> None:
    raise NeedsTwo("one", "two")


def raise_from_unpicklable() -> None:
    try:
        raise_unpicklable()
    except UnpicklableError as error:
        raise ValueError("second") from error


def make_lock() -> object:
    import threading

    return threading.Lock()


def lock_if(wanted: object) -> object:
    import threading

    return threading.Lock() if wanted else None
