"""Objects that travel to another interpreter and back."""

from __future__ import annotations

import array
import contextvars
import functools
import gc
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from child import check_child

from dromon import _pickling
from dromon._pickling import WritableBuffer, writable

needs_isolation = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12"
)

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.dates()
)
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def travel(*objects: object) -> tuple[Any, ...]:
    """What arrives, with buffers as the bridge shares them."""
    data, buffers = _pickling.dumps(objects)
    views = [
        each.buffer if isinstance(each, WritableBuffer) else memoryview(each).toreadonly()  # type: ignore[arg-type]
        for each in buffers
    ]
    return _pickling.loads(data, views)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(values, values)
def test_values_arrive_as_they_were(first: object, second: object) -> None:
    assert travel(first, second) == (first, second)


def test_arguments_keep_what_they_share() -> None:
    shared = [1]
    first, second = travel([shared], {"also": shared})
    assert first[0] is second["also"]


@pytest.mark.parametrize("wrap", [lambda view: view, lambda view: {"deep": [view]}])
def test_memoryviews_stay_out_of_the_pickle(wrap: Callable[[memoryview], object]) -> None:
    view = memoryview(bytearray(100_000))
    data, buffers = _pickling.dumps((wrap(view), b"x"))
    assert len(data) < 1_000
    assert len(buffers) == 1
    assert buffers[0] is view


def test_a_view_that_is_not_contiguous_stays_as_it_is() -> None:
    view = memoryview(b"abcdef")[::2]
    (arrived,) = travel(view)
    assert bytes(arrived) == b"ace"


def test_a_view_that_is_given_twice_is_shared_once() -> None:
    view = memoryview(b"abc")
    _, buffers = _pickling.dumps((view, [view]))
    assert buffers == [view]


def test_buffers_of_many_kinds_keep_their_order() -> None:
    views = [memoryview(b"1"), memoryview(b"3")]
    shared = writable(bytearray(b"2"))
    picklable = pickle.PickleBuffer(b"4")
    _, buffers = _pickling.dumps((views[0], {"key": shared}, views[1], picklable))
    assert buffers[:3] == [views[0], shared, views[1]]
    assert bytes(buffers[3]) == b"4"  # type: ignore[call-overload]


def test_only_what_is_declared_writable_arrives_so() -> None:
    read_only, changed = travel(memoryview(bytearray(b"abc")), writable(bytearray(b"abc")))
    assert read_only.readonly
    assert not changed.readonly


def test_writing_to_a_writable_buffer_changes_the_source() -> None:
    source = bytearray(b"abc")
    (view,) = travel(writable(source))
    view[0] = ord("x")
    assert source == b"xbc"


def test_writable_refuses_memory_that_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="buffer must be writable, not 'bytes'"):
        writable(b"abc")


def test_writable_refuses_what_is_no_buffer() -> None:
    with pytest.raises(TypeError, match="buffer must have the buffer protocol, not 5"):
        writable(5)


def test_lambdas_and_closures_travel_inside_arguments() -> None:
    step = 3
    (arrived,) = travel({"add": lambda x: x + step})
    assert arrived["add"](4) == 7


def test_tracebacks_of_code_by_value_name_its_file() -> None:
    (arrived,) = travel(lambda: None)
    assert arrived.__code__.co_filename == __file__


@dataclass
class Point:
    x: int


def test_instances_of_importable_classes_need_no_cloudpickle() -> None:
    check_child(
        """
        import sys
        from fractions import Fraction
        from dromon import _pickling
        objects = {"a": [Fraction(1, 3), memoryview(b"")]}, len, KeyError(1)
        _pickling.loads(*_pickling.dumps(objects))
        print("cloudpickle" in sys.modules)
        """,
        "False",
    )
    assert travel(Point(3)) == (Point(3),)


def test_a_context_variable_of_a_module_travels_by_name() -> None:
    (arrived,) = travel(_module_variable)
    assert arrived is _module_variable
    assert b"_module_variable" in _pickling.dumps((_module_variable,))[0]


_module_variable: contextvars.ContextVar[int] = contextvars.ContextVar("another name")


def test_a_context_variable_of_no_module_is_the_same_each_time() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("local", default=3)
    first, second = *travel([variable]), *travel({"key": variable})
    assert first[0] is second["key"] is variable


@pytest.mark.parametrize(
    "make",
    [
        threading.Lock,
        lambda: Path(__file__).open(),  # noqa: SIM115
        lambda: (x for x in ()),
    ],
)
def test_what_cannot_travel_is_a_type_error_that_names_its_place(
    make: Callable[[], Any],
) -> None:
    thing = make()
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        _pickling.dumps((1, {"key": [0, thing]}))
    assert any("'key'" in note for note in caught.value.__notes__)
    getattr(thing, "close", lambda: None)()


def test_a_cached_function_that_travels_by_value_is_cached_there() -> None:
    @functools.cache
    def double(x: int) -> int:
        return 2 * x

    (arrived,) = travel(double)
    assert arrived(2) == 4
    assert arrived(2) == 4
    assert arrived.cache_info().hits == 1


def test_pickling_keeps_no_memory_shared() -> None:
    source = bytearray(b"some")
    gc.disable()
    try:
        _pickling.dumps((memoryview(source), [writable(source)]))
        source.append(0)
    finally:
        gc.enable()


def test_exceptions_inside_objects_keep_their_chain_and_identity() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        arrived, *_ = travel({"error": error, "again": [error], "cause": error.__cause__})
    assert arrived["error"] is arrived["again"][0]
    assert arrived["error"].__cause__ is arrived["cause"]
    assert arrived["error"].__traceback__.tb_frame.f_code.co_filename == __file__


def test_arrays_arrive_by_value() -> None:
    assert travel(array.array("d", [1.5])) == (array.array("d", [1.5]),)


@needs_isolation
def test_instances_of_classes_of_main_come_back_as_instances_of_the_original() -> None:
    check_child(
        """
        from isolated import Isolated, leave
        from dromon import _pickling

        limit = 10

        class Counter:
            step = 2
            def __init__(self):
                self.value = 0
            def count(self):
                self.value += self.step
                return limit

        original = Counter.count
        worker = Isolated()
        for step in 2, 3:
            Counter.step = step
            data = worker.run(
                '''
                counter, = _pickling.loads(given, [])
                counter.count()
                result = _pickling.dumps((counter, type(counter)))[0]
                ''',
                _pickling.dumps((Counter(),))[0],
            )
            counter, cls = _pickling.loads(data, [])
            print(type(counter) is cls is Counter, Counter.count is original, counter.value)
        leave()
        """,
        "True True 2\nTrue True 3",
    )


@needs_isolation
def test_values_cross_into_an_isolated_interpreter_and_back() -> None:
    check_child(
        """
        from contextvars import ContextVar
        from isolated import Isolated, leave
        from dromon import _pickling

        variable = ContextVar("variable", default=5)
        worker = Isolated()
        data, buffers = _pickling.dumps((variable, lambda x: x + 1, {"view": memoryview(b"abc")}))
        data = worker.run(
            '''
                import sys
                data, buffers = given
                variable, add, views = _pickling.loads(data, list(map(memoryview, buffers)))
                back = variable, variable.get(), add(1), bytes(views["view"])
                result, _ = _pickling.dumps(back)
                assert "cffi" not in sys.modules and "trio" not in sys.modules
                ''',
            (data, [bytes(each) for each in buffers]),
        )
        back, *values = _pickling.loads(data, [])
        print(back is variable, values)
        leave()
        """,
        "True [5, 2, b'abc']",
    )
