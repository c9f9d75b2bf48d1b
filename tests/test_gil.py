"""That the bridge reads right whether CPython's GIL is held, for which CPython has no function."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from child import check_child
from compiler import compile_library, needs_compiler

NATIVE = Path(__file__).parents[1] / "native"

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this build of Python has no GIL"
    ),
]

PROBE = """
#include "bridge/gil.c"

#include "core/search.c"

uint32_t dromon_longest_search_ns(void) {
  return 0;
}

int gil_is_held(void) {
  return is_held(PyInterpreterState_Main());
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = (NATIVE, NATIVE / "include", *map(sysconfig.get_path, ("include", "platinclude")))
    flags = [f"-I{folder}" for folder in folders]
    return compile_library(tmp_path_factory.mktemp("probe"), PROBE, "-D_GNU_SOURCE", *flags)


def test_a_gil_that_is_held_is_seen_to_be(probe: Path) -> None:
    check_child(
        f"""
        import ctypes
        assert ctypes.PyDLL({str(probe)!r}).gil_is_held()  # which it calls without giving it up
        """
    )


def test_a_gil_that_nobody_has_is_seen_to_be_free(probe: Path) -> None:
    check_child(
        f"""
        import ctypes
        assert not ctypes.CDLL({str(probe)!r}).gil_is_held()  # by the only thread there is
        """
    )
