"""What is used wrongly is refused at once, before anything is queued, in words that help."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import trio
from child import check_child

import dromon


async def asynchronous(*_: object) -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


class SyncCallable:
    def __call__(self) -> str:
        return "called"


NOT_CALLABLE = [5, "sum", None]
ASYNCHRONOUS = [
    asynchronous,
    functools.partial(asynchronous, 1),
    functools.partial(functools.partial(asynchronous, 1), 2),
    AsyncCallable(),
    functools.partial(AsyncCallable()),
    AsyncCallable().method,
]


@pytest.fixture
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1) as pool:
        yield pool


def nothing_was_queued(pool: dromon.Pool) -> bool:
    statistics = pool.statistics()
    return (statistics.queued, statistics.running, statistics.completed) == (0, 0, 0)


# ---- What is to be called ------------------------------------------------------------------------

CALLS: dict[str, Callable[[dromon.Pool, Any], object]] = {
    "run_sync": lambda pool, fn: trio.run(pool.run_sync, fn),
    "submit": lambda pool, fn: pool.submit(fn),
    "submit_nowait": lambda pool, fn: pool.submit_nowait(fn),
}
ARGUMENTS = {"run_sync": "sync_fn", "submit": "fn", "submit_nowait": "fn"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("function", NOT_CALLABLE)
def test_what_is_not_callable_is_refused_at_the_call(
    pool: dromon.Pool, call: str, function: object
) -> None:
    with pytest.raises(TypeError, match=f"{ARGUMENTS[call]} must be callable, not {function!r}"):
        CALLS[call](pool, function)
    assert nothing_was_queued(pool)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("function", ASYNCHRONOUS)
def test_what_is_asynchronous_is_refused_at_the_call(
    pool: dromon.Pool, call: str, function: object
) -> None:
    expected = "expected a sync function, but .* appears to be asynchronous"
    with pytest.raises(TypeError, match=expected):
        CALLS[call](pool, function)
    assert nothing_was_queued(pool)


@pytest.mark.parametrize(
    "function", [SyncCallable(), SyncCallable().__call__, functools.partial(SyncCallable())]
)
def test_what_is_callable_and_synchronous_is_taken(
    pool: dromon.Pool, function: Callable[[], str]
) -> None:
    assert pool.submit(function).result() == "called"


def test_a_class_whose_instances_are_asynchronous_is_itself_synchronous(pool: dromon.Pool) -> None:
    assert isinstance(pool.submit(AsyncCallable).result(), AsyncCallable)


# ---- Options -------------------------------------------------------------------------------------

OPENERS: list[Callable[..., object]] = [
    dromon.Pool,
    dromon.open_pool,
    dromon.configure_default_pool,
]

BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"workers": 0}, "workers must be from 1 to 1024, not 0"),
    ({"workers": -1}, "workers must be from 1 to 1024, not -1"),
    ({"workers": 1025}, "workers must be from 1 to 1024, not 1025"),
    ({"workers": 10**30}, f"workers must be from 1 to 1024, not {10**30}"),
    ({"name": ""}, "name must be printable characters, one at least, not ''"),
    ({"name": "a\0b"}, r"name must be printable characters, .* not 'a\\x00b'"),
    ({"name": "a\nb"}, r"name must be printable characters, .* not 'a\\nb'"),
    ({"name": "\ud800"}, r"name must be printable characters, .* not '\\ud800'"),
    ({"queue_capacity": 0}, "queue_capacity must be from 1 to 1048576, not 0"),
    ({"stack_size": 1}, "stack_size must be from 262144 to 1099511627776, not 1"),
    ({"guard_size": 0}, "guard_size must be from 1 to 1099511627776, not 0"),
    ({"affinity": []}, "affinity must have an entry for each worker, and has none"),
    ({"affinity": [0], "workers": 2}, "affinity must have one entry for each of the 2 workers"),
    ({"nice": 40}, "nice must be from -39 to 39, not 40"),
    ({"sched_policy": 99}, "sched_policy must be os.SCHED_OTHER, .* not 99"),
    ({"sched_policy": False}, "sched_policy must be os.SCHED_OTHER, .* not False"),
    ({"sched_policy": 3.0}, "sched_policy must be os.SCHED_OTHER, .* not 3.0"),
    ({"stall_after": 0}, "stall_after must be from 0.001 to 1000000000 seconds, not 0.0"),
    ({"stall_after": float("nan")}, "stall_after must be from .* seconds, not nan"),
    ({"on_stall": print}, "on_stall needs stall_after, the seconds after which"),
]

BAD_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"workers": True}, "workers must be an integer or None, not True"),
    ({"workers": 2.0}, "workers must be an integer or None, not 2.0"),
    ({"workers": "2"}, "workers must be an integer or None, not '2'"),
    ({"name": None}, "name must be a string, not None"),
    ({"name": b"io"}, "name must be a string, not b'io'"),
    ({"queue_capacity": True}, "queue_capacity must be an integer or None, not True"),
    ({"queue_capacity": 2.5}, "queue_capacity must be an integer or None, not 2.5"),
    ({"stack_size": "8 MiB"}, "stack_size must be a number of bytes or None, not '8 MiB'"),
    ({"guard_size": 1e6}, "guard_size must be a number of bytes or None, not 1000000.0"),
    ({"initializer": 5}, "initializer must be callable, not 5"),
    ({"initializer": asynchronous}, "sync function, but .* asynchronous, given as initializer"),
    ({"affinity": 0}, "affinity must have a CPU or a set of CPUs for each worker, not 0"),
    ({"nice": True}, "nice must be an integer, not True"),
    ({"nice": "5"}, "nice must be an integer, not '5'"),
    ({"stall_after": "5"}, "stall_after must be a number of seconds, not '5'"),
    ({"stall_after": True}, "stall_after must be a number of seconds, not True"),
    ({"stall_after": 1, "on_stall": 5}, "on_stall must be callable, not 5"),
    (
        {"stall_after": 1, "on_stall": asynchronous},
        "sync function, but .* asynchronous, given as on_stall",
    ),
    ({"worker": 2}, "unexpected keyword argument 'worker'"),
]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(("options", "message"), BAD_VALUES)
def test_an_option_out_of_range_is_refused_at_the_call(
    opener: Callable[..., object], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opener(**options)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(("options", "message"), BAD_TYPES)
def test_an_option_of_a_wrong_type_is_refused_at_the_call(
    opener: Callable[..., object], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        opener(**options)


def test_seconds_may_be_any_number() -> None:
    with dromon.Pool(1, stall_after=Decimal(60)) as pool:  # type: ignore[arg-type]
        assert pool.submit(int, "7").result() == 7


# ---- Where there is no trio ----------------------------------------------------------------------


async def run_sync(pool: dromon.Pool) -> None:
    await pool.run_sync(int)


async def run_native(pool: dromon.Pool) -> None:
    await pool.run_native(1)


async def open_pool(_: dromon.Pool) -> None:
    async with dromon.open_pool(1):
        pytest.fail("it opened")


FUNCTIONS = [run_sync, run_native, open_pool]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_asyncio_that_awaits_what_needs_trio_is_told_what_to_use(
    pool: dromon.Pool, function: Callable[[dromon.Pool], Any]
) -> None:
    expected = f"{function.__name__} must be awaited in a trio task; .*dromon.Pool.*dromon.Executor"
    with pytest.raises(RuntimeError, match=expected):
        asyncio.run(function(pool))
    assert nothing_was_queued(pool)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_needs_trio_and_is_driven_by_hand_says_what_to_use(
    pool: dromon.Pool, function: Callable[[dromon.Pool], Any]
) -> None:
    expected = f"{function.__name__} must be awaited in a trio task; .*dromon.Pool.*dromon.Executor"
    with pytest.raises(RuntimeError, match=expected):
        function(pool).send(None)
    assert nothing_was_queued(pool)


def test_asyncio_that_awaits_a_call_on_the_default_pool_is_told_what_to_use() -> None:
    with pytest.raises(RuntimeError, match=r"run_sync must be awaited in a trio task; .*Executor"):
        asyncio.run(dromon.to_thread.run_sync(int))


# ---- Closed, full and of the parent --------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_pool_says_so(call: str) -> None:
    with dromon.Pool(1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError, match="the pool is closed"):
        CALLS[call](pool, int)


def test_a_full_queue_says_so() -> None:
    begun, gate = threading.Event(), threading.Event()
    with dromon.Pool(1, queue_capacity=2) as pool:
        try:
            pool.submit(lambda: (begun.set(), gate.wait()))
            begun.wait()
            pool.submit_nowait(int)
            pool.submit_nowait(int)
            with pytest.raises(dromon.QueueFull, match="the pool's queue is full"):
                pool.submit_nowait(int)
        finally:
            gate.set()


def test_a_pool_of_the_parent_names_the_fork() -> None:
    check_child(
        """
        import os, trio, warnings, dromon

        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with several threads
        with dromon.Pool(1) as pool:
            if os.fork() == 0:
                for call in (lambda: pool.submit(int), lambda: pool.submit_nowait(int),
                             lambda: trio.run(pool.run_sync, int)):
                    try:
                        call()
                    except dromon.ClosedPoolError as error:
                        print(error, flush=True)
                os._exit(0)
            os.wait()
        """,
        "\n".join(
            ["the pool belongs to the process that forked this one; open another pool here"] * 3
        ),
    )


async def test_what_is_no_pool_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="pool must be a Pool or None, not 3"):
        await dromon.to_thread.run_sync(int, pool=3)  # type: ignore[arg-type]
