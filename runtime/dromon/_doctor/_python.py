"""The running Python."""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib.metadata import version

import attrs


@attrs.frozen
class PythonFacts:
    """The running Python, and what dromon rests on.

    Attributes:
      version (str): Its version.
      implementation (str): ``"CPython"`` or another.
      build (str): When it was built, of what, and by which compiler.
      debug (bool): Whether it is a debug build.
      gil (str): ``"on"``; ``"off"`` in a free-threaded build; ``"on again"`` there, if an extension
          module or the user has switched it on.
      packages (dict[str, str]): The versions of dromon, trio and cffi.
    """

    version: str
    implementation: str
    build: str
    debug: bool
    gil: str
    packages: dict[str, str]

    @classmethod
    def examine(cls) -> PythonFacts:
        number, date = platform.python_build()
        return cls(
            version=platform.python_version(),
            implementation=platform.python_implementation(),
            build=f"{number}, {date}, {platform.python_compiler()}",
            debug=bool(sysconfig.get_config_var("Py_DEBUG")),
            gil=_gil(),
            packages={name: version(name) for name in ("dromon", "trio", "cffi")},
        )


def _gil() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "on"
    if sys.version_info >= (3, 13) and sys._is_gil_enabled():
        return "on again"
    return "off"
