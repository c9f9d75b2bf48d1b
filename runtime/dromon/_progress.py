"""The progress bar of a map."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds between two drawings; each takes a millisecond or two of the trio loop.
REDRAW: Final = 0.25


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr, if that is a terminal, while the body calls what it is given.

    No thread draws it: that would compete with the workers for the GIL.
    """
    console = Console(stderr=True)
    progress = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    )
    task = progress.add_task("", total=total)
    drawn = 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal drawn
        progress.update(task, completed=done, total=total)
        if (now := time.monotonic()) - drawn >= REDRAW:
            drawn = now
            progress.refresh()

    with progress:
        yield tell
