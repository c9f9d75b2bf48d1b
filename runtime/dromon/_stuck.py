"""Reports of workers that are stuck in a call while green threads wait for them; for debugging.

Only with ``DROMON_DEBUG=1`` in the environment. The pool's monitor thread finds them.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import attrs

from ._bridge import tasks
from ._green_dump import lines_of
from ._native import lib
from ._stacks import stack_of_thread
from ._statistics import WorkerStatistics, read_worker
from ._worker import forget_thread

# Seconds that green threads have waited for their worker before it counts as stuck. A variable, so
# that tests need not wait as long.
STUCK_AFTER = 1.0


@attrs.define(eq=False)
class StuckHook:
    """What a pool's monitor calls, on its own thread, for each worker that is stuck."""

    pool_name: str
    core: Any = attrs.field(default=None, init=False)  # the pool, once there is one

    def __call__(self, index: int, began: int, seconds: float) -> None:
        threading.current_thread().name = f"{self.pool_name}-monitor"
        try:
            report = _describe(read_worker(self.core, index, self.pool_name), seconds)
            # Asked afterwards: if it is the same call still, it was while its stack was looked at.
            if lib.dromon_pool_read_began(self.core, index) == began and sys.stderr is not None:
                sys.stderr.write(report)
                sys.stderr.flush()
        finally:
            forget_thread()


def _describe(worker: WorkerStatistics, seconds: float) -> str:
    lines = [
        f"dromon: {worker.name} (thread {worker.tid}) has kept green threads waiting for"
        f" {seconds:.1f} s that could go on. If it waits for something that one of them holds, as a"
        " lock of threading, it waits for ever: hold none of those across a wait, or use"
        " dromon.green.Lock.",
        f"{worker.name} is at",
        *_lines_of_stack(worker.tid),
    ]
    ready = [task for task in tasks() if task.native_id == worker.tid and task.state == "ready"]
    if ready:  # else they are of another interpreter
        lines.append("and these could go on:")
    for task in ready:
        lines += lines_of(task, "  ")
    return "\n".join(lines) + "\n"


def _lines_of_stack(tid: int) -> list[str]:
    lines = "".join(stack_of_thread(tid).format()).splitlines()
    return lines or ["  (no Python code of this interpreter)"]
