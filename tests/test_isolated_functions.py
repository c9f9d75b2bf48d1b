"""Functions that isolated workers call, and all ways to have them called."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
import statistics
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import isolated_calls as calls
import pytest
import trio
from child import check_child

import dromon

pytestmark = pytest.mark.skipif(not calls.CAN_ISOLATE, reason=calls.WHY_NOT)


@pytest.fixture
def executor() -> Iterator[dromon.Executor]:
    with dromon.Executor(2, isolation="interpreter") as executor:
        yield executor


class Gate:
    """Holds up calls of `isolated_calls.enter(gate.fds)` until it is opened."""

    def __init__(self) -> None:
        self._begun, self._go_on = os.pipe(), os.pipe()
        self.fds = self._begun[1], self._go_on[0]

    def wait(self, calls: int) -> None:
        """Wait until so many calls are in it."""
        while calls:
            calls -= len(os.read(self._begun[0], calls))

    def open(self, calls: int) -> None:
        """Let so many calls out."""
        os.write(self._go_on[1], b"x" * calls)

    def close(self) -> None:
        for fd in (*self._begun, *self._go_on):
            os.close(fd)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


# ---- By reference --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (math.factorial, (20,)),
        (len, ([1, 2],)),
        (int, ("12",)),
        (dict, ([(1, 2)],)),
        (bytes.upper, (b"abc",)),
        (str.join, (",", ["a", "b"])),
        (statistics.mean, ([1, 2, 3],)),
        (calls.square, (3,)),
        (calls.plus_two, (3,)),
        (calls.factorial, (10,)),
        (calls.Counter.double, (4,)),
        (calls.Record, ("a", 1)),
        (int.from_bytes, (b"ab", "big")),
        (dict.fromkeys, ("ab",)),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
async def test_functions_of_modules_run(
    isolated_pool: dromon.Pool, function: Callable[..., Any], args: Any
) -> None:
    assert await isolated_pool.run_sync(function, *args) == function(*args)


async def test_a_module_is_imported_once_per_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    (tmp_path / "imported_once.py").write_text(
        f"with open({str(log)!r}, 'a') as log: log.write('x')\ndef call(): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import imported_once  # type: ignore[import-not-found]

        log.write_text("")
        async with dromon.open_pool(1, isolation="interpreter") as pool:
            for _ in range(3):
                await pool.run_sync(imported_once.call)
        assert log.read_text() == "x"
        async with dromon.open_pool(1, isolation="interpreter") as pool:
            await pool.run_sync(imported_once.call)
        assert log.read_text() == "xx"
    finally:
        sys.modules.pop("imported_once", None)


async def test_what_a_module_holds_is_the_workers_own(isolated_worker: dromon.Pool) -> None:
    await isolated_worker.run_sync(calls.keep, 1)
    assert calls.kept == []
    assert await isolated_worker.run_sync(calls.kept_now) == [1]


async def test_a_name_that_is_not_there_in_the_worker_is_told(
    isolated_pool: dromon.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late() -> None:
        pass

    late.__module__, late.__qualname__ = calls.__name__, "late"
    monkeypatch.setattr(calls, "late", late, raising=False)
    with pytest.raises(AttributeError, match="has no 'late' in this interpreter"):
        await isolated_pool.run_sync(late)


# ---- By value ------------------------------------------------------------------------------------


def make_callables() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    step = 3

    def recursive(number: int) -> int:
        return 1 if number < 2 else number * recursive(number - 1)

    def is_even(number: int) -> bool:
        return number == 0 or is_odd(number - 1)

    def is_odd(number: int) -> bool:
        return number != 0 and is_even(number - 1)

    def defaults(first: int, second: int = 2, *, third: int = 3) -> tuple[int, ...]:
        return first, second, third

    def uses_globals(number: int) -> int:
        return operator.add(number, math.factorial(3))

    def comprehends(number: int) -> list[int]:
        return [each * step for each in range(number)]

    class Local:
        def __init__(self) -> None:
            self.value = step

        def add(self, number: int) -> int:
            return number + self.value

        def __call__(self, number: int) -> int:
            return number - self.value

        @classmethod
        def name(cls) -> str:
            return cls.__name__

    namespace: dict[str, Any] = {}
    exec(
        "base = 5\ndef made(x):\n    return helper(x) + base\ndef helper(x):\n    return 2 * x",
        namespace,
    )
    return {
        "lambda": (lambda number: number + 1, (1,)),
        "closure": (lambda number: number + step, (1,)),
        "recursive": (recursive, (6,)),
        "mutual": (is_even, (7,)),
        "defaults": (defaults, (1,)),
        "globals": (uses_globals, (1,)),
        "comprehension": (comprehends, (4,)),
        "partial": (functools.partial(calls.arguments, 1, [2]), (3,)),
        "partial_lambda": (functools.partial(lambda *args: args, 1), (2,)),
        "keywords": (functools.partial(int, base=16), ("ff",)),
        "bound": (calls.Counter(4).add, (1,)),
        "bound_local": (Local().add, (1,)),
        "instance": (calls.Counter(4), (1,)),
        "local_instance": (Local(), (1,)),
        "local_classmethod": (Local.name, ()),
        "bound_builtin": ("abc".upper, ()),
        "bound_list": ([3, 1].index, (1,)),
        "itemgetter": (operator.itemgetter(1), ([1, 2],)),
        "exec": (namespace["made"], (1,)),
        "decorated": (calls.decorated(lambda number: number), (1,)),
        "cached": (functools.cache(lambda number: number), (1,)),
    }


@pytest.mark.parametrize("name", make_callables())
async def test_callables_run_twice_alike(isolated_pool: dromon.Pool, name: str) -> None:
    function, args = make_callables()[name]
    expected = function(*args)
    assert await isolated_pool.run_sync(function, *args) == expected
    assert await isolated_pool.run_sync(function, *args) == expected
    assert isolated_pool.submit(function, *args).result() == expected


async def test_a_class_is_a_callable(isolated_pool: dromon.Pool) -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    made = await isolated_pool.run_sync(Local, 3)
    assert type(made) is Local
    assert made.value == 3


async def test_a_change_of_what_a_closure_has_shows_at_the_next_call(
    isolated_pool: dromon.Pool,
) -> None:
    number, values = 1, [1]

    def look() -> tuple[int, list[int]]:
        return number, values

    assert await isolated_pool.run_sync(look) == (1, [1])
    number = 2
    assert await isolated_pool.run_sync(look) == (2, [1])
    values.append(2)
    assert await isolated_pool.run_sync(look) == (2, [1, 2])


async def test_a_closure_is_loaded_once_and_keeps_its_own_state(
    isolated_worker: dromon.Pool,
) -> None:
    count = 0

    def increase() -> int:
        nonlocal count
        count += 1
        return count

    assert [await isolated_worker.run_sync(increase) for _ in range(3)] == [1, 2, 3]
    assert count == 0


async def test_a_function_that_stays_the_same_is_sent_and_loaded_once(
    isolated_worker: dromon.Pool,
) -> None:
    def make_table() -> list[int]:
        return calls_made.append(1) or [0] * 1_000

    class Table:
        def __reduce__(self) -> Any:
            return make_table, ()

    calls_made: list[int] = []
    table = Table()
    look = functools.partial(lambda table, number: (id(table), number), table)
    first = await isolated_worker.run_sync(look, 1)
    assert await isolated_worker.run_sync(look, 2) == (first[0], 2)


def test_functions_of_main_run() -> None:
    check_child(
        """
        import dataclasses, dromon, trio

        factor = 3

        @dataclasses.dataclass
        class Item:
            value: int

            def scaled(self):
                return Item(self.value * factor)

        def scale(item):
            return helper(item)

        def helper(item):
            return item.scaled()

        async def main():
            global factor
            async with dromon.open_pool(2, isolation="interpreter") as pool:
                print(await pool.run_sync(scale, Item(2)) == Item(6))
                print(await pool.map(scale, [Item(1), Item(2)]))
                print(await pool.run_sync(lambda: factor))
                factor = 4
                print(await pool.run_sync(lambda: factor))
                print(type(await pool.run_sync(Item, 1)) is Item)
                try:
                    await pool.run_sync(lambda: 1 // 0)
                except ZeroDivisionError as error:
                    print(error)
        trio.run(main)
        """,
        f"""
True
[Item(value=3), Item(value=6)]
3
4
True
{zero_division()}
""".strip(),
    )


def zero_division() -> str:
    try:
        1 // 0  # noqa: B018
    except ZeroDivisionError as error:
        return str(error)


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dromon\n"
        "print('once')\n"
        "def double(x): return 2 * x\n"
        "with dromon.Pool(2, isolation='interpreter') as pool:\n"
        "    print([f.result() for f in [pool.submit(double, n) for n in range(3)]])\n"
    )
    check_child(
        f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", "once\n[0, 2, 4]"
    )


# ---- Pool ----------------------------------------------------------------------------------------


async def test_submit_gives_a_future(isolated_pool: dromon.Pool) -> None:
    made = [isolated_pool.submit(calls.square, number) for number in range(100)]
    assert [future.result() for future in made] == [number**2 for number in range(100)]
    assert isolated_pool.submit_nowait(calls.square, 3).result() == 9


async def test_a_queue_that_is_full_is_told(gate: Gate) -> None:
    async with dromon.open_pool(1, isolation="interpreter", queue_capacity=2) as pool:
        first = pool.submit(calls.enter, gate.fds)
        gate.wait(1)
        rest = [pool.submit_nowait(calls.square, 2) for _ in range(2)]
        with pytest.raises(dromon.QueueFull):
            pool.submit_nowait(calls.square, 3)
        gate.open(1)
        assert first.result() is None
        assert [future.result() for future in rest] == [4, 4]


async def test_two_calls_run_at_once(isolated_pool: dromon.Pool, gate: Gate) -> None:
    held = [isolated_pool.submit(calls.enter, gate.fds) for _ in range(2)]
    gate.wait(2)
    assert isolated_pool.statistics().running == 2
    gate.open(2)
    for future in held:
        future.result()


async def test_a_map_gives_its_results_in_order(isolated_pool: dromon.Pool) -> None:
    expected = [number**2 for number in range(2_000)]
    assert await isolated_pool.map(calls.square, range(2_000)) == expected
    assert await isolated_pool.map(lambda number: number**2, iter(range(2_000))) == expected
    assert await isolated_pool.map(calls.square, range(2_000), chunksize=7) == expected
    assert await isolated_pool.map(calls.square, range(20), max_in_flight=2) == expected[:20]
    assert await isolated_pool.map(calls.square, []) == []


async def test_a_map_reads_an_async_iterable(isolated_pool: dromon.Pool) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            yield number
            await trio.lowlevel.checkpoint()

    assert await isolated_pool.map(calls.square, numbers()) == [n**2 for n in range(100)]


async def test_a_starmap_spreads_its_items(isolated_pool: dromon.Pool) -> None:
    items = [(number, 2) for number in range(50)]
    assert await isolated_pool.starmap(pow, items) == [number**2 for number in range(50)]


async def test_a_map_with_a_failing_item_fails(isolated_pool: dromon.Pool) -> None:
    with pytest.raises(ExceptionGroup) as info:
        await isolated_pool.map(calls.raise_value_error, range(100), chunksize=2)
    (error,) = info.value.exceptions
    assert type(error) is ValueError
    assert error.__notes__ == ["raised for item 3 of the map"]
    assert await isolated_pool.map(calls.square, [1, 2]) == [1, 4]


async def test_a_map_with_an_item_that_cannot_travel_fails(isolated_pool: dromon.Pool) -> None:
    with pytest.raises(ExceptionGroup) as info:
        await isolated_pool.map(calls.same, [1, threading.Lock(), 2])
    assert type(info.value.exceptions[0]) is TypeError


async def test_a_map_with_a_result_that_cannot_travel_fails(isolated_pool: dromon.Pool) -> None:
    with pytest.raises(ExceptionGroup) as info:
        await isolated_pool.map(lambda _: make_lock(), range(10))
    assert type(info.value.exceptions[0]) is TypeError


make_lock = calls.make_lock


async def test_outcomes_of_a_map_are_in_order(isolated_pool: dromon.Pool) -> None:
    async with isolated_pool.open_map(
        calls.raise_value_error, range(6), return_outcomes=True, chunksize=4
    ) as results:
        outcomes = [outcome async for outcome in results]
    assert [type(outcome).__name__ for outcome in outcomes] == ["Value"] * 3 + ["Error"] + [
        "Value"
    ] * 2
    assert outcomes[5].unwrap() == 5
    with pytest.raises(ValueError, match="3 is not allowed"):
        outcomes[3].unwrap()


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_open_map_gives_every_result_once(
    isolated_pool: dromon.Pool, ordered: bool
) -> None:
    async with isolated_pool.open_map(calls.square, range(500), ordered=ordered) as results:
        got = [result async for result in results]
    expected = [number**2 for number in range(500)]
    assert (got if ordered else sorted(got)) == expected


async def test_an_endless_map_ends_when_its_block_is_left(isolated_pool: dromon.Pool) -> None:
    async with isolated_pool.open_map(calls.square, itertools.count()) as results:
        async for result in results:
            if result > 1_000:
                break
    assert await isolated_pool.run_sync(calls.square, 2) == 4


@pytest.mark.parametrize("fails", [False, True])
async def test_a_map_that_is_cancelled_begins_no_more_items(
    isolated_worker: dromon.Pool, gate: Gate, fails: bool
) -> None:
    def step(number: int) -> int:
        keep(number)
        enter(fds)
        if fails:
            raise ValueError(number)
        return number

    async def map_steps() -> None:
        opened = isolated_worker.open_map(step, range(100), chunksize=10, return_outcomes=True)
        async with opened as outcomes:
            async for _ in outcomes:
                pass

    keep, enter, fds = calls.keep, calls.enter, gate.fds
    async with trio.open_nursery() as nursery:
        nursery.start_soon(map_steps)
        await trio.to_thread.run_sync(gate.wait, 1)
        nursery.cancel_scope.cancel()
        gate.open(1)
    assert await isolated_worker.run_sync(calls.kept_now) == [0]


async def test_statistics_count_isolated_calls(isolated_pool: dromon.Pool) -> None:
    for number in range(10):
        await isolated_pool.run_sync(calls.square, number)
    with pytest.raises(ValueError, match="not allowed"):
        await isolated_pool.run_sync(calls.raise_value_error, 3)
    now = isolated_pool.statistics()
    assert (now.completed, now.running, now.queued, now.cancelled) == (11, 0, 0, 0)
    assert now.run_time.total == now.queue_wait.total == 11
    assert len({worker.tid for worker in now.workers}) == 2


async def test_a_call_that_is_withdrawn_never_runs(
    isolated_worker: dromon.Pool, gate: Gate
) -> None:
    held = isolated_worker.submit(calls.enter, gate.fds)
    gate.wait(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(isolated_worker.run_sync, calls.keep, 1)
        while isolated_worker.statistics().queued == 0:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    gate.open(1)
    held.result()
    assert await isolated_worker.run_sync(calls.kept_now) == []
    assert isolated_worker.statistics().cancelled == 1


# ---- Executor ------------------------------------------------------------------------------------


def test_an_executor_runs_calls_with_keywords(executor: dromon.Executor) -> None:
    assert executor.submit(int, "ff", base=16).result() == 255
    assert executor.submit(lambda a, *, b: (a, b), 1, b=[2]).result() == (1, [2])


@pytest.mark.parametrize("chunksize", [1, 3, 1_000])
def test_an_executors_map_is_in_order(executor: dromon.Executor, chunksize: int) -> None:
    got = executor.map(pow, range(100), itertools.repeat(2), chunksize=chunksize)
    assert list(got) == [number**2 for number in range(100)]
    closure = executor.map(lambda number: number + chunksize, range(10), chunksize=chunksize)
    assert list(closure) == [number + chunksize for number in range(10)]


@pytest.mark.parametrize("chunksize", [1, 2])
def test_an_executors_map_raises_at_its_place(executor: dromon.Executor, chunksize: int) -> None:
    got = executor.map(calls.raise_value_error, range(5), chunksize=chunksize)
    assert [next(got) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3 is not allowed"):
        next(got)


def test_a_future_that_was_cancelled_never_runs(gate: Gate) -> None:
    with dromon.Executor(1, isolation="interpreter") as executor:
        held = executor.submit(calls.enter, gate.fds)
        gate.wait(1)
        assert held.running()
        assert not held.cancel()
        queued = executor.submit(calls.keep, 1)
        assert not queued.running()
        assert queued.cancel()
        gate.open(1)
        assert executor.submit(calls.kept_now).result() == []
        assert held.done()
        with pytest.raises(futures.CancelledError):
            queued.result()


def test_futures_complete_for_the_standard_library(executor: dromon.Executor) -> None:
    made = {executor.submit(calls.square, number): number for number in range(20)}
    for future in futures.as_completed(made, timeout=60):
        assert future.result() == made[future] ** 2
    failing = [executor.submit(calls.raise_value_error, number) for number in (1, 3)]
    done, pending = futures.wait(failing, timeout=60)
    assert done == set(failing)
    assert not pending
    assert type(failing[1].exception()) is ValueError


def test_callbacks_run_in_the_main_interpreter(executor: dromon.Executor) -> None:
    got: list[Any] = []
    called = threading.Event()

    def note(future: futures.Future[int]) -> None:
        got.append(future.result())
        called.set()

    executor.submit(calls.square, 3).add_done_callback(note)
    assert called.wait(60)
    assert got == [9]


def test_shutdown_cancels_what_has_not_begun(gate: Gate) -> None:
    executor = dromon.Executor(1, isolation="interpreter")
    held = executor.submit(calls.enter, gate.fds)
    gate.wait(1)
    queued = [executor.submit(calls.square, number) for number in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.square, 1)
    gate.open(1)
    executor.shutdown()
    assert held.result(60) is None


def test_shutdown_waits_for_what_was_accepted() -> None:
    executor = dromon.Executor(1, isolation="interpreter")
    made = [executor.submit(calls.square, number) for number in range(100)]
    executor.shutdown()
    assert all(future.done() for future in made)
    assert [future.result() for future in made] == [number**2 for number in range(100)]


def test_an_executor_refuses_what_cannot_travel(executor: dromon.Executor) -> None:
    with pytest.raises(TypeError):
        executor.submit(calls.same, threading.Lock())
    with pytest.raises(TypeError, match="cannot pickle"):
        executor.submit(calls.make_lock).result()
    assert executor.submit(calls.same, 1).result() == 1


# ---- The others ----------------------------------------------------------------------------------


async def test_to_interpreter_runs_calls() -> None:
    assert await dromon.to_interpreter.run_sync(calls.square, 3) == 9
    assert await dromon.to_interpreter.run_sync(lambda number: number + 1, 3) == 4
    assert not await dromon.to_interpreter.run_sync(calls.is_main)
    with pytest.raises(ValueError, match="not allowed"):
        await dromon.to_interpreter.run_sync(calls.raise_value_error, 3)
    assert await dromon.to_thread.run_sync(calls.is_main)


async def test_auto_is_what_runs_python_in_parallel() -> None:
    has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    async with dromon.open_pool(1, isolation="auto") as pool:
        assert await pool.run_sync(calls.is_main) is not has_gil
    with dromon.Executor(1, isolation="auto") as executor:
        assert executor.submit(calls.is_main).result() is not has_gil
