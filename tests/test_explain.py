"""`dromon.explain`: where a call can run, and why not elsewhere."""

from __future__ import annotations

import functools
import json
import math
import sys
import threading
from pathlib import Path

import attrs
import pytest
from child import check_child

import dromon
from dromon import Explanation, _explain, explain

needs_isolation = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share one GIL"
)


@needs_isolation
def test_what_can_be_loaded_can_run_anywhere() -> None:
    assert explain(json.dumps, {"a": [1]}, memoryview(b"data"), dromon.writable(bytearray(2))) == (
        Explanation("dumps", True, True, None, None, "by reference")
    )
    assert explain(lambda: math.pi) == Explanation(
        "test_what_can_be_loaded_can_run_anywhere.<locals>.<lambda>",
        True,
        True,
        travels="by value",
    )


@needs_isolation
def test_nothing_is_called(tmp_path: Path) -> None:
    assert explain(tmp_path.joinpath("called").touch).interpreter
    assert not tmp_path.joinpath("called").exists()


@needs_isolation
@pytest.mark.parametrize("by_value", [False, True])
def test_the_module_that_refuses_is_named(by_value: bool) -> None:
    import _cffi_backend

    fn = (lambda: _cffi_backend.callback) if by_value else _cffi_backend.callback
    explanation = explain(fn)
    assert (explanation.thread, explanation.interpreter) == (True, False)
    assert explanation.module == "_cffi_backend"
    assert explanation.travels == ("by value" if by_value else "by reference")
    assert "'_cffi_backend' does not load" in str(explanation.reason)


@needs_isolation
def test_arguments_are_loaded_too() -> None:
    numpy = pytest.importorskip("numpy")
    explanation = explain(len, numpy.arange(3))
    assert not explanation.interpreter
    assert explanation.module == "numpy._core._multiarray_umath"


@needs_isolation
def test_imports_in_the_body_are_not_seen() -> None:
    def use_cffi() -> None:
        import _cffi_backend  # noqa: F401

    assert explain(use_cffi).interpreter


@needs_isolation
def test_what_cannot_travel_is_named() -> None:
    lock = threading.Lock()
    explanation = explain(json.dumps, {"lock": lock})
    assert not explanation.interpreter
    assert explanation.reason is not None
    assert explanation.reason.startswith("the arguments cannot travel: TypeError: cannot pickle")
    explanation = explain(lambda: lock)
    assert (explanation.interpreter, explanation.travels) == (False, None)
    assert str(explanation.reason).startswith(
        "the function cannot travel: TypeError: cannot pickle"
    )


async def asynchronous() -> None:
    pass


@pytest.mark.parametrize("fn", [asynchronous, functools.partial(asynchronous), 3])
def test_what_is_no_sync_callable_can_run_nowhere(fn: object) -> None:
    explanation = explain(fn)  # type: ignore[arg-type]
    assert (explanation.thread, explanation.interpreter) == (False, False)
    assert explanation.reason is not None


@needs_isolation
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "loading it ended the process by SIGSEGV",
        ),
        ("import os; os._exit(3)", "loading it ended the process with status 3"),
        (
            "raise LookupError('why')",
            "it cannot be loaded in another interpreter: LookupError: why",
        ),
        ("raise SystemExit", "it cannot be loaded in another interpreter: SystemExit: "),
        ("print('noise'); import os; os.write(1, b'noise')", None),
        ("import time; time.sleep(1000)", "loading it has not ended in 2 seconds"),
    ],
)
def test_a_module_may_do_what_it_likes_as_it_is_imported(
    code: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("wild.py").write_text(
        "import dromon._bridge\n"
        f"if not dromon._bridge.is_main_interpreter():\n    {code}\n"
        "def fn(): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    if "sleep" in code:
        monkeypatch.setattr(_explain, "_SECONDS", 2.0)
    import wild  # type: ignore[import-not-found]

    try:
        explanation = explain(wild.fn)
    finally:
        del sys.modules["wild"]
    assert explanation.reason == reason
    assert explanation.interpreter is (reason is None)


@needs_isolation
def test_without_a_python_to_start_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "cannot start a process" in str(explain(len).reason)


@needs_isolation
def test_functions_of_a_script_are_explained() -> None:
    check_child(
        """
        import dromon
        def double(x): return 2 * x
        print(dromon.explain(double, 1))
        """,
        "double\n  thread: yes\n  interpreter: yes, the function travels by value",
    )


def test_as_text_it_is_for_people() -> None:
    explanation = Explanation("f", True, False, "it is so", "m", "by reference")
    assert str(explanation) == (
        "f\n  thread: yes\n  interpreter: no, the function travels by reference\n  reason: it is so"
    )
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        explanation.thread = False  # type: ignore[misc]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has such interpreters")
def test_before_python_3_12_the_reason_says_so() -> None:
    explanation = explain(len, "four")
    assert (explanation.thread, explanation.interpreter) == (True, False)
    assert "need Python 3.12 or later" in str(explanation.reason)
