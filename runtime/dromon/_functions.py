"""How functions travel between interpreters: by reference, or by value where nothing else can be.

Imports only what is light and loads in isolated interpreters.
"""

from __future__ import annotations

import functools
import pickle
import weakref
from importlib import import_module
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from ._bridge import Function
from ._pickling import dump_by_value, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BY_REFERENCE: Final = 0
BY_VALUE: Final = 1


def portable(fn: Callable[..., Any]) -> tuple[int, bytes]:
    """What makes another interpreter find a function, or make one like it.

    Returns:
      tuple: `BY_REFERENCE` and ``b"module:qualname"``, or `BY_VALUE` and a pickle. The bytes are
        the same object again as long as the function and all that it captured are the same.
    """
    entry = _entries.get(id(fn))
    if entry is not None and entry.is_valid():
        return entry.kind, entry.blob
    found = reference(fn)
    snapshots: tuple[_Snapshot, ...] | None
    if found is not None:
        kind, blob, snapshots = BY_REFERENCE, ":".join(found).encode(), ()
    else:
        snapshots = _take_snapshots(fn) if isinstance(fn, FunctionType) else None
        kind, blob = BY_VALUE, dump_by_value(fn)
    if entry is not None and entry.blob == blob:
        blob = entry.blob
    ref: Callable[[], object]
    try:
        ref = weakref.ref(fn, functools.partial(_forget, id(fn)))
    except TypeError:
        if kind == BY_VALUE:
            return kind, blob
        ref = functools.partial(_same, fn)  # its module keeps it alive anyway
    _entries[id(fn)] = _Entry(ref, kind, blob, snapshots)
    return kind, blob


def function_of(fn: Callable[..., Any]) -> Function:
    """The record by which a function travels; the same one for what is the same in a worker."""
    kind, blob = portable(fn)
    key = (kind, blob)
    function = _functions.get(key)
    if function is None:
        if len(_functions) >= _FUNCTIONS_MOST:
            _functions.clear()
        function = _functions[key] = Function(kind, blob)
    return function


# Records by what they were made of. Each that is made anew is loaded anew by all workers.
_functions: dict[tuple[int, bytes], Function] = {}
_FUNCTIONS_MOST: Final = 1024


def load(kind: int, blob: bytes) -> Callable[..., Any]:
    """The function that `portable` has described.

    Raises:
      ImportError: Its module cannot be imported here.
      AttributeError: Its module is another one here.
    """
    if kind == BY_VALUE:
        made: Callable[..., Any] = pickle.loads(blob)
        return made
    module, name = bytes(blob).decode().split(":")
    found: Any = import_module(module)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AttributeError(
                f"module {module!r} has no {name!r} in this interpreter, where it was imported anew"
            ) from None
    function: Callable[..., Any] = found
    return function


# ---- What is known of functions ------------------------------------------------------------------


class _Snapshot:
    """What a function that travels by value consisted of."""

    __slots__ = ("_ids", "_kept", "_names", "_ref")

    def __init__(
        self, fn: FunctionType, names: list[str], values: list[object], kept: list[object]
    ) -> None:
        self._ref = weakref.ref(fn)
        self._names = names
        self._ids = list(map(id, values))
        # So that no other object gets the same id. Functions that travel by value have to be able
        # to die; the snapshots of their own tell.
        self._kept = kept

    def is_valid(self) -> bool:
        fn = self._ref()
        return fn is not None and list(map(id, _values(fn, self._names))) == self._ids


class _Entry:
    """A function, and what `portable` returned for it."""

    __slots__ = ("_snapshots", "blob", "kind", "ref")

    def __init__(
        self,
        ref: Callable[[], object],
        kind: int,
        blob: bytes,
        snapshots: tuple[_Snapshot, ...] | None,
    ) -> None:
        self.ref = ref
        self.kind = kind
        self.blob = blob
        self._snapshots = snapshots  # None: it can change without notice

    def is_valid(self) -> bool:
        snapshots = self._snapshots
        return snapshots is not None and all(snapshot.is_valid() for snapshot in snapshots)


_entries: dict[int, _Entry] = {}


def _same(fn: object) -> object:
    return fn


def _forget(key: int, ref: weakref.ref[Any]) -> None:
    entry = _entries.get(key)
    if entry is not None and entry.ref is ref:
        del _entries[key]


_ATOMS: Final = frozenset(
    (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), CodeType)
)
_EMPTY: Final = None  # what stands for an empty cell and a missing global


def _take_snapshots(fn: FunctionType) -> tuple[_Snapshot, ...] | None:
    """Snapshots of a function and of those that it uses; None if something of it is mutable."""
    snapshots = []
    found = {id(fn)}
    pending = [fn]
    while pending:
        fn = pending.pop()
        names = list(dict.fromkeys(_global_names(fn.__code__)))
        values = _values(fn, names)
        kept = []
        for value in values:
            if _is_immutable(value):
                kept.append(value)
            elif not isinstance(value, FunctionType):
                return None
            elif id(value) not in found:
                found.add(id(value))
                pending.append(value)
        snapshots.append(_Snapshot(fn, names, values, kept))
    return tuple(snapshots)


def _values(fn: FunctionType, names: list[str]) -> list[object]:
    """All that decides what a function does."""
    values: list[object] = [fn.__code__, fn.__defaults__]
    for mapping in (fn.__kwdefaults__, fn.__dict__):
        if mapping:
            values += mapping
            values += mapping.values()
    for cell in fn.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            values.append(_EMPTY)
    if names:
        get = fn.__globals__.get
        values += [get(name, _EMPTY) for name in names]
    return values


def _is_immutable(value: object) -> bool:
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(_is_immutable, value))  # type: ignore[call-overload]
    if kind is ModuleType:
        # Which of its submodules come along is decided by what is imported at the time.
        return not hasattr(value, "__path__")
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return reference(value) is not None
    return False


def _global_names(code: CodeType) -> Iterator[str]:
    from dis import get_instructions

    for instruction in get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
