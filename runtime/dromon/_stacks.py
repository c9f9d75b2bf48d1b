"""The stacks of other threads, green or not."""

from __future__ import annotations

import threading

from ._bridge import frame_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from traceback import StackSummary
    from types import FrameType


def stack_of_thread(tid: int) -> StackSummary:
    """The stack of what runs on the thread with this kernel thread id, as `stack_of` has it."""
    idents = [thread.ident for thread in threading.enumerate() if thread.native_id == tid]
    return stack_of(frame_of(idents[0] or 0) if idents else None)


def stack_of(frame: FrameType | None) -> StackSummary:
    """The stack whose innermost frame this is, outermost first; empty if there is none.

    Lines of source are looked up when they are printed: that reads files.
    """
    import traceback  # takes its time, which an interpreter that prints nothing need not spend

    if frame is None:
        return traceback.StackSummary()
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    stack.reverse()
    return stack
