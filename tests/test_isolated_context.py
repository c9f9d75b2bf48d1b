"""Context variables that travel with the calls of isolated workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar

import isolated_functions
import pytest
from child import check_child
from isolated_functions import (
    CAN_ISOLATE,
    WHY_NOT,
    change_colour,
    colour,
    get_colour,
    get_shape,
    shape,
)

import dromon

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(1, isolation="interpreter", context_vars=[colour, shape]) as pool:
        yield pool


async def test_a_named_variable_travels(pool: dromon.Pool) -> None:
    colour.set("green")
    assert await pool.run_sync(get_colour) == "green"
    colour.set("blue")
    assert await pool.run_sync(get_colour) == "blue"


async def test_several_variables_travel(pool: dromon.Pool) -> None:
    colour.set("green")
    shape.set({"corners": 3})
    assert await pool.run_sync(get_colour) == "green"
    assert await pool.run_sync(get_shape) == {"corners": 3}


async def test_a_variable_without_a_value_is_unset_there(pool: dromon.Pool) -> None:
    assert await pool.run_sync(get_colour) == "none"
    with pytest.raises(LookupError):
        await pool.run_sync(get_shape)


async def test_a_value_does_not_stay_for_the_next_call(pool: dromon.Pool) -> None:
    token = colour.set("green")
    assert await pool.run_sync(get_colour) == "green"
    colour.reset(token)
    assert await pool.run_sync(get_colour) == "none"


async def test_what_a_call_sets_does_not_reach_the_next_one(pool: dromon.Pool) -> None:
    assert await pool.run_sync(change_colour) == "none"
    assert await pool.run_sync(change_colour) == "none"
    colour.set("green")
    assert await pool.run_sync(change_colour) == "green"
    assert colour.get() == "green"


async def test_variables_that_are_not_named_do_not_travel() -> None:
    colour.set("green")
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        assert await pool.run_sync(get_colour) == "none"


async def test_a_value_that_cannot_travel_is_an_error_of_the_call(pool: dromon.Pool) -> None:
    token = shape.set(number for number in range(3))
    with pytest.raises(TypeError, match="generator"):
        await pool.run_sync(get_shape)
    shape.reset(token)
    assert await pool.run_sync(get_colour) == "none"


def test_variables_travel_with_calls_that_have_a_future() -> None:
    colour.set("green")
    with dromon.Pool(1, isolation="interpreter", context_vars=[colour]) as pool:
        assert pool.submit(get_colour).result() == "green"


def test_variables_travel_to_an_executor() -> None:
    colour.set("green")
    with dromon.Executor(1, isolation="interpreter", context_vars=[colour]) as executor:
        assert executor.submit(get_colour).result() == "green"


async def test_variables_travel_with_maps(pool: dromon.Pool) -> None:
    colour.set("green")
    assert await pool.starmap(get_colour, [()] * 20) == ["green"] * 20


async def test_what_an_item_of_a_map_sets_does_not_reach_the_next_one(pool: dromon.Pool) -> None:
    colour.set("green")
    assert await pool.starmap(change_colour, [()] * 20, chunksize=10) == ["green"] * 20


def test_what_a_call_of_a_chunk_sets_does_not_reach_the_next_one() -> None:
    colour.set("green")
    with dromon.Executor(1, isolation="interpreter", context_vars=[colour]) as executor:
        results = executor.map(change_colour, ["red", "blue", "grey"], chunksize=3)
        assert list(results) == ["green"] * 3


def test_a_variable_that_no_module_has_travels() -> None:
    hidden = ContextVar("hidden", default="none")
    hidden.set("seen")
    with dromon.Pool(1, isolation="interpreter", context_vars=[hidden]) as pool:
        assert pool.submit(lambda: hidden.get()).result() == "seen"


def test_a_variable_of_the_main_module_travels() -> None:
    check_child(
        """
        import contextvars, trio, dromon

        user = contextvars.ContextVar("user", default="nobody")

        def get_user():
            return user.get()

        async def main():
            async with dromon.open_pool(2, isolation="interpreter", context_vars=[user]) as pool:
                print(await pool.run_sync(get_user))
                user.set("me")
                print(await pool.run_sync(get_user), await pool.run_sync(lambda: user.get()))

        trio.run(main)
        """,
        "nobody\nme me",
    )


async def test_an_initializer_sees_no_values() -> None:
    colour.set("green")
    async with dromon.open_pool(
        1,
        isolation="interpreter",
        context_vars=[colour],
        initializer=isolated_functions.note_colour,
    ) as pool:
        assert await pool.run_sync(isolated_functions.noted_colour) == "none"
