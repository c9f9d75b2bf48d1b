"""Exceptions that come out of isolated workers."""

from __future__ import annotations

import asyncio
import traceback
from concurrent.futures import CancelledError

import isolated_calls as calls
import outcome
import pytest

import dromon

pytestmark = pytest.mark.skipif(not calls.CAN_ISOLATE, reason=calls.WHY_NOT)


def line_of(text: str) -> int:
    """The first line of the calls that has a text."""
    with open(calls.__file__) as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


async def caught(pool: dromon.Pool, *call: object) -> BaseException:
    """What a call raises."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        await pool.run_sync(*call)  # type: ignore[arg-type]
    return info.value


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("text", 3, None),
        KeyError("key"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyboardInterrupt("stop"),
        SystemExit(3),
        GeneratorExit("out"),
        StopIteration(4),
        StopAsyncIteration(5),
        TimeoutError("late"),
        CancelledError("no"),
        asyncio.CancelledError("no"),
        RecursionError("deep"),
        MemoryError(),
        ImportError("no", name="x", path="y"),
        dromon.IsolationError("no", "x"),
        dromon.RemoteError("x", "y", "z"),
        dromon.SpawnError(11, "no"),
    ],
    ids=repr,
)
async def test_an_exception_keeps_its_type_arguments_and_attributes(
    isolated_pool: dromon.Pool, error: BaseException
) -> None:
    arrived = isolated_pool.submit(calls.raise_it, error).exception()
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


async def test_a_future_gives_an_exception_too(isolated_pool: dromon.Pool) -> None:
    future = isolated_pool.submit(calls.raise_value_error, 3)
    error = future.exception()
    assert type(error) is ValueError
    assert error.args == ("3 is not allowed",)
    with pytest.raises(ValueError, match="3 is not allowed"):
        future.result()


async def test_the_traceback_shows_the_file_and_line_in_the_worker(
    isolated_pool: dromon.Pool,
) -> None:
    error = await caught(isolated_pool, calls.raise_group)
    error = await caught(isolated_pool, calls.raise_value_error, 3)
    line = line_of("is not allowed")
    assert f'File "{calls.__file__}", line {line}, in raise_value_error' in text_of(error)
    assert 'raise ValueError(f"{number} is not allowed")' in text_of(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.lineno, last.name) == (calls.__file__, line, "raise_value_error")


async def test_the_traceback_of_a_lambda_shows_this_file(isolated_pool: dromon.Pool) -> None:
    error = await caught(isolated_pool, lambda number: 1 // number, 0)
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.name) == (__file__, "<lambda>")
    assert "1 // number" in str(last.line)


async def test_the_traceback_has_no_frames_of_dromon_in_the_worker(
    isolated_pool: dromon.Pool,
) -> None:
    error = await caught(isolated_pool, calls.raise_value_error, 3)
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-2:] == ["unwrap", "raise_value_error"] or names[-2] == "wait_task_rescheduled"


async def test_notes_arrive(isolated_pool: dromon.Pool) -> None:
    error = await caught(isolated_pool, calls.raise_noted)
    assert error.__notes__ == ["by hand"]


async def test_the_cause_arrives(isolated_pool: dromon.Pool) -> None:
    error = await caught(isolated_pool, calls.raise_chain)
    assert type(error.__cause__) is KeyError
    assert error.__cause__ is error.__context__
    assert f"line {line_of('raise KeyError')}, in raise_chain" in text_of(error)
    assert "was the direct cause" in text_of(error)


async def test_the_context_arrives(isolated_pool: dromon.Pool) -> None:
    error = await caught(isolated_pool, calls.raise_in_context)
    assert error.__cause__ is None
    assert type(error.__context__) is KeyError
    assert "During handling" in text_of(error)


async def test_a_group_arrives_with_its_members(isolated_pool: dromon.Pool) -> None:
    error = await caught(isolated_pool, calls.raise_group)
    assert type(error) is ExceptionGroup
    assert [type(each) for each in error.exceptions] == [ValueError, ValueError, TypeError]
    assert [getattr(each, "__notes__", None) for each in error.exceptions] == [
        ["note 0"],
        ["note 1"],
        None,
    ]
    assert text_of(error).count("in raise_value_error") == 2


@pytest.mark.parametrize(
    ("function", "name", "text"),
    [
        (calls.raise_unpicklable, "isolated_calls.UnpicklableError", "with a lock"),
        (calls.raise_needs_two, "isolated_calls.NeedsTwo", "one"),
    ],
)
async def test_what_cannot_be_pickled_arrives_as_a_remote_error(
    isolated_pool: dromon.Pool, function: object, name: str, text: str
) -> None:
    error = await caught(isolated_pool, function)
    assert type(error) is dromon.RemoteError
    assert (error.type_name, error.text) == (name, text)
    assert str(error) == f"{name}: {text}"
    assert f'File "{calls.__file__}"' in error.traceback
    assert "raise_" in text_of(error)


async def test_a_cause_that_cannot_be_pickled_leaves_the_rest_as_it_is(
    isolated_pool: dromon.Pool,
) -> None:
    error = await caught(isolated_pool, calls.raise_from_unpicklable)
    assert type(error) is ValueError
    assert type(error.__cause__) is dromon.RemoteError
    assert error.__cause__.text == "with a lock"


async def test_a_local_exception_class_arrives_as_itself(isolated_pool: dromon.Pool) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local(1)

    error = await caught(isolated_pool, fail)
    assert type(error) is Local
    assert error.args == (1,)


async def test_a_class_that_the_call_has_made_is_known_here_too(
    isolated_pool: dromon.Pool,
) -> None:
    def fail() -> None:
        class Local(Exception):
            pass

        raise Local(1)

    error = await caught(isolated_pool, fail)
    assert (type(error).__name__, error.args) == ("Local", (1,))


async def test_the_next_pool_sends_classes_by_value_as_the_first_one_did() -> None:
    for _ in range(2):

        class Local(Exception):
            pass

        def fail() -> None:
            raise Local(1)

        async with dromon.open_pool(1, isolation="interpreter") as pool:
            error = await caught(pool, fail)
        assert type(error) is Local


async def test_endless_recursion_arrives(isolated_pool: dromon.Pool) -> None:
    def forever(number: int) -> int:
        return forever(number + 1) + 1

    error = await caught(isolated_pool, forever, 0)
    assert type(error) is RecursionError
    assert await isolated_pool.run_sync(calls.same, 1) == 1


async def test_a_module_that_is_not_there_is_an_import_error(
    isolated_pool: dromon.Pool,
) -> None:
    def call() -> None:
        import there_is_no_such_module  # noqa: F401

    error = await caught(isolated_pool, call)
    assert type(error) is ModuleNotFoundError
    assert error.name == "there_is_no_such_module"


async def test_an_async_function_is_refused(isolated_pool: dromon.Pool) -> None:
    async def function() -> None:
        pass

    with pytest.raises(TypeError, match="async"):
        await isolated_pool.run_sync(function)
    with pytest.raises(TypeError, match="async"):
        await isolated_pool.run_sync(lambda: function())


async def test_what_is_not_callable_is_refused(isolated_pool: dromon.Pool) -> None:
    with pytest.raises(TypeError, match="callable"):
        await isolated_pool.run_sync(3)  # type: ignore[arg-type]


async def test_wrong_arguments_are_a_type_error_of_the_function(
    isolated_pool: dromon.Pool,
) -> None:
    with pytest.raises(TypeError, match=r"square\(\) missing 1 required"):
        await isolated_pool.run_sync(calls.square)  # type: ignore[call-arg]


async def test_a_worker_goes_on_after_any_error(isolated_worker: dromon.Pool) -> None:
    interpreter = await isolated_worker.run_sync(lambda: id(__builtins__))
    for error in (KeyboardInterrupt(), SystemExit(), GeneratorExit(), MemoryError()):
        assert type(await caught(isolated_worker, calls.raise_it, error)) is type(error)
    assert await isolated_worker.run_sync(lambda: id(__builtins__)) == interpreter


async def test_a_result_of_a_map_that_cannot_travel_is_an_outcome_like_others(
    isolated_pool: dromon.Pool,
) -> None:
    opened = isolated_pool.open_map(calls.lock_if, [0, 1, 0], return_outcomes=True, chunksize=3)
    async with opened as results:
        outcomes = [result async for result in results]
    assert [type(each) for each in outcomes] == [outcome.Value, outcome.Error, outcome.Value]
    assert "lock" in str(outcomes[1].error)
