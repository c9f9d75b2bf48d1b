"""What calls of isolated workers do, in tests: found by reference, so it imports what is light.

And how such calls tell the test where they are: through pipes, whose descriptors travel as numbers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import dromon

CAN_ISOLATE = sys.version_info >= (3, 12)
WHY_NOT = "interpreters with a GIL of their own need Python 3.12"

colour: ContextVar[str] = ContextVar("colour", default="none")
shape: ContextVar[object] = ContextVar("shape")

loaded = 0  # how often something has asked for it, see `count`


class Pipe:
    """A signal of a call, which is given by `give` with the descriptor of the writer."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)

    def is_given(self) -> bool:
        try:
            return bool(os.read(self._reader, 1))
        except BlockingIOError:
            return False

    async def wait(self) -> None:
        """Wait until it has been given, and take it."""
        from trio.lowlevel import wait_readable

        while not self.is_given():
            await wait_readable(self._reader)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self.writer)


def give(descriptor: int) -> None:
    os.write(descriptor, b"!")


def spin(begun: int) -> None:
    """Runs Python code until it is interrupted."""
    give(begun)
    while True:
        pass


def spin_until(end: memoryview) -> None:
    """Runs Python code until the byte that is shared says that it may end."""
    while not end[0]:
        pass


def swallow(begun: int, caught: int, end: memoryview) -> str:
    """Goes on after each interrupt, until it may end."""
    signal = begun
    while True:
        try:
            give(signal)
            spin_until(end)
        except BaseException:
            signal = caught
        else:
            return "ended"


def count() -> int:
    global loaded
    loaded += 1
    return loaded


def get_colour() -> str:
    return colour.get()


def get_shape() -> object:
    return shape.get()


def change_colour(to: str = "changed") -> str:
    before = colour.get()
    colour.set(to)
    return before


def ask(fn: Callable[..., Any], *args: object) -> Any:
    """Have an async function run in trio."""
    return dromon.from_thread.run(fn, *args)


def ask_sync(fn: Callable[..., Any], *args: object) -> Any:
    """Have a sync function run in trio."""
    return dromon.from_thread.run_sync(fn, *args)


_noted = ""


def note_colour() -> None:
    global _noted
    _noted = colour.get()


def noted_colour() -> str:
    return _noted


def counted() -> int:
    return loaded


def refuse() -> None:
    raise LookupError("not today")


def path_and_arguments() -> tuple[list[str], list[str]]:
    return sys.path, sys.argv


def mask_of_a_new_process() -> str:
    """The signals that a process blocks which the calling thread starts."""
    import subprocess

    status = subprocess.run(
        ["cat", "/proc/self/status"], capture_output=True, text=True, check=True
    ).stdout
    return next(line for line in status.splitlines() if line.startswith("SigBlk"))


def start_thread_that_marks(path: str) -> None:
    """Start a thread that makes a file once there is another one, ``go``, beside it."""
    import threading

    def mark() -> None:
        while not os.path.exists(os.path.join(os.path.dirname(path), "go")):
            time.sleep(0.001)
        with open(path, "w"):
            pass

    threading.Thread(target=mark).start()
