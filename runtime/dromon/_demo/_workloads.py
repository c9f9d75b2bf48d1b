"""What the demo does with the files: work of C that lets go of the GIL, and pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ._files import crunch
from ._tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._files import File, Work


@attrs.frozen
class Workload:
    """The callable that all ways run.

    Attributes:
      name (str): What it does.
      function (Callable[[str], Work]): It does so to the file of a path.
      files (Sequence[File]): The files that it is for, in the order in which they are to be done.
    """

    name: str
    function: Callable[[str], Work]
    files: Sequence[File]


def workloads(files: Sequence[File]) -> Sequence[Workload]:
    """Return the workloads that these files are for: tokenizing takes files of Python."""
    sources = [file for file in files if file.path.endswith(".py")]
    tokenizing = [Workload("pure Python: tokenize and count", count_tokens, sources)]
    return [Workload("compress and hash", crunch, files), *(tokenizing if sources else [])]
