"""C functions and their arguments, as Python programs name them, made into addresses."""

from __future__ import annotations

import ctypes
import reprlib
from _ctypes import CFuncPtr
from numbers import Integral

from ._native import ffi

_CTYPES_POINTERS = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p, ctypes._Pointer, CFuncPtr)
_CTYPES_DATA = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._SimpleCData)
_POINTER_KINDS = ("pointer", "array", "function")


def function_address(fn: object) -> int:
    """Return the address of a C function given in one of the ways of `dromon.Pool.run_native`."""
    address: object = None
    if isinstance(fn, Integral) and not isinstance(fn, bool):
        address = int(fn)
    elif isinstance(fn, ffi.CData) and ffi.typeof(fn).kind in _POINTER_KINDS:
        address = int(ffi.cast("uintptr_t", fn))
    elif isinstance(fn, CFuncPtr):
        address = ctypes.cast(fn, ctypes.c_void_p).value or 0
    else:
        address = getattr(fn, "address", None)  # numba's cfunc
    if not isinstance(address, int):
        raise TypeError(
            "fn must be a C function: cffi's ffi.addressof(lib, name), a ctypes function, a numba"
            f" cfunc or an address, not {fn!r}"
        )
    if not 0 < address < 1 << 64:
        raise ValueError(f"fn must be the address of a C function, not {address:#x}")
    return address


def argument_address(arg: object) -> tuple[int, object]:
    """Return the address that a C function gets for `arg`, and what must live until it ends."""
    if arg is None:
        return 0, None
    if isinstance(arg, Integral) and not isinstance(arg, bool):
        number = int(arg)
        if not 0 <= number < 1 << 64:
            raise ValueError(f"arg must be an address, not {number}")
        return number, None
    if isinstance(arg, ffi.CData):
        if ffi.typeof(arg).kind not in _POINTER_KINDS:
            raise TypeError(f"arg must be a pointer or an array, not {arg!r}")
        return int(ffi.cast("uintptr_t", arg)), arg
    if isinstance(arg, _CTYPES_POINTERS):
        return ctypes.cast(arg, ctypes.c_void_p).value or 0, arg
    if isinstance(arg, _CTYPES_DATA):
        return ctypes.addressof(arg), arg
    try:
        buffer = ffi.from_buffer(arg)
    except (TypeError, ValueError, BufferError):
        raise TypeError(
            "arg must be a pointer of cffi or ctypes, a ctypes object, a C-contiguous buffer, an"
            f" address or None, not {reprlib.repr(arg)} ({type(arg).__name__})"
        ) from None
    return int(ffi.cast("uintptr_t", buffer)), buffer
