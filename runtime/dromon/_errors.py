"""The exceptions that dromon itself raises."""

from __future__ import annotations

import errno
import os

import trio


class ClosedPoolError(trio.ClosedResourceError):
    """The pool was closed: by leaving its ``async with`` block, or because it belongs to the
    process that forked this one."""


class QueueFull(trio.WouldBlock):
    """The pool's queue is full, and the submitter did not want to wait for room."""


class SpawnError(OSError):
    """The workers of a pool could not be started.

    Attributes:
      errno (int): Why, as in `errno`.
      strerror (str): The system's words for it, and what can be done.
    """

    @classmethod
    def from_errno(cls, code: int, workers: int) -> SpawnError:
        reason = f"cannot start {workers} workers: {os.strerror(code)}"
        if code in _HINTS:
            reason += f"; {_HINTS[code]}"
        return cls(code, reason)


_HINTS = {
    errno.EAGAIN: "raise the limit on processes (ulimit -u, the cgroup's pids.max)"
    " or open fewer workers",
    errno.ENOMEM: "raise the limit on memory (ulimit -v, the cgroup's memory.max)"
    " or open fewer workers",
    errno.EPERM: "a sandbox forbids the clone3 system call; let its seccomp profile allow it,"
    " or answer ENOSYS",
}
