"""How objects travel between interpreters of one process.

The pickler of the standard library does it, in C, as long as everything can be found by its name on
the other side. cloudpickle, which takes time to import, does it where something has to travel by
value: lambdas, closures, and the functions and classes of `__main__`.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

import copyreg
import functools
import io
import itertools
import os
import pickle
import sys
from contextvars import Context, ContextVar
from importlib import import_module
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Reduction: TypeAlias = tuple[Any, ...]  # as __reduce__ returns it
TakeBuffer: TypeAlias = "Callable[[pickle.PickleBuffer], None]"

_MAIN: Final = frozenset(("__main__", "__mp_main__"))
_CANNOT_TRAVEL: Final = "cannot travel between interpreters"  # how notes end


class WritableBuffer:
    """Memory that a worker may write to: what `writable` returns."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: memoryview) -> None:
        self.buffer: Final = buffer


def writable(buffer: Any) -> WritableBuffer:
    """Share a buffer with an isolated worker so that it may write to it.

    The callable gets a `memoryview` on the same memory. An ordinary `memoryview` arrives read-only.

    Args:
      buffer: Anything with the buffer protocol whose memory can be written, such as a `bytearray`.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"buffer must have the buffer protocol, not {buffer!r}") from None
    if view.readonly:
        raise TypeError(f"buffer must be writable, not {type(buffer).__name__!r} that is read-only")
    return WritableBuffer(view)


def dumps(objects: tuple[object, ...]) -> tuple[bytes, list[object]]:
    """Pickle objects, but for the memory that they offer to share.

    Returns:
      tuple: The pickle, and the buffers that `loads` needs as views, in this order: each a
        `memoryview`, a `WritableBuffer` or a `pickle.PickleBuffer`.

    Raises:
      Exception: What the pickler raised, with a note that tells what is to blame.
    """
    buffers: list[object] = []
    try:
        data, met_errors = _dump(objects, buffers)
        if met_errors:
            data, _ = _dump(_WithErrors(objects), buffers)
    except Exception as error:
        # A function among them has told already. Pickle's own notes, from 3.14 on, lack the type.
        if not any(note.endswith(_CANNOT_TRAVEL) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_find_culprit(objects)} {_CANNOT_TRAVEL}")
        raise
    return data, buffers


def loads(data: bytes | memoryview, buffers: list[memoryview]) -> tuple[object, ...]:
    """Undo `dumps`."""
    # In no variable: the traceback of an exception leads to this frame.
    return cast("tuple[object, ...]", pickle.loads(data, buffers=buffers))


def dump_by_value(function: object) -> bytes:
    """Pickle something with all its memory.

    Raises:
      Exception: What the pickler raised, with a note that tells what could not travel.
    """
    try:
        data, met_errors = _dump(function, None)
        return _dump(_WithErrors(function), None)[0] if met_errors else data
    except Exception as error:
        name = getattr(function, "__qualname__", None) or repr(function)
        error.add_note(f"{name}, or what it uses, {_CANNOT_TRAVEL}")
        raise


def forget() -> None:
    """Forget what belongs to modules that were imported so far, and are to be imported anew."""
    _by_value_pickler.cache_clear()
    _reduced_variables.clear()
    _variables.clear()


def can_travel(error: BaseException) -> bool:
    """Whether an exception, apart from others that it refers to, survives being pickled."""
    buffers: list[Any] = []
    try:
        data, _ = _dump(error, buffers, alone=error)
        views = [b.buffer if type(b) is WritableBuffer else b for b in buffers]
        return isinstance(pickle.loads(data, buffers=views), BaseException)
    except Exception:
        return False


def reference(obj: Any) -> tuple[str, str] | None:
    """The module and the qualified name by which another interpreter finds an object too."""
    owner = getattr(obj, "__self__", None)
    if not isinstance(owner, type):
        owner = getattr(obj, "__objclass__", None)
    if owner is None:
        module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    else:
        module, name = owner.__module__, f"{owner.__qualname__}.{obj.__name__}"
    if not isinstance(module, str) or not isinstance(name, str) or not is_importable(module):
        return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            return None
    # A method bound to its class is made anew each time.
    same = found is obj or (owner is not None and type(found) is type(obj) and found == obj)
    return (module, name) if same else None


def is_importable(module: str) -> bool:
    """Whether another interpreter can import a module that is imported here."""
    return module not in _MAIN and getattr(sys.modules.get(module), "__spec__", None) is not None


# ---- Picklers ------------------------------------------------------------------------------------


class _OutOfBand:
    """Takes the buffers out of a pickle.

    An object of its own: a pickler that called itself back would be kept, with all that it has
    pickled, until the garbage collector comes.
    """

    def __init__(self, buffers: list[object]) -> None:
        self._buffers = buffers
        self.view: object = None  # whose place the next PickleBuffer takes

    def add(self, buffer: pickle.PickleBuffer) -> None:
        view, self.view = self.view, None
        self._buffers.append(buffer if view is None else view)


class _Reductions:
    """What the two picklers have in common: how they reduce what pickle would reduce otherwise."""

    def start(self, out_of_band: _OutOfBand | None, alone: BaseException | None) -> None:
        self._out_of_band = out_of_band
        self._alone = alone
        self._errors: dict[int, tuple[BaseException, Any]] = {}
        self._linked: set[int] = set()

    @property
    def met_errors(self) -> bool:
        return bool(self._errors)

    def reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _REDUCERS:
            return _REDUCERS[kind](self, obj)
        if isinstance(obj, BaseException):
            return self._reduce_error(obj)
        return _reduce_datetime(obj) if sys.version_info < (3, 13) else None

    def reduce_view(self, view: memoryview) -> Reduction:
        if self._out_of_band is None:
            shape = view.shape if view.ndim != 1 or view.format != "B" else None
            return _copied_view, (view.tobytes(), view.format, shape)
        self._out_of_band.view = view
        return _same, (pickle.PickleBuffer(b""),)

    def reduce_writable(self, buffer: WritableBuffer) -> Reduction:
        if self._out_of_band is None:
            raise TypeError("dromon.writable(...) must be an argument, not a part of the function")
        self._out_of_band.view = buffer
        return _same, (pickle.PickleBuffer(bytearray()),)

    def reduce_variable(self, variable: ContextVar[Any]) -> Reduction:
        return _reduce_variable(variable)

    def reduce_cached(self, function: Any) -> Reduction | None:
        if reference(function) is not None:
            return None
        return _cached, (function.__wrapped__, function.cache_parameters())

    def reduce_with_errors(self, objects: _WithErrors) -> Reduction:
        return _without_links, (objects.objects, _Links())

    def reduce_links(self, links: _Links) -> Reduction:
        from . import _remote

        met = [error for error, _ in self._errors.values()]
        new = [error for error in _remote.chain(met) if id(error) not in self._linked]
        self._linked.update(map(id, new))
        if not new:
            return tuple, ()
        return _remote.restore_links, ([_remote.links(error) for error in new], _Links())

    def _reduce_error(self, error: BaseException) -> Any:
        if self._alone is not None:
            if error is self._alone:
                return own_reduction(error)
            return (Exception if isinstance(error, Exception) else BaseException), ()
        if id(error) not in self._errors:
            from . import _remote

            self._errors[id(error)] = error, _remote.reduction(error)
        return self._errors[id(error)][1]


def own_reduction(error: BaseException) -> Any:
    """How an exception is pickled, but for its links to others.

    Where tblib is installed for pickling, as by Dask, it has registered a way that follows these,
    and ends only if they do.
    """
    registered = copyreg.dispatch_table.get(type(error))
    if registered is None or registered.__module__.partition(".")[0] == "tblib":
        return error.__reduce_ex__(5)
    return NotImplemented


class _ByValue(Exception):
    """Something has to travel by value."""


class _Pickler(_Reductions, pickle.Pickler):
    """Pickles by reference."""

    def __init__(self, file: io.BytesIO, take_buffer: TakeBuffer | None) -> None:
        super().__init__(file, 5, buffer_callback=take_buffer)

    def reducer_override(self, obj: Any) -> Any:
        reduced = self.reduce(obj)
        if reduced is not None:
            return reduced
        if isinstance(obj, (type, FunctionType)):
            if reference(obj) is None:
                raise _ByValue
        elif getattr(obj, "__module__", None) in _MAIN:
            raise _ByValue
        return NotImplemented


@functools.cache
def _by_value_pickler() -> Any:
    from collections import ChainMap

    import cloudpickle

    reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_named_code(code: CodeType) -> Reduction:
        # cloudpickle leaves the file's name out, which tracebacks need.
        return _named_code, (*reduce_code(code), code.co_filename)

    def reduce_file(file: io.TextIOWrapper) -> Any:
        # cloudpickle would send the file's text.
        for name in ("stdout", "stderr"):
            if file is getattr(sys, name):
                return _imported, ("sys", name)
        return file.__reduce_ex__(5)

    class ByValuePickler(_Reductions, cloudpickle.Pickler):  # type: ignore[misc]
        """Pickles by value what cannot be found by its name."""

        dispatch_table: ClassVar[Any] = ChainMap(
            {CodeType: reduce_named_code, io.TextIOWrapper: reduce_file},
            cloudpickle.Pickler.dispatch_table,
        )

        def __init__(self, file: io.BytesIO, take_buffer: TakeBuffer | None) -> None:
            super().__init__(file, protocol=5, buffer_callback=take_buffer)

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.reduce(obj)
            if reduced is not None:
                return reduced
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6:
                if obj not in _received_classes:
                    _own_classes.add(obj)
                *reduced, set_state = reduced
                return *reduced, functools.partial(_set_class_state, set_state)
            return reduced

    return ByValuePickler


def _dump(
    root: object, buffers: list[object] | None, alone: BaseException | None = None
) -> tuple[bytes, bool]:
    """Pickle, and tell whether exceptions were met."""
    try:
        return _dump_with(_Pickler, root, buffers, alone)
    except Exception:  # by value is another way, and else raises what its user sees
        return _dump_with(_by_value_pickler(), root, buffers, alone)


def _dump_with(
    pickler_type: Callable[[io.BytesIO, TakeBuffer | None], Any],
    root: object,
    buffers: list[object] | None,
    alone: BaseException | None,
) -> tuple[bytes, bool]:
    if buffers is not None:
        buffers.clear()
    out_of_band = None if buffers is None else _OutOfBand(buffers)
    file = io.BytesIO()
    pickler = pickler_type(file, None if out_of_band is None else out_of_band.add)
    pickler.start(out_of_band, alone)
    try:
        pickler.dump(root)
        return file.getvalue(), pickler.met_errors
    finally:
        # Until it is collected, which may be late, it shall keep no memory shared.
        pickler.start(None, None)
        pickler.clear_memo()


def _find_culprit(objects: tuple[object, ...]) -> str:
    """What makes objects impossible to pickle, as deep inside as can be told cheaply."""
    path, culprit = "", objects
    for _ in range(20):
        for name, part in _parts(culprit):
            if not _can_be_pickled(part):
                path, culprit = path + name, part
                break
        else:
            break
    return f"{path or 'one of the objects'}, of type {type(culprit).__qualname__!r},"


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, dict):
        yield from ((f"[{key!r}]", value) for key, value in obj.items())
    elif isinstance(obj, (list, tuple)):
        yield from ((f"[{index}]", value) for index, value in enumerate(obj))
    yield from ((f".{name}", value) for name, value in getattr(obj, "__dict__", {}).items())


def _can_be_pickled(obj: object) -> bool:
    try:
        _dump(obj, [])
    except Exception:
        return False
    return True


# ---- What pickles refer to -----------------------------------------------------------------------


class _WithErrors:
    """What contains exceptions, whose tracebacks and chains come along."""

    def __init__(self, objects: object) -> None:
        self.objects = objects


class _Links:
    """The tracebacks and chains of the exceptions that were met so far."""


def _without_links(objects: object, links: object) -> object:
    return objects


def _same(obj: object) -> object:
    return obj


def _copied_view(data: bytes, format: str, shape: tuple[int, ...] | None) -> memoryview:
    return memoryview(data) if shape is None else memoryview(data).cast(format, shape)  # type: ignore[call-overload]


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> object:
    return functools.lru_cache(**parameters)(function)


def _named_code(make: Callable[..., CodeType], args: tuple[Any, ...], filename: str) -> CodeType:
    return make(*args).replace(co_filename=filename)


def _imported(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


# Classes that travelled by value: those that were defined here, and those that came from elsewhere.
_own_classes: WeakSet[type] = WeakSet()
_received_classes: WeakSet[type] = WeakSet()


def _set_class_state(set_state: Callable[[type, Any], object], cls: type, state: Any) -> None:
    """Fill a class that has arrived, unless it was only out for a while."""
    if cls not in _own_classes:
        set_state(cls, state)
        _received_classes.add(cls)


def _reduce_datetime(obj: Any) -> Reduction | None:
    """How the classes of datetime, and time zones, are pickled where they are written in Python.

    So they are in the isolated interpreters of Python 3.12. Elsewhere they are in C, which does not
    read these pickles.
    """
    kind = type(obj)
    if kind is type and obj.__module__ == "_pydatetime":
        return _imported, ("datetime", obj.__name__)
    if kind.__module__ == "_pydatetime" and kind.__name__ == "timezone":
        return kind, obj.__getinitargs__()
    return None


# ---- Context variables ---------------------------------------------------------------------------

_reduced_variables: dict[ContextVar[Any], Reduction] = {}
_variables: dict[str, ContextVar[Any]] = {}  # those that no module has, by their key
_variable_keys: Final = map(f"{os.urandom(8).hex()}-{{}}".format, itertools.count())


def _reduce_variable(variable: ContextVar[Any]) -> Reduction:
    reduced = _reduced_variables.get(variable)
    if reduced is None:
        found = _find_variable(variable)
        if found is None:
            key = next(_variable_keys)
            _variables[key] = variable
            reduced = _variable, (key, variable.name, *_default(variable))
        else:
            reduced = _imported, found
        _reduced_variables[variable] = reduced
    return reduced


def _find_variable(variable: ContextVar[Any]) -> tuple[str, str] | None:
    for module, contents in list(sys.modules.items()):
        if is_importable(module):
            for name, value in list(getattr(contents, "__dict__", {}).items()):
                if value is variable:
                    return module, name
    return None


def _default(variable: ContextVar[Any]) -> tuple[()] | tuple[object]:
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _variable(key: str, name: str, *default: object) -> ContextVar[Any]:
    """The context variable that stands for one of another interpreter."""
    variable = _variables.get(key)
    if variable is None:
        made: ContextVar[Any] = ContextVar(name, **dict(zip(("default",), default, strict=False)))
        variable = _variables.setdefault(key, made)
        _reduced_variables[variable] = _variable, (key, name, *default)
    return variable


_REDUCERS: Final[dict[type, Callable[[_Reductions, Any], Any]]] = {
    memoryview: _Reductions.reduce_view,
    WritableBuffer: _Reductions.reduce_writable,
    ContextVar: _Reductions.reduce_variable,
    type(functools.cache(len)): _Reductions.reduce_cached,
    _WithErrors: _Reductions.reduce_with_errors,
    _Links: _Reductions.reduce_links,
}
