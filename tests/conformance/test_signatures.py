"""dromon's functions take what trio's take, and are found where trio's are."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest
import trio
import trio.testing

import dromon

NAMES = [
    "to_thread.run_sync",
    "to_thread.current_default_thread_limiter",
    "from_thread.run",
    "from_thread.run_sync",
    "from_thread.check_cancelled",
    "testing.active_thread_count",
    "testing.wait_all_threads_completed",
]


def find(library: ModuleType, name: str) -> object:
    module, function = name.split(".")
    found: object = getattr(getattr(library, module), function)
    return found


def parameters(function: object) -> list[inspect.Parameter]:
    assert callable(function)
    return [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_has_trios_parameters_and_then_its_own_by_keyword(name: str) -> None:
    theirs = parameters(find(trio, name))
    ours = parameters(find(dromon, name))
    assert ours[: len(theirs)] == theirs
    for parameter in ours[len(theirs) :]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_asynchronous_if_trios_is(name: str) -> None:
    ours, theirs = find(dromon, name), find(trio, name)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


@pytest.mark.parametrize("module", ["to_thread", "from_thread"])
def test_a_module_has_all_of_trios_names(module: str) -> None:
    theirs = {
        name
        for name, value in vars(getattr(trio, module)).items()
        if not name.startswith("_") and callable(value)
    }
    assert theirs <= set(vars(getattr(dromon, module)))


def test_a_pool_has_trios_parameters_too() -> None:
    theirs = parameters(trio.to_thread.run_sync)
    ours = parameters(dromon.Pool.run_sync)[1:]  # after self
    assert ours[: len(theirs)] == theirs
