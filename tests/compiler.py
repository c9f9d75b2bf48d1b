"""C code that a test brings along, compiled on the spot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed")


def compile_library(folder: Path, source: str, *flags: str) -> Path:
    """Compile C code to a shared library in a folder, and return where it is."""
    file, library = folder / "library.c", folder / "library.so"
    file.write_text(source)
    command = [str(COMPILER), "-O1", "-shared", "-fPIC", *flags, str(file), "-o", str(library)]
    subprocess.run(command, check=True)
    return library
