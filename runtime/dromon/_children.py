"""Processes that a worker starts begin with the signals of its program, not with those of workers.

A worker blocks all asynchronous signals, and a new process inherits what the thread that starts it
blocks: SIGTERM would not end it, nor Ctrl-C, and nothing in it would say why. `subprocess` and
`multiprocessing` cannot be asked for another mask. So the worker gives it one: in the child of a
fork, by the hook for that, and where they call ``fork_exec`` and `os.posix_spawn`, without hooks.
`os.system` is left as it is.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import os
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

# What new processes shall block: as whoever opened the last pool.
_mask: Iterable[int] = ()
_workers: set[int] = set()  # their idents


def remember_mask() -> None:
    """Let what workers start block what the calling thread blocks."""
    use_mask(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def use_mask(mask: Iterable[int]) -> None:
    """Let what workers start block these signals."""
    global _mask
    _mask = mask


def add_worker() -> None:
    """The calling thread is a worker."""
    _workers.add(threading.get_ident())


def remove_worker() -> None:
    """The calling thread is no longer one."""
    _workers.discard(threading.get_ident())


def _after_fork() -> None:
    if threading.get_ident() in _workers:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)
    _workers.clear()


def _fork_exec_with_mask(fork_exec: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(fork_exec)
    def with_mask(*args: object) -> int:
        if threading.get_ident() not in _workers:
            return fork_exec(*args)
        # fork_exec gives the child this mask, and at once blocks all signals here until then.
        previous = signal.pthread_sigmask(signal.SIG_SETMASK, _mask)
        try:
            return fork_exec(*args)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    return with_mask


def _spawn_with_mask(spawn: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(spawn)
    def with_mask(*args: Any, **options: Any) -> int:
        if threading.get_ident() in _workers:
            options.setdefault("setsigmask", _mask)
        return spawn(*args, **options)

    return with_mask


os.register_at_fork(after_in_child=_after_fork)
# `multiprocessing` calls the first, `subprocess` the second or the third.
_posixsubprocess.fork_exec = _fork_exec_with_mask(_posixsubprocess.fork_exec)
if (subprocess := sys.modules.get("subprocess")) is not None:  # else it will take that one
    subprocess._fork_exec = _posixsubprocess.fork_exec  # type: ignore[attr-defined]
os.posix_spawn = _spawn_with_mask(os.posix_spawn)
os.posix_spawnp = _spawn_with_mask(os.posix_spawnp)
