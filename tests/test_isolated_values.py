"""Values that travel to isolated workers and back."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import math
import pathlib
import re
import struct
import sys
import threading
import uuid
import zoneinfo
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import hypothesis
import hypothesis.strategies as st
import isolated_calls as calls
import pytest

import dromon

pytestmark = pytest.mark.skipif(not calls.CAN_ISOLATE, reason=calls.WHY_NOT)

fast = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**63) - 2, -(2**63) + 2)
    | st.integers(2**63 - 2, 2**63 + 2)
    | st.floats()
    | st.text(st.characters())  # surrogates, too
    | st.binary(),
    lambda inner: st.lists(inner).map(tuple),
)
mixed = st.recursive(
    fast | st.complex_numbers() | st.decimals() | st.dates() | st.builds(bytearray, st.binary()),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)


def form(value: object) -> object:
    """What is equal for values that are the same in type and bits."""
    if type(value) is float:
        return struct.pack("d", value)
    if type(value) in (tuple, list):
        return type(value), [form(each) for each in value]  # type: ignore[attr-defined]
    if type(value) is dict:
        return [(form(key), form(each)) for key, each in value.items()]
    return type(value), repr(value)


@pytest.mark.parametrize("values", [fast, mixed], ids=["fast", "mixed"])
def test_values_come_back_as_they_went(values: st.SearchStrategy[object]) -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:

        @hypothesis.settings(deadline=None, max_examples=150)
        @hypothesis.given(values)
        def check(value: object) -> None:
            assert form(pool.submit(calls.same, value).result()) == form(value)

        check()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1_000_000])
@pytest.mark.parametrize("unit", [b"a", "a", "é", "\U0001f600", "\ud800"])
async def test_bytes_and_text_of_any_size_come_back(
    isolated_pool: dromon.Pool, size: int, unit: Any
) -> None:
    value = unit * size
    arrived = await isolated_pool.run_sync(calls.same, value)
    assert type(arrived) is type(value)
    assert arrived == value


@pytest.mark.parametrize(
    "value",
    [
        (),
        ((),),
        "",
        b"",
        -0.0,
        math.inf,
        -(2**63),
        2**63,
        1 << 10_000,
        True,
        0,
        "\0",
        "\udcff",
        b"\0" * 3,
        Ellipsis,
        NotImplemented,
        range(3),
        {1, 2},
        frozenset([1]),
        bytearray(b"abc"),
        collections.OrderedDict(a=1),
        collections.deque([1], 3),
        collections.Counter("aab"),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.datetime(2020, 1, 2, 3, 4, 5, 6, fold=1),
        datetime.date(2020, 1, 2),
        datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "name")),
        datetime.timedelta(1, 2, 3),
        pytest.param(
            zoneinfo.ZoneInfo("UTC"),
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13), reason="zoneinfo does not load in there before 3.13"
            ),
        ),
        ipaddress.ip_address("::1"),
        re.compile("a+", re.IGNORECASE),
        slice(1, None),
        1 + 2j,
        datetime.date,
        pathlib.PurePosixPath("/a"),
        uuid.UUID(int=1),
        calls.Color.RED,
        calls.Point(1, (2.0, "x")),
        calls.Text("text"),
        calls.Number(1.5),
        calls.Data(b"data"),
        calls.Record("a", [1, {"b": None}]),
        (calls.Color.RED, [calls.Point(1, 2)], calls.Text("é")),
        int,
        calls.Record,
        [],
        {},
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_value_keeps_its_type(isolated_pool: dromon.Pool, value: object) -> None:
    name, arrived = await isolated_pool.run_sync(
        lambda value: (type(value).__qualname__, value), value
    )
    assert name == type(value).__qualname__
    assert form(arrived) == form(value)


async def test_nan_keeps_its_bits(isolated_pool: dromon.Pool) -> None:
    (nan,) = struct.unpack("d", struct.pack("Q", 0x7FF8_0000_0000_1234))
    assert form(await isolated_pool.run_sync(calls.same, nan)) == form(nan)


async def test_tuples_of_any_depth_come_back(isolated_pool: dromon.Pool) -> None:
    value: tuple[Any, ...] = (b"inside", 1.5)
    for _ in range(100):
        value = (value, "x")
    assert await isolated_pool.run_sync(calls.same, value) == value


async def test_long_tuples_come_back(isolated_pool: dromon.Pool) -> None:
    value = tuple(range(100_000))
    assert await isolated_pool.run_sync(calls.same, value) == value


async def test_many_arguments_arrive_in_their_order(isolated_pool: dromon.Pool) -> None:
    given = (None, [1], "two", {"three": 3}, 4.0, b"five" * 2_000, (6, [7]), memoryview(b"8"))
    arrived = await isolated_pool.run_sync(calls.arguments, *given)
    assert arrived == given


async def test_what_is_one_object_is_one_on_the_other_side(isolated_pool: dromon.Pool) -> None:
    shared: list[int] = []

    def look(first: Any, second: Any, third: Any) -> tuple[Any, ...]:
        return first is second["also"], first is third[0], first, [first]

    same, same_in_tuple, one, other = await isolated_pool.run_sync(
        look, shared, {"also": shared}, (shared, 1)
    )
    assert same
    assert same_in_tuple
    assert one is other[0]


async def test_what_contains_itself_arrives(isolated_pool: dromon.Pool) -> None:
    circle: list[Any] = []
    circle.append(circle)
    arrived = await isolated_pool.run_sync(calls.same, circle)
    assert arrived is arrived[0]


async def test_singletons_stay_singletons(isolated_pool: dromon.Pool) -> None:
    def look(*values: object) -> bool:
        return (
            values[0] is None and values[1] is True and values[2] is ... and type(values[3]) is int
        )

    assert await isolated_pool.run_sync(look, None, True, ..., 1)
    assert await isolated_pool.run_sync(calls.same, None) is None
    assert await isolated_pool.run_sync(calls.same, False) is False


async def test_changes_of_an_argument_do_not_come_back(isolated_pool: dromon.Pool) -> None:
    value = [1]
    assert await isolated_pool.run_sync(lambda value: value.append(2) or value, value) == [1, 2]
    assert value == [1]


async def test_an_argument_is_taken_when_the_call_is_made(isolated_worker: dromon.Pool) -> None:
    value, data = [1], bytearray(b"1")
    futures: list[Future[Any]] = [
        isolated_worker.submit(calls.arguments, value, data) for _ in range(3)
    ]
    value.append(2)
    data.append(2)
    assert [future.result() for future in futures] == [([1], b"1")] * 3


async def test_instances_of_a_local_class_come_back_as_such(isolated_pool: dromon.Pool) -> None:
    @dataclass
    class Local:
        value: int

        def doubled(self) -> Local:
            return type(self)(self.value * 2)

    arrived = await isolated_pool.run_sync(Local.doubled, Local(4))
    assert type(arrived) is Local
    assert arrived == Local(8)


def has_done_nothing(pool: dromon.Pool) -> bool:
    now = pool.statistics()
    return now.queued == now.running == now.completed == now.cancelled == 0


# ---- What cannot travel --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (threading.Lock(), "[0]"),
        ([1, {"a": threading.Lock()}], "[0][1]['a']"),
        (calls.Record("x", threading.Lock()), "[0].data"),
        (sys._getframe(), "[0]"),
        ((n for n in ()), "[0]"),
    ],
    ids=["lock", "nested", "attribute", "frame", "generator"],
)
async def test_an_argument_that_cannot_travel_is_refused_at_the_call(
    isolated_pool: dromon.Pool, value: object, place: str
) -> None:
    with pytest.raises(TypeError) as caught:
        await isolated_pool.run_sync(calls.same, value)
    assert f"{place}, of type" in "\n".join(caught.value.__notes__)  # pickle may add some, too
    with pytest.raises(TypeError):
        isolated_pool.submit(calls.same, value)
    assert has_done_nothing(isolated_pool)


async def test_a_function_that_cannot_travel_is_refused_at_the_call(
    isolated_pool: dromon.Pool,
) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError):
        await isolated_pool.run_sync(lambda: lock)
    assert has_done_nothing(isolated_pool)


async def test_an_argument_that_raises_when_it_is_pickled_is_refused_with_that(
    isolated_pool: dromon.Pool,
) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        await isolated_pool.run_sync(calls.same, Bad())


async def test_a_released_view_is_refused_at_the_call(isolated_pool: dromon.Pool) -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        await isolated_pool.run_sync(calls.same, view)


async def test_a_result_that_cannot_travel_is_a_type_error_that_tells_so(
    isolated_pool: dromon.Pool,
) -> None:
    with pytest.raises(TypeError, match=r"pickle '_thread\.lock' object") as caught:
        await isolated_pool.run_sync(calls.make_lock)
    assert "cannot travel between interpreters" in "\n".join(caught.value.__notes__)
    assert await isolated_pool.run_sync(calls.same, 1) == 1


async def test_an_argument_that_cannot_be_made_again_there_fails_the_call(
    isolated_pool: dromon.Pool,
) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    with pytest.raises(ValueError, match="no number"):
        await isolated_pool.run_sync(calls.same, Bad())
    assert await isolated_pool.run_sync(calls.same, 1) == 1


async def test_a_result_that_cannot_be_made_again_here_fails_the_call(
    isolated_pool: dromon.Pool,
) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    def make() -> object:
        return Bad()

    with pytest.raises(ValueError, match="no number"):
        await isolated_pool.run_sync(make)
    assert await isolated_pool.run_sync(calls.same, 1) == 1
