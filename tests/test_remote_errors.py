"""Exceptions that travel: as they are, or as a stand-in that tells all that is known."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from child import check_child
from test_pickling import needs_isolation

from dromon import _pickling, _remote
from dromon._remote import RemoteError, dump_error, load_error, refused_module


def travel(error: BaseException) -> Any:
    data, buffers = dump_error(error)
    return load_error(data, [memoryview(each) for each in buffers])  # type: ignore[arg-type]


def raised(raiser: Callable[[], object]) -> BaseException:
    try:
        raiser()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Picky(Exception):
    """Cannot be made of its `args`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class Detailed(Exception):
    def __init__(self, message: str, detail: object = None) -> None:
        super().__init__(message)
        self.detail = detail


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class PickyGroup(ExceptionGroup[Exception]):
    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


@pytest.mark.parametrize(
    "error", [ValueError(1, "two"), KeyboardInterrupt(), SystemExit(3), FileNotFoundError(2, "x")]
)
def test_type_and_arguments_arrive(error: BaseException) -> None:
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert arrived.args == error.args


def test_attributes_and_notes_arrive() -> None:
    error = Detailed("message", detail={"a": [1]})
    error.add_note("note")
    arrived = travel(error)
    assert (arrived.detail, arrived.__notes__) == ({"a": [1]}, ["note"])


def fail_deep(depth: int) -> None:
    if depth:
        fail_deep(depth - 1)
    raise ValueError("deep")


def test_the_traceback_is_a_real_one_with_the_same_files_functions_and_lines() -> None:
    error = raised(lambda: fail_deep(3))
    arrived = travel(error)

    def frames(error: BaseException) -> list[tuple[str, str, int | None]]:
        return [(f.filename, f.name, f.lineno) for f in traceback.extract_tb(error.__traceback__)]

    assert frames(arrived) == frames(error)
    assert 'raise ValueError("deep")' in "".join(traceback.format_exception(arrived))


def test_the_traceback_of_endless_recursion_arrives() -> None:
    def endless() -> None:
        endless()

    arrived = travel(raised(endless))
    assert type(arrived) is RecursionError
    assert len(traceback.extract_tb(arrived.__traceback__)) > 500


def test_the_first_frames_are_not_those_of_dromon() -> None:
    error = raised(lambda: _pickling.loads(b"broken", []))
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    assert travel(error).__traceback__ is None


def chained() -> None:
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise TypeError("cause")  # noqa: B904
    except TypeError as cause:
        raise ValueError("outer") from cause


def test_causes_and_contexts_arrive_with_their_tracebacks() -> None:
    arrived = travel(raised(chained))
    assert (type(arrived.__cause__), arrived.__suppress_context__) == (TypeError, True)
    assert type(arrived.__cause__.__context__) is KeyError
    assert not arrived.__cause__.__suppress_context__
    assert arrived.__cause__.__context__.__traceback__.tb_frame.f_code.co_name == "chained"


def test_chains_that_are_circles_arrive() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    arrived = travel(first)
    assert arrived.__context__.__context__ is arrived


def test_long_chains_arrive() -> None:
    error = first = ValueError(0)
    for number in range(1, 3_000):
        error.__context__ = ValueError(number)
        error = error.__context__
    arrived, length = travel(first), 0
    while arrived is not None:
        arrived, length = arrived.__context__, length + 1
    assert length == 3_000


def test_members_of_groups_arrive() -> None:
    error = BaseExceptionGroup(
        "outer",
        [ValueError(1), ExceptionGroup("inner", [raised(chained)]), KeyboardInterrupt()],  # type: ignore[list-item]
    )
    arrived = travel(error)
    assert [type(member) for member in arrived.exceptions] == [
        ValueError,
        ExceptionGroup,
        KeyboardInterrupt,
    ]
    assert type(arrived.exceptions[1].exceptions[0].__cause__) is TypeError


def test_an_exception_that_is_an_argument_too_arrives_once() -> None:
    cause = KeyError("cause")
    error = Detailed("outer", detail=cause)
    error.__cause__ = cause
    arrived = travel(error)
    assert arrived.detail is arrived.__cause__


# ---- Stand-ins -----------------------------------------------------------------------------------


def fail_pickily() -> None:
    raise Picky(404, "not found")


def test_what_cannot_be_made_again_is_a_remote_error_that_tells_all() -> None:
    arrived = travel(raised(fail_pickily))
    assert type(arrived) is RemoteError
    assert arrived.type_name == f"{__name__}.Picky"
    assert arrived.text == "404: not found"
    assert "in fail_pickily\n" in arrived.traceback
    assert str(arrived) == f"{__name__}.Picky: 404: not found"
    assert traceback.extract_tb(arrived.__traceback__)[-1].name == "fail_pickily"


def test_only_what_cannot_be_made_again_is_replaced() -> None:
    error = ExceptionGroup("group", [ValueError(1), Picky(404, "not found")])
    error.__cause__ = Picky(500, "cause")
    error.__cause__.__cause__ = KeyError("root")
    arrived = travel(error)
    assert [type(member) for member in arrived.exceptions] == [ValueError, RemoteError]
    assert type(arrived.__cause__) is RemoteError
    assert type(arrived.__cause__.__cause__) is KeyError


