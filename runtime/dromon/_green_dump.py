"""`dromon.green.dump`: all green tasks, for people to read."""

from __future__ import annotations

import sys
import threading
from collections import Counter, defaultdict
from itertools import pairwise

from ._bridge import Lock, RLock, Scope, Task, tasks
from ._stacks import stack_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO, TypeAlias

    AnyTask: TypeAlias = Task[Any]


def dump(file: TextIO | None = None) -> None:
    """Print all green tasks of this interpreter that have not ended, as a tree.

    Each one with its state, what it waits in and for, and its stack. Tasks that wait for each other
    in a circle, by locks, scopes and results, are named first: they will never go on. For a program
    that hangs: from any thread, a signal's handler or a debugger. The tasks go on meanwhile.

    A call of a pool is a task once it has waited, spawned or asked for its task. A worker with an
    interpreter of its own (``isolation="interpreter"``) has its own tasks: it is seen only by what
    runs in there.

    Args:
      file (TextIO | None): Where to. By default `sys.stderr`.

    Example::

        signal.signal(signal.SIGUSR1, lambda *_: dromon.green.dump())
    """
    if file is None:
        file = sys.stderr
    if file is not None:  # as where there is no console
        file.write(format_dump())
        file.flush()


def format_dump() -> str:
    """What `dump` prints."""
    every = tasks()[::-1]  # oldest first
    states = Counter(task.state for task in every)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"green tasks: {len(every)}" + (f" ({counts})" if every else "")]
    for cycle in find_cycles(every):
        lines += _lines_of_cycle(cycle)
    lines += _tree(every)
    return "\n".join(lines) + "\n"


# ---- One task ------------------------------------------------------------------------------------


def describe(task: AnyTask) -> str:
    """A task's name, its state, and what it waits in and for; in one line."""
    text = f"{task.name}: {task.state}"
    if (doing := task.doing) is not None:
        text += f" in {doing}"
        if (awaited := task.waits_for) is not None:
            text += f" for {_describe_awaited(awaited)}"
    if task.blocks:
        text += ", and blocks its thread, since it cannot park here"
    return text


def _describe_awaited(awaited: object) -> str:
    if isinstance(awaited, Task):
        return f"task {awaited.name}"
    if isinstance(awaited, Scope):
        return "its children"
    text = f"<{type(awaited).__qualname__} at {id(awaited):#x}>"
    owner = awaited.owner if isinstance(awaited, (Lock, RLock)) else None
    if isinstance(owner, Task):
        text += f" of task {owner.name}"
    elif owner is not None:
        text += f" of thread {owner}"
    return text


def lines_of(task: AnyTask, indent: str = "") -> Iterator[str]:
    """That line, and the stack below it."""
    yield indent + describe(task)
    awaited = task.waits_for
    if isinstance(awaited, Task) and awaited.ident == task.ident is not None:
        yield f"{indent}  (that runs in place of the wait, on the same stack)"
        return
    for line in "".join(stack_of(task.frame).format()).splitlines():
        yield indent + line


# ---- The tree ------------------------------------------------------------------------------------

_INDENT = "    "
_INDENTS_MOST = 10  # what is deeper is as far to the right


def _tree(every: list[AnyTask]) -> Iterator[str]:
    threads = {
        thread.native_id: f" ({getattr(thread, 'worker_name', thread.name)})"
        for thread in threading.enumerate()
    }
    known = set(every)
    children: defaultdict[AnyTask | None, list[AnyTask]] = defaultdict(list)
    for task in every:
        children[task.parent if task.parent in known else None].append(task)
    left = [(task, 0) for task in reversed(children[None])]
    while left:
        task, depth = left.pop()
        first, *rest = lines_of(task, _INDENT * min(depth, _INDENTS_MOST))
        yield first + threads.get(task.native_id, "")
        yield from rest
        left += [(child, depth + 1) for child in reversed(children[task])]


# ---- Cycles --------------------------------------------------------------------------------------


def _lines_of_cycle(cycle: list[AnyTask]) -> Iterator[str]:
    yield "wait cycle (deadlock):"
    for task, awaited in pairwise([*cycle, cycle[0]]):
        yield f"  {task.name} waits in {task.doing} for {awaited.name}"


def find_cycles(every: list[AnyTask]) -> list[list[AnyTask]]:
    """The circles in which tasks wait for each other, each once."""
    awaited = _awaited_tasks(every)
    cycles = []
    seen: set[AnyTask] = set()
    for first in every:
        path: dict[AnyTask, Iterator[AnyTask]] = {}  # from task to task, and what is left of each
        task: AnyTask | None = first
        while task is not None or path:
            if task is None:
                path.popitem()
            elif task in path:
                tasks_on_path = list(path)
                cycles.append(tasks_on_path[tasks_on_path.index(task) :])
            elif task not in seen:
                seen.add(task)
                path[task] = iter(awaited.get(task, ()))
            task = next(path[next(reversed(path))], None) if path else None
    return cycles


def _awaited_tasks(every: list[AnyTask]) -> dict[AnyTask, list[AnyTask]]:
    """For each that waits: which ones all have to do something before it can go on."""
    children: defaultdict[Scope | None, list[AnyTask]] = defaultdict(list)
    for task in every:
        children[task.scope].append(task)
    awaited_tasks = {}
    for task in every:
        awaited = task.waits_for if task.state == "waiting" else None
        if isinstance(awaited, (Lock, RLock)):
            awaited = awaited.owner
        if isinstance(awaited, Scope):
            awaited_tasks[task] = children[awaited]
        elif isinstance(awaited, Task):
            awaited_tasks[task] = [awaited]
    return awaited_tasks
