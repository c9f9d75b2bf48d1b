"""The build backend (PEP 517 and 660): meson-python, with editable installs that last.

meson-python's editable installs run ninja at import to rebuild what has changed. After a plain
``pip install -e .`` that cannot work: pip has removed the environment that held the build tools.
So ninja is called through a small script that, once they are gone, takes what was built as it is.
With ``--no-build-isolation`` the tools stay and every import rebuilds.
"""

import os
import shlex
import shutil
from pathlib import Path

import mesonpy
from mesonpy import build_sdist as build_sdist
from mesonpy import build_wheel as build_wheel
from mesonpy import get_requires_for_build_editable as get_requires_for_build_editable
from mesonpy import get_requires_for_build_sdist as get_requires_for_build_sdist
from mesonpy import get_requires_for_build_wheel as get_requires_for_build_wheel

SCRIPT = """\
#!/bin/sh
# Made by native/build_backend.py, which says why.
if [ -e {tools} ]; then
  exec {ninja} "$@"
fi
"""


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, object] | None = None,
    metadata_directory: str | None = None,
) -> str:
    ninja = os.environ.get("NINJA") or shutil.which("ninja")
    if ninja is not None:  # else meson-python itself says what is missing
        script = Path("build", "ninja").absolute()
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            SCRIPT.format(tools=shlex.quote(mesonpy.__file__), ninja=shlex.quote(ninja))
        )
        script.chmod(0o755)
        os.environ["NINJA"] = str(script)
    return mesonpy.build_editable(wheel_directory, config_settings, metadata_directory)