def test_a_group_that_cannot_be_made_again_keeps_its_members() -> None:
    arrived = travel(PickyGroup("message", [ValueError(1), ValueError(2)]))
    assert type(arrived) is ExceptionGroup
    assert arrived.message == "message"
    assert [member.args for member in arrived.exceptions] == [(1,), (2,)]
    assert "PickyGroup" in arrived.__notes__[0]


def test_an_exception_that_raises_whatever_is_asked_of_it_arrives() -> None:
    arrived = travel(Hostile())
    assert type(arrived) is RemoteError
    assert arrived.type_name == f"{__name__}.Hostile"


def test_exceptions_that_are_arguments_of_each_other_arrive() -> None:
    first, second = ValueError(), KeyError()
    first.args, second.args = (second,), (first,)
    assert isinstance(travel(first), (ValueError, RemoteError))


def test_an_unpicklable_argument_replaces_its_exception() -> None:
    arrived = travel(Detailed("message", detail=(x for x in ())))
    assert (type(arrived), arrived.text) == (RemoteError, "message")


def test_what_cannot_be_loaded_keeps_its_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(chained)
    error.__cause__.__cause__ = ExceptionGroup("group", [Picky(1, "one")])  # type: ignore[union-attr]
    dumped = dump_error(error)

    def refuse(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(_pickling, "loads", refuse)
    arrived = load_error(dumped[0], [])
    assert isinstance(arrived, RemoteError)
    assert (arrived.type_name, arrived.text) == ("ValueError", "outer")
    assert "in chained\n" in arrived.traceback
    cause = arrived.__cause__
    assert isinstance(cause, RemoteError)
    assert isinstance(cause.__cause__, ExceptionGroup)
    assert cause.__cause__.exceptions[0].text == "1: one"  # type: ignore[union-attr]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_any_tree_arrives_whole(data: st.DataObject) -> None:
    makers = [lambda: ValueError(1), lambda: Picky(1, "2"), lambda: Detailed("x"), Hostile]
    errors: list[BaseException] = [
        maker() for maker in data.draw(st.lists(st.sampled_from(makers), min_size=1, max_size=6))
    ]
    errors.append(ExceptionGroup("all", list(errors)))  # type: ignore[type-var]
    for error in errors:
        error.__cause__ = data.draw(st.sampled_from([None, *errors]))
        error.__context__ = data.draw(st.sampled_from([None, *errors]))
    sent = _remote.chain([errors[-1]])
    arrived = _remote.chain([travel(errors[-1])])
    assert len(arrived) == len(sent)
    for before, after in zip(sent, arrived, strict=True):
        travels = not isinstance(before, (Picky, Hostile))
        assert type(after) is (type(before) if travels else RemoteError)


# ---- Refusals ------------------------------------------------------------------------------------

REFUSAL = "module _cffi_backend does not support loading in subinterpreters"


def test_a_refused_module_is_found_in_the_chain() -> None:
    error = RuntimeError("failed")
    error.__cause__ = ImportError(REFUSAL)
    assert refused_module(error) == "_cffi_backend"


def test_a_refused_module_is_found_in_a_packages_own_words() -> None:
    error = ImportError(
        "Error importing numpy.\n\nOriginal error was: module numpy._core._multiarray_umath"
        " does not support loading in subinterpreters\n"
    )
    assert refused_module(error) == "numpy._core._multiarray_umath"


def test_other_errors_refuse_no_module() -> None:
    assert refused_module(ValueError(REFUSAL)) is None
    assert refused_module(ImportError("no module named x")) is None


@needs_isolation
def test_errors_of_an_isolated_interpreter_arrive_with_its_traceback() -> None:
    check_child(
        """
        import traceback
        from isolated import Isolated, leave
        from dromon import _functions, _remote

        class Custom(Exception):
            def __init__(self, value):
                super().__init__(value)
                self.value = value

        def fail():
            try:
                import _cffi_backend
            except ImportError as error:
                raise Custom([1, 2]) from error

        data, buffers = Isolated().run(
            '''
                fn = _functions.load(*given)
                try:
                    fn()
                except Exception as error:
                    result = _remote.dump_error(error)
                ''',
            _functions.portable(fail),
        )
        error = _remote.load_error(data, buffers)
        print(type(error) is Custom, error.value, _remote.refused_module(error))
        print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
        leave()
        """,
        "True [1, 2] _cffi_backend\n['<module>', 'fail']",
    )


@pytest.mark.parametrize("kind", [Detailed, Hostile])
def test_an_exception_that_arrived_dies_with_its_last_reference(kind: type[Exception]) -> None:
    def fail() -> None:
        try:
            raise KeyError
        except KeyError:
            raise kind("text") from None

    data, _ = dump_error(raised(fail))
    gc.disable()
    try:
        error = weakref.ref(load_error(data, []))
        assert error() is None
    finally:
        gc.enable()
