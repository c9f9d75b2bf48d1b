"""Where C code that uses the core finds its header and its library."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def get_include() -> str:
    """Return the folder to search for headers: for ``#include <dromon/dromon.h>``.

    Example::

        ffibuilder.set_source("_work", '#include "work.h"', include_dirs=[dromon.get_include()])
    """
    return str(_installed("include/dromon/dromon.h").parent.parent)


def get_library() -> str:
    """Return the path of ``libdromon.so``, the one that this process uses, to link against.

    Example::

        ffibuilder.set_source(..., extra_link_args=[dromon.get_library()])

    A program that is linked so finds the library at run time if it is loaded already, as it is
    after ``import dromon``, or by the run path (``-Wl,-rpath``).
    """
    return str(_installed("libdromon.so"))


def _installed(name: str) -> Path:
    from importlib.resources import as_file, files  # whose import takes a while

    # An editable install has its files all over the source and build trees.
    with as_file(files("dromon").joinpath(name)) as path:
        return path
