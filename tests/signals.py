"""Ctrl-C at a moment that a test chooses."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def interrupt_the_waiting_main_thread() -> None:
    """Send SIGINT once the main thread sleeps, from a thread that has the GIL.

    One that came a moment earlier, between Python's look for signals and the system call that
    waits, would be seen only when the wait is over: Python's own locks have this gap.
    """
    stat = Path(f"/proc/self/task/{os.getpid()}/stat")
    # Who reads has let go of the GIL, so that it is not this which the main thread sleeps for.
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        pass
    os.kill(os.getpid(), signal.SIGINT)
