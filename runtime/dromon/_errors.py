"""The exceptions that dromon itself raises."""

from __future__ import annotations

import errno
import os

from ._bridge import Interrupted as Interrupted
from ._bridge import is_main_interpreter

TYPE_CHECKING = False  # not from typing, whose import takes a while
if TYPE_CHECKING or is_main_interpreter():
    from trio import ClosedResourceError, WouldBlock
else:  # where trio takes long to load, and does not load before Python 3.13
    ClosedResourceError = WouldBlock = Exception


class ClosedPoolError(ClosedResourceError):
    """The pool was closed: by leaving its ``async with`` block, or because it belongs to the
    process that forked this one."""


class QueueFull(WouldBlock):
    """The pool's queue is full, and the submitter did not want to wait for room."""


class IsolationError(RuntimeError):
    """What was asked for does not work in an interpreter of a worker's own.

    Attributes:
      module (str | None): The extension module that refuses such interpreters, if it is one.
    """

    def __init__(self, message: str, module: str | None = None) -> None:
        super().__init__(message)
        self.module = module


def no_isolate(reason: str) -> IsolationError:
    """What a call raises whose worker has no interpreter to run it in."""
    return IsolationError(f"a worker could not make an interpreter of its own: {reason}")


class SpawnError(OSError):
    """The system refused what a pool needs: threads, or the descriptor by which a trio run hears
    that its calls have ended.

    Attributes:
      errno (int): Why, as in `errno`.
      strerror (str): What could not be done, the system's words for it, and what can be done.
    """

    @classmethod
    def from_errno(cls, code: int, attempt: str, hint: str | None = None) -> SpawnError:
        hint = hint or _HINTS.get(code)
        reason = f"{attempt}: {os.strerror(code)}"
        return cls(code, reason if hint is None else f"{reason}; {hint}")


_HINTS = {
    errno.EAGAIN: "raise the limit on processes (ulimit -u, the cgroup's pids.max, the sysctl"
    " kernel.threads-max) or on memory (ulimit -v), or open fewer workers",
    errno.ENOMEM: "raise the limit on memory (ulimit -v, the cgroup's memory.max) or on mappings"
    " (the sysctl vm.max_map_count), or open fewer workers",
    errno.EACCES: "a nice value below that of this thread takes the capability CAP_SYS_NICE or a"
    " higher limit on it (RLIMIT_NICE, ulimit -e)",
    errno.EPERM: "a sandbox forbids the clone3 system call; let its seccomp profile allow it,"
    " or answer ENOSYS",
    errno.EMFILE: "raise the limit on open files (ulimit -n) or close some",
    errno.ENFILE: "raise the system's limit on open files (the sysctl fs.file-max) or close some",
    errno.EIO: "a worker met an exception as it began, which sys.unraisablehook was given",
}
