"""Functions that travel: by reference where that can be, else by value, and fast when known."""

from __future__ import annotations

import datetime
import functools
import gc
import math
import operator
import os.path
import string
import textwrap
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from child import check_child
from test_pickling import needs_isolation

from dromon import _functions
from dromon._functions import BY_REFERENCE, BY_VALUE, load, portable


class Tool:
    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def make(cls) -> type:
        return cls

    def method(self) -> str:
        return "method"

    def __call__(self) -> str:
        return "called"


class SpecialTool(Tool):
    pass


@functools.cache
def cached(x: int) -> int:
    return x


BY_NAME = {
    len: "builtins:len",
    dict: "builtins:dict",
    str.upper: "builtins:str.upper",
    dict.fromkeys: "builtins:dict.fromkeys",
    math.sqrt: "math:sqrt",
    os.path.join: "posixpath:join",
    textwrap.dedent: "textwrap:dedent",
    datetime.datetime.now: "datetime:datetime.now",
    string.Formatter.vformat: "string:Formatter.vformat",
    Tool.static: f"{__name__}:Tool.static",
    Tool.make: f"{__name__}:Tool.make",
    SpecialTool.make: f"{__name__}:SpecialTool.make",
    Tool.method: f"{__name__}:Tool.method",
    cached: f"{__name__}:cached",
}


@pytest.mark.parametrize(("fn", "name"), BY_NAME.items(), ids=BY_NAME.values())
def test_what_a_module_has_travels_by_reference(fn: Callable[..., Any], name: str) -> None:
    assert portable(fn) == (BY_REFERENCE, name.encode())
    assert load(*portable(fn)) == fn
    assert portable(len)[1] is portable(len)[1]


def hidden() -> str:
    return "first"


first = hidden


def hidden() -> str:  # type: ignore[no-redef]
    return "second"


def test_a_function_whose_name_means_another_one_travels_by_value() -> None:
    kind, blob = portable(first)
    assert kind == BY_VALUE
    assert load(kind, blob)() == "first"


def test_a_function_of_a_module_that_has_no_spec_travels_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("made_up")
    exec("def f(): return 5", module.__dict__)
    monkeypatch.setitem(__import__("sys").modules, "made_up", module)
    assert portable(module.f)[0] == BY_VALUE


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (lambda x: x + 1, (1,), 2),
        (functools.partial(operator.add, 1), (2,), 3),
        (operator.itemgetter(1), ("ab",), "b"),
        (Tool(), (), "called"),
        (Tool().method, (), "method"),
        ("-".join, (["a", "b"],), "a-b"),
    ],
    ids=["lambda", "partial", "itemgetter", "instance", "bound method", "builtin method"],
)
def test_the_rest_travels_by_value(fn: Callable[..., Any], args: Any, expected: object) -> None:
    kind, blob = portable(fn)
    assert kind == BY_VALUE
    assert load(kind, blob)(*args) == expected


# ---- What is known -------------------------------------------------------------------------------


def test_a_function_that_stays_the_same_is_pickled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base, factors = 10, (2, 3)

    def helper(x: int) -> int:
        return helper(x - 1) if x > 100 else x * factors[0]

    def fn(x: int, *, scale: float = math.pi) -> float:
        return math.floor(helper(x) * scale) + base

    _, blob = portable(fn)
    monkeypatch.setattr(_functions, "dump_by_value", None)
    assert portable(fn)[1] is blob


CHANGES: dict[str, tuple[str, str]] = {
    "a cell": ("def outer():\n x = 1\n def f(): return x\n def change():\n  nonlocal x; x = 2\n"
               " return f, change\nf, change = outer()", "change()"),
    "a global": ("x = 1\ndef f(): return x", "x = 2"),
    "a default": ("def f(x=1): return x", "f.__defaults__ = (2,)"),
    "a keyword's default": ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2"),
    "an attribute": ("def f(): return f.x\nf.x = 1", "f.x = 2"),
    "the code": ("def f(): return 1\ng = lambda: 2", "f.__code__ = g.__code__"),
    "a list": ("x = [1]\ndef f(): return x[0]", "x[0] = 2"),
    "a list in a tuple": ("x = ([1],)\ndef f(): return x[0][0]", "x[0][0] = 2"),
    "a function that it calls": ("def g(): return 1\ndef f(): return g()", "g = lambda: 2"),
    "what another function uses": ("x = 1\ndef g(): return x\ndef f(): return g()", "x = 2"),
    "a global of a nested function": ("x = 1\ndef f(): return (lambda: x)()", "x = 2"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "change"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_what_was_captured_is_noticed(source: str, change: str) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(source, scope)
    before = portable(scope["f"])
    assert load(*before)() == 1
    exec(change, scope)
    after = portable(scope["f"])
    assert load(*after)() == 2
    assert before[1] != after[1]


def test_what_is_mutable_and_unchanged_gives_the_same_bytes_object() -> None:
    numbers = [1, 2, 3]

    def fn() -> int:
        return sum(numbers)

    assert portable(fn)[1] is portable(fn)[1]


def test_functions_are_forgotten_when_they_die() -> None:
    def make() -> Callable[[], object]:
        def even() -> object:
            return odd

        def odd() -> object:
            return even

        portable(odd)
        portable(even)
        return even

    gc.collect()
    fn = make()
    known = len(_functions._entries)
    alive = weakref.ref(fn)
    del fn
    gc.collect()
    assert alive() is None
    assert len(_functions._entries) == known - 2


captured = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.frozensets(st.text()),
    lambda inner: st.tuples(inner, inner) | st.lists(inner) | st.sets(st.text()),
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(captured)
def test_the_pickle_of_a_function_is_the_same_each_time(value: object) -> None:
    def fn() -> object:
        return value

    blob = _functions.dump_by_value(fn)
    assert _functions.dump_by_value(fn) == blob
    assert load(BY_VALUE, blob)() == value


# ---- In the other interpreter --------------------------------------------------------------------


def test_a_module_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        load(BY_REFERENCE, b"no_such_module:f")


def test_a_name_that_is_not_there_is_an_attribute_error_that_tells_where() -> None:
    with pytest.raises(AttributeError, match=r"module 'math' has no 'no\.such' in this interpr"):
        load(BY_REFERENCE, b"math:no.such")


@needs_isolation
def test_functions_of_main_run_in_an_isolated_interpreter() -> None:
    check_child(
        """
        import functools, math
        from isolated import Isolated, leave
        from dromon import _functions

        calls = 0

        def count():
            global calls
            calls += 1
            return calls

        def twice(x):
            count()
            return count(), math.floor(x), fib(30)

        @functools.cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        worker = Isolated()
        print(worker.run("result = _functions.load(*given)(2.5)", _functions.portable(twice)))
        print(worker.run("result = _functions.load(*given)(20)", _functions.portable(fib)))
        print(worker.run("result = _functions.load(*given)(2.5)", _functions.portable(math.floor)))
        print(calls)
        leave()
        """,
        "(2, 2, 832040)\n6765\n2\n0",
    )


def test_the_error_names_a_function_that_cannot_travel() -> None:
    lock = threading.Lock()

    def locks() -> bool:
        return lock.acquire()

    with pytest.raises(TypeError) as raised:
        portable(locks)
    assert "locks, or what it uses, cannot travel" in raised.value.__notes__[-1]
