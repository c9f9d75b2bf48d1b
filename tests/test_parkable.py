"""Whether what a thread runs may be parked."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import threading
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from isolated_functions import CAN_ISOLATE, WHY_NOT

import dromon
from dromon import _bridge

MODULE = "imported_by_test_parkable"


class Importer(MetaPathFinder, Loader):
    """Whoever imports `MODULE` calls a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == MODULE else None

    def exec_module(self, module: ModuleType) -> None:
        self._function()


@pytest.fixture
def import_it(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Returns a function that imports a module, which calls what it is given."""

    def import_it(function: Callable[[], object]) -> None:
        monkeypatch.setattr(sys, "meta_path", [Importer(function), *sys.meta_path])
        monkeypatch.delitem(sys.modules, MODULE, raising=False)
        importlib.import_module(MODULE)

    return import_it


class Finalized:
    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __del__(self) -> None:
        self.function()


def collect(finalized: Any) -> None:
    """Have the garbage collector finalize it."""
    finalized.cycle = finalized
    del finalized
    gc.collect()


def in_finalizer(function: Callable[[], object]) -> None:
    collect(Finalized(function))


def at_depth(levels: int, function: Callable[[], object]) -> object:
    """Calls it from Python code, which C code calls, which Python code calls, and so on."""
    if levels == 0:
        return function()
    return functools.partial(at_depth, levels - 1, function)()


def asked_in(surroundings: Callable[[Callable[[], object]], object]) -> str:
    """What `parkable` says when it is called there."""
    answers: list[str] = []
    surroundings(lambda: answers.append(_bridge.parkable()))
    [answer] = answers
    return answer


def asked_beside(surroundings: Callable[[Callable[[], object]], None]) -> str:
    """What `parkable` says here while another thread is in there."""
    began, end = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        end.wait(30)

    thread = threading.Thread(target=surroundings, args=(wait,))
    thread.start()
    began.wait(30)
    answer = _bridge.parkable()
    end.set()
    thread.join()
    return answer


def test_a_function_is_parkable() -> None:
    assert _bridge.parkable() == ""


def test_a_call_without_python_code_is_parkable() -> None:
    with dromon.Pool(1) as pool:
        assert pool.submit(_bridge.parkable).result() == ""


# ---- Finalizers ----------------------------------------------------------------------------------


def test_a_finalizer_is_not_parkable() -> None:
    assert asked_in(in_finalizer) == "finalizer"


def test_what_a_finalizer_calls_is_not_parkable_at_any_depth() -> None:
    def deep_in_finalizer(function: Callable[[], object]) -> None:
        in_finalizer(lambda: at_depth(30, function))

    assert asked_in(deep_in_finalizer) == "finalizer"


def test_a_finalizer_that_is_called_since_the_last_reference_is_gone_is_parkable() -> None:
    assert asked_in(lambda function: str(Finalized(function))) == ""


def test_a_finalizer_whose_name_was_made_at_run_time_is_not_parkable() -> None:
    def finalize(self: object) -> None:
        self.function()  # type: ignore[attr-defined]

    finalize.__code__ = finalize.__code__.replace(co_name="".join(["__del", "__"]))
    finalized: Any = type("Finalized", (), {"__del__": finalize})
    garbage: list[Any] = []

    def in_it(function: Callable[[], object]) -> None:
        an_object = finalized()
        an_object.function = function
        garbage.append(an_object)
        del an_object
        collect(garbage.pop())

    assert asked_in(in_it) == "finalizer"


def test_what_comes_after_a_finalizer_is_parkable() -> None:
    in_finalizer(lambda: None)
    assert _bridge.parkable() == ""


def test_a_finalizer_of_another_thread_does_not_matter() -> None:
    assert asked_beside(in_finalizer) == ""


def test_other_names_of_the_same_length_are_parkable() -> None:
    def __add__() -> str:  # noqa: N807
        return _bridge.parkable()

    assert __add__() == ""


def test_python_code_that_c_code_calls_is_parkable_at_any_depth() -> None:
    assert at_depth(30, _bridge.parkable) == ""


# ---- Imports -------------------------------------------------------------------------------------


def test_an_import_is_not_parkable(import_it: Callable[[Callable[[], object]], None]) -> None:
    assert asked_in(import_it) == "import"


def test_what_comes_after_an_import_within_another_is_not_parkable(
    import_it: Callable[[Callable[[], object]], None],
) -> None:
    def after_another(function: Callable[[], object]) -> None:
        def imported() -> None:
            import_it(lambda: None)
            function()

        import_it(imported)

    assert asked_in(after_another) == "import"


def test_what_comes_after_an_import_is_parkable(
    import_it: Callable[[Callable[[], object]], None],
) -> None:
    import_it(lambda: None)
    assert _bridge.parkable() == ""


def test_what_comes_after_an_import_that_failed_is_parkable(
    import_it: Callable[[Callable[[], object]], None],
) -> None:
    with pytest.raises(ZeroDivisionError):
        import_it(lambda: 1 // 0)
    assert _bridge.parkable() == ""


def test_an_import_in_another_thread_does_not_matter(
    import_it: Callable[[Callable[[], object]], None],
) -> None:
    assert asked_beside(import_it) == ""


# ---- Greenlets -----------------------------------------------------------------------------------


@pytest.fixture
def greenlet() -> Any:
    return pytest.importorskip("greenlet", reason="greenlet does not install here")


def test_a_greenlet_is_not_parkable(greenlet: Any) -> None:
    assert asked_in(lambda function: greenlet.greenlet(function).switch()) == "greenlet"


def test_what_comes_after_a_greenlet_is_parkable(greenlet: Any) -> None:
    greenlet.greenlet(lambda: None).switch()
    assert _bridge.parkable() == ""


def test_a_thread_with_a_greenlet_that_is_suspended_is_parkable(greenlet: Any) -> None:
    suspended = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
    suspended.switch()
    answer = _bridge.parkable()
    suspended.switch()
    assert answer == ""


def test_a_greenlet_of_another_thread_does_not_matter(greenlet: Any) -> None:
    began, end = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        end.wait(30)

    thread = threading.Thread(target=lambda: greenlet.greenlet(wait).switch())
    thread.start()
    began.wait(30)
    answer = _bridge.parkable()
    end.set()
    thread.join()
    assert answer == ""


@pytest.mark.parametrize("attribute", [1, lambda: 1, lambda: 1 // 0])
def test_a_module_that_only_has_the_name_of_greenlet_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, attribute: object
) -> None:
    module = ModuleType("greenlet")
    vars(module)["getcurrent"] = attribute
    monkeypatch.setitem(sys.modules, "greenlet", module)
    assert _bridge.parkable() == ""


# ---- Interpreters with a GIL of their own --------------------------------------------------------


def asked_in_isolation(where: str) -> str:
    """What it says in an interpreter that has nothing of this module."""
    import gc
    import sys
    from importlib.abc import MetaPathFinder

    from dromon import _bridge

    answers = []

    class Asks(MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "no_such_module":
                answers.append(_bridge.parkable())

        def __del__(self) -> None:
            answers.append(_bridge.parkable())

    if where == "function":
        answers.append(_bridge.parkable())
    elif where == "finalizer":
        asks = Asks()
        asks.cycle = asks  # type: ignore[attr-defined]
        del asks
        gc.collect()
    else:
        sys.meta_path.insert(0, asks := Asks())
        try:
            import no_such_module  # type: ignore[import-not-found]  # noqa: F401
        except ImportError:
            sys.meta_path.remove(asks)
    return answers[0]


@pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)
@pytest.mark.parametrize(
    ("where", "answer"), [("function", ""), ("finalizer", "finalizer"), ("import", "import")]
)
def test_an_interpreter_with_a_gil_of_its_own_answers_the_same(where: str, answer: str) -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:
        assert pool.submit(asked_in_isolation, where).result() == answer
