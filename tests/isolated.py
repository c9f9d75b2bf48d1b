"""An interpreter with a GIL of its own, in a child process (as made by `child`)."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from dromon import _pickling

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

# The package itself is not imported there: only the modules that are light.
_SET_UP = """
import pickle, sys, types
sys.path[:] = {path!r}
dromon = types.ModuleType("dromon")
dromon.__path__ = [{package!r}]
sys.modules["dromon"] = dromon
from dromon import _functions, _pickling, _remote
"""
_RUN = """
with open({file!r}, "rb") as file:
    given = pickle.load(file)
{source}
with open({file!r}, "wb") as file:
    pickle.dump(result, file)
"""


class Isolated:
    """Runs statements that make `result` out of `given`, both of which are plain data."""

    def __init__(self) -> None:
        self._file = str(Path(tempfile.mkdtemp()) / "data")
        self._id = (
            interpreters.create()
            if sys.version_info >= (3, 13)
            else interpreters.create(isolated=True)
        )
        package = os.path.dirname(str(_pickling.__file__))
        self._exec(_SET_UP.format(path=[*sys.path, os.getcwd()], package=package))

    def run(self, source: str, given: object = None) -> Any:
        with open(self._file, "wb") as file:
            pickle.dump(given, file)
        self._exec(_RUN.format(file=self._file, source=textwrap.dedent(source)))
        with open(self._file, "rb") as file:
            return pickle.load(file)

    def _exec(self, source: str) -> None:
        failure = interpreters.run_string(self._id, source)
        assert failure is None, failure.errdisplay


def leave() -> None:
    """End the process, and leave its interpreters as they are."""
    sys.stdout.flush()
    os._exit(0)
