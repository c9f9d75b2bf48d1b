"""System calls that the kernel refuses, as in a sandbox; for a child process, which keeps it so."""

from __future__ import annotations

import ctypes
import os

CLONE3 = 435  # on every processor

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_FILTER = 2  # SECCOMP_MODE_FILTER


class _Instruction(ctypes.Structure):
    """``struct sock_filter`` of <linux/filter.h>."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_if_true", ctypes.c_uint8),
        ("jump_if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse(call: int, error: int) -> None:
    """Let the call fail so, in this thread and all that it starts.

    Raises:
      OSError: This process may not have such filters.
    """
    instructions = (_Instruction * 4)(
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, call),  # is it this one?
        (0x06, 0, 0, 0x00050000 | error),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    program = _Program(len(instructions), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
        or libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) < 0
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
