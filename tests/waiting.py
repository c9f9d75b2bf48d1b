"""What tests of green threads share that look at others while these wait."""

from __future__ import annotations

import io
from typing import Any

from dromon import green


def let_wait(*tasks: green.Task[Any]) -> None:
    """Return when all of them wait, which none may do too briefly to be seen; in a green thread."""
    while not all(task.state == "waiting" for task in tasks):
        assert not any(task.done() for task in tasks)
        green.checkpoint()


def wait_inside(event: green.Event) -> None:
    """A function whose name is looked for."""
    event.wait()


def dumped() -> str:
    file = io.StringIO()
    green.dump(file)
    return file.getvalue()


def dump_in_there(event_name: str) -> str:
    event = green.Event()
    with green.open_scope() as scope:
        task = scope.spawn(event.wait, name=event_name)
        let_wait(task)
        text = dumped()
        event.set()
    return text
