"""How exceptions travel between interpreters: with their tracebacks, causes, contexts and members.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

import os
import pickle
import re
import traceback
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from . import _pickling
from ._errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Iterable

# A frame of a traceback: its file, function and line, and its module's name and file.
Frame: TypeAlias = tuple[str, str, int, dict[str, str]]

# An exception, its cause and context, whether the latter is hidden, and where it was raised.
Links: TypeAlias = tuple[
    BaseException, BaseException | None, BaseException | None, bool, list[Frame]
]

# What is known of an exception without its type: its type's name, its text, its frames; its cause
# and context by their place in a list; whether the latter is hidden; and a group's members.
Outline: TypeAlias = tuple[str, str, list[Frame], int | None, int | None, bool, list[int] | None]

_HERE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_REFUSAL: Final = re.compile(r"module (\S+) does not support loading in subinterpreters")


class RemoteError(Exception):
    """Stands for an exception of an isolated worker that cannot leave it, since it cannot be
    pickled.

    Attributes:
      type_name (str): The module and the name of its type.
      text (str): What `str` made of it.
      traceback (str): Its traceback, as Python prints it.
    """

    def __init__(self, type_name: str, text: str, traceback: str) -> None:
        super().__init__(type_name, text, traceback)
        self.type_name: str = type_name
        self.text: str = text
        self.traceback: str = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


def dump_error(error: BaseException) -> tuple[bytes, list[object]]:
    """Pickle an exception as `_pickling.dumps` does. Always succeeds."""
    buffers: list[object]
    try:
        error = name_refusal(error)
        data, buffers = _pickling.dumps((error,))
    except BaseException:  # not even an interrupt may keep the error from arriving
        data, buffers = b"", []
    try:
        outline = _outline(error)
    except BaseException:
        outline = [(_type_name(error), _text(error), [], None, None, True, None)]
    return pickle.dumps((data, outline), 5), buffers


def load_error(data: bytes | memoryview, buffers: list[memoryview]) -> BaseException:
    """Undo `dump_error`. What could not be pickled, or cannot be unpickled, is a `RemoteError`."""
    pickled, outline = pickle.loads(data)
    if pickled:
        try:
            return cast("BaseException", _pickling.loads(pickled, buffers)[0])
        except Exception:
            pass
    return _from_outline(outline)


def refused_module(error: BaseException) -> str | None:
    """The extension module that an isolated interpreter refused to load, if that is behind an
    error."""
    for each in chain([error]):
        if isinstance(each, ImportError) and (found := _REFUSAL.search(_text(each))):
            return found[1]
    return None


def name_refusal(error: BaseException) -> BaseException:
    """What leaves an isolated worker for an error: if it is an `ImportError` because an extension
    module refused to load there, an `IsolationError` that it is the cause of."""
    module = refused_module(error) if isinstance(error, ImportError) else None
    if module is None:
        return error
    refusal = IsolationError(
        f"the extension module {module!r} does not load in an interpreter of a worker's own: what"
        " needs it can run with isolation='thread'",
        module,
    )
    refusal.__cause__ = error
    return refusal


# ---- For the pickler -----------------------------------------------------------------------------


def chain(errors: Iterable[BaseException]) -> list[BaseException]:
    """Exceptions with their causes, contexts and members, and those of these, each once."""
    found: dict[int, BaseException] = {}
    pending = list(errors)[::-1]
    while pending:
        error = pending.pop()
        if id(error) not in found:
            found[id(error)] = error
            members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
            linked = (error.__cause__, error.__context__, *members)
            pending.extend(each for each in reversed(linked) if each is not None)
    return list(found.values())


def reduction(error: BaseException) -> Any:
    """How an exception is pickled: in its own way, if that works."""
    if _pickling.can_travel(error):
        return _pickling.own_reduction(error)
    if isinstance(error, BaseExceptionGroup):  # whose members shall stay
        plain = ExceptionGroup if isinstance(error, ExceptionGroup) else BaseExceptionGroup
        notes = {"__notes__": [f"this was a {_type_name(error)}, which cannot be pickled"]}
        return plain, (error.message, list(error.exceptions)), notes
    return RemoteError, (_type_name(error), _text(error), _format(error))


def links(error: BaseException) -> Links:
    return (
        error,
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
        _frames(error),
    )


def restore_links(errors: list[Links], rest: object) -> None:
    while errors:
        error, cause, context, suppress_context, frames = errors.pop()
        error.__cause__ = cause
        error.__context__ = context
        error.__suppress_context__ = suppress_context
        error.__traceback__ = _traceback(frames)
        del error, cause, context  # whose traceback leads to this frame


# ---- Descriptions --------------------------------------------------------------------------------


def _outline(error: BaseException) -> list[Outline]:
    errors = chain([error])
    index = {id(each): position for position, each in enumerate(errors)}
    return [
        (
            _type_name(each),
            _text(each),
            _frames(each),
            index.get(id(each.__cause__)),
            index.get(id(each.__context__)),
            each.__suppress_context__,
            [index[id(member)] for member in each.exceptions]
            if isinstance(each, BaseExceptionGroup)
            else None,
        )
        for each in errors
    ]


def _from_outline(outline: list[Outline]) -> BaseException:
    """The first exception of an outline, with others, all of which are stand-ins."""
    made: dict[int | None, BaseException | None] = {None: None}

    def make(position: int) -> Exception:
        type_name, text, *_, members = outline[position]
        error: Exception
        if members is None:
            error = RemoteError(type_name, text, "")
        else:
            error = ExceptionGroup(f"{type_name}: {text}", [make(member) for member in members])
        made[position] = error
        return error

    for position in range(len(outline)):
        if position not in made:
            make(position)
    for position, (_, _, frames, cause, context, suppress_context, _) in enumerate(outline):
        error = made[position]
        assert error is not None
        error.__cause__ = made[cause]
        error.__context__ = made[context]
        error.__suppress_context__ = suppress_context
        error.__traceback__ = _traceback(frames)
        if isinstance(error, RemoteError):
            error.traceback = _format(error)
    try:
        return cast("BaseException", made[0])
    finally:
        del error  # whose traceback leads to this frame
        made.clear()


def _format(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error, chain=False))
    except Exception:
        return ""


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _text(error: BaseException) -> str:
    try:
        return "".join([str(error)])  # which is a plain str
    except BaseException:
        return "<exception str() failed>"


def _frames(error: BaseException) -> list[Frame]:
    """The frames of a traceback, but for the first ones if they are dromon's."""
    frames: list[Frame] = []
    step = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        code = frame.f_code
        if frames or not code.co_filename.startswith(_HERE):
            names = {
                name: value
                for name in ("__name__", "__file__")
                if type(value := frame.f_globals.get(name)) is str
            }
            frames.append((code.co_filename, code.co_name, step.tb_lineno, names))
        step = step.tb_next
    return frames


def _traceback(frames: list[Frame]) -> TracebackType | None:
    if not frames:
        return None
    from tblib import Traceback

    step = None
    for file, name, line, names in reversed(frames):
        code = SimpleNamespace(co_filename=file, co_name=name)
        frame = SimpleNamespace(f_globals=names, f_locals={}, f_code=code, f_lineno=line)
        step = SimpleNamespace(tb_frame=frame, tb_lineno=line, tb_next=step)
    return cast("TracebackType", Traceback(step).as_traceback())
