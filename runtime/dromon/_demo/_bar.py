"""The progress bar of the demo."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds between two drawings; each takes a millisecond or two of the trio loop.
REDRAW: Final = 0.25


class Bar:
    """A progress bar that is seen only on a terminal.

    It is drawn by the calls that move it: a thread that draws would compete with those that are
    measured, and would be there when the bare processes are forked.
    """

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            disable=not stream.isatty(),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._drawn = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the body runs."""
        with self._progress:
            yield

    def start(self, text: str, total: int) -> None:
        """Go back to zero, say what is under way, and how far `advance` will go."""
        self._progress.reset(self._task, description=text, total=total)
        self._progress.refresh()

    def name(self, text: str) -> None:
        """Say what is under way from here on."""
        self._progress.update(self._task, description=text)
        self._progress.refresh()

    def advance(self, amount: int) -> None:
        """Move the bar on."""
        self._progress.advance(self._task, amount)
        now = time.monotonic()
        if now - self._drawn >= REDRAW:
            self._drawn = now
            self._progress.refresh()
