"""What is another thing on a build of Python without a GIL."""

from __future__ import annotations

import sysconfig

import pytest

frees_at_once = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without a GIL, what a thread made and another dropped waits until the first runs again",
)
"""For a test that an idle thread keeps nothing, without a garbage collection."""
