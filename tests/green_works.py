"""What runs on green threads in tests, where it is light to import: isolated workers do, too."""

from __future__ import annotations

import contextvars
import decimal
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import cmp_to_key
from pathlib import Path
from typing import Any

from dromon import green


def on_new_stack(fn: Callable[..., Any], *args: Any) -> Any:
    """Return ``fn(*args)``, called by a child that runs on a stack other than the caller's.

    The caller parks until it is over.
    """
    over = green.Event()

    def run() -> Any:
        try:
            return fn(*args)
        finally:
            over.set()

    with green.open_scope() as scope:
        task = scope.spawn(run)
        over.wait()  # and not Task.result, which would run it here
    return task.result()


def all_at_once(fn: Callable[[int], Any], count: int) -> list[Any]:
    """Return ``fn(i)`` for each number, called by as many green threads, which take turns.

    Each of them has begun before any goes on from its first park.
    """
    begun = 0
    all_have_begun = green.Event()

    def run(i: int) -> Any:
        nonlocal begun
        begun += 1
        if begun == count:
            all_have_begun.set()
        all_have_begun.wait()
        return fn(i)

    with green.open_scope() as scope:
        tasks = [scope.spawn(run, i) for i in range(count)]
        all_have_begun.wait()
    return [task.result() for task in tasks]


@contextmanager
def parked_ones(fn: Callable[[int], object], count: int) -> Iterator[None]:
    """Keep as many green threads parked for a block. Afterwards each calls ``fn(i)``."""
    begun, go_on = green.Semaphore(0), green.Event()

    def run(i: int) -> None:
        begun.release()
        go_on.wait()
        fn(i)

    with green.open_scope() as scope:
        for i in range(count):
            scope.spawn(run, i)
        for _ in range(count):
            begun.acquire()
        try:
            yield
        finally:
            go_on.set()


def park() -> None:
    """Let all others run, and come back."""
    for _ in range(3):
        green.checkpoint()


# ---- Exceptions ----


def exceptions_stay_apart() -> None:
    def work(i: int) -> None:
        assert sys.exception() is None
        try:
            raise LookupError(i)
        except LookupError as error:
            outer = error
            park()
            assert sys.exception() is outer
            try:
                park()
                raise ValueError(i)
            except ValueError as error:
                inner = error
                park()
                assert sys.exception() is inner
                assert inner.__context__ is outer
            park()
            assert sys.exception() is outer
            assert outer.args == (i,)
        assert sys.exception() is None

    all_at_once(work, 5)


def _fail(depth: int) -> None:
    if depth == 0:
        park()
        raise LookupError("deep")
    _fail(depth - 1)


def tracebacks_are_whole() -> None:
    def work(_: int) -> list[str]:
        try:
            _fail(3)
        except LookupError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return []

    assert all_at_once(work, 3) == [["work", *["_fail"] * 4]] * 3


def futures_carry_exceptions() -> None:
    future: green.Future[None] = green.Future()

    def wait(_: int) -> str:
        try:
            future.result()
        except LookupError as error:
            return str(error)
        return ""

    with green.open_scope() as scope:
        tasks = [scope.spawn(wait, i) for i in range(3)]
        park()
        future.set_exception(LookupError("why"))
    assert [task.result() for task in tasks] == ["why"] * 3


# ---- Contexts ----

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)


def context_variables_stay_apart() -> None:
    def work(i: int) -> None:
        assert variable.get() == 7
        variable.set(i)
        park()
        token = variable.set(i + 100)
        park()
        assert variable.get() == i + 100
        variable.reset(token)
        park()
        assert variable.get() == i

    variable.set(7)
    all_at_once(work, 5)
    assert variable.get() == 7


def decimal_contexts_stay_apart() -> None:
    def work(i: int) -> None:
        with decimal.localcontext() as context:
            context.prec = i + 1
            park()
            assert len(str(decimal.Decimal(1) / 3)) == len("0.") + i + 1
            park()
            assert decimal.getcontext().prec == i + 1

    all_at_once(work, 5)


# ---- Frames ----


def _descend(depth: int) -> int:
    if depth == 0:
        park()
        return len(traceback.extract_stack())
    return _descend(depth - 1)


def each_recurses_as_deep_as_a_thread() -> None:
    limit = sys.getrecursionlimit()
    depths = all_at_once(lambda i: _descend(limit * (5 + i) // 10), 4)
    assert all(depth > limit * (5 + i) // 10 for i, depth in enumerate(depths))

    def too_deep(_: int) -> bool:
        try:
            _descend(limit)
        except RecursionError:
            return True
        return False

    assert all_at_once(too_deep, 3) == [True] * 3


def frames_lead_out_through_c() -> None:
    """A parked one has the frames below it, also beyond a C function: ``sorted(key=...)``."""

    def key(_: int) -> list[str]:
        park()
        frame = sys._getframe()
        names = []
        while frame is not None and frame.f_code.co_name != "work":
            names.append(frame.f_code.co_name)
            frame = frame.f_back  # type: ignore[assignment]
        park()
        return names

    def work(_: int) -> list[str]:
        seen: list[str] = []
        sorted([1], key=lambda item: seen.extend(key(item)) or 0)  # type: ignore[func-returns-value]
        return seen

    assert all_at_once(work, 3) == [["key", "<lambda>"]] * 3


def current_frames_have_parked_ones() -> None:
    inside, go_on = green.Event(), green.Event()

    def wait_here() -> None:
        inside.set()
        go_on.wait()

    with green.open_scope() as scope:
        task = scope.spawn(wait_here)
        inside.wait()
        assert task.ident is not None
        frame = sys._current_frames()[task.ident]
        assert [each.name for each in traceback.extract_stack(frame)][-1] == "wait_here"
        go_on.set()


# ---- Generators and coroutines ----


def generators_and_finally_blocks_park() -> None:
    log = []

    def numbers(i: int) -> Generator[int, None, None]:
        try:
            for j in range(3):
                park()
                yield j
        finally:
            park()
            log.append(i)

    @contextmanager
    def managed(i: int) -> Iterator[None]:
        park()
        try:
            yield
        finally:
            park()
            log.append(i)

    def work(i: int) -> list[int]:
        with managed(i):
            return list(numbers(i))

    assert all_at_once(work, 4) == [[0, 1, 2]] * 4
    assert sorted(log) == sorted([*range(4)] * 2)


def coroutines_sent_by_hand_park() -> None:
    async def inner(i: int) -> int:
        park()
        return i

    async def outer(i: int) -> int:
        return await inner(i) + await inner(i)

    def drive(coroutine: Coroutine[Any, Any, int]) -> int:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return int(stop.value)
        raise AssertionError

    assert all_at_once(lambda i: drive(outer(i)), 4) == [0, 2, 4, 6]


# ---- The garbage collector ----


class _Cycle:
    def __init__(self) -> None:
        self.me = self


def the_collector_sees_what_parked_frames_hold() -> None:
    def work(i: int) -> None:
        kept = _Cycle()
        dropped = weakref.ref(_Cycle())
        alive = weakref.ref(kept)
        made = type(f"Made{i}", (), {"value": i, "get": lambda self: self.value})()
        park()
        if i % 100 == 0:
            gc.collect()
            assert dropped() is None
        park()
        assert alive() is kept
        assert made.get() == i

    all_at_once(work, 1000)


# ---- Thread-locals and hooks ----


def thread_locals_stay_apart() -> None:
    local = threading.local()

    def work(i: int) -> None:
        assert not hasattr(local, "value")
        local.value = i
        park()
        assert local.value == i
        del local.value  # the next task on this green thread would find it, as in a pool's thread

    all_at_once(work, 5)


def a_tracer_sees_its_own_task_alone() -> None:
    def traced(i: int) -> None:
        park()

    def work(i: int) -> list[str]:
        seen: list[str] = []
        if i % 2 == 0:

            def tracer(frame: Any, event: str, arg: object) -> None:
                seen.append(f"{event} {frame.f_code.co_name} {frame.f_locals.get('i')}")

            sys.settrace(tracer)
        park()
        traced(i)
        park()
        sys.settrace(None)
        return [line for line in seen if "traced" in line]

    assert all_at_once(work, 4) == [["call traced 0"], [], ["call traced 2"], []]


def all_tracers_reach_parked_ones() -> None:  # Python 3.12
    calls: list[int] = []

    def traced(i: int) -> None:
        park()

    def tracer(frame: Any, event: str, arg: object) -> None:
        if frame.f_code is traced.__code__:
            calls.append(frame.f_locals["i"])

    def work(i: int) -> None:
        traced(i)
        sys.settrace(None)

    with parked_ones(work, 3):
        threading.settrace_all_threads(tracer)  # type: ignore[attr-defined,unused-ignore]
    threading.settrace_all_threads(None)  # type: ignore[attr-defined,unused-ignore]
    assert sorted(calls) == [0, 1, 2]


def monitoring_reaches_parked_ones() -> None:  # Python 3.12
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    calls: list[str] = []

    def watched() -> None:
        park()

    def work(_: int) -> None:
        watched()

    def note(code: Any, offset: int) -> None:
        if code is watched.__code__:
            calls.append(code.co_name)

    tool = monitoring.PROFILER_ID
    with parked_ones(work, 3):
        monitoring.use_tool_id(tool, "test")
        monitoring.register_callback(tool, monitoring.events.PY_START, note)
        monitoring.set_events(tool, monitoring.events.PY_START)
    monitoring.set_events(tool, 0)
    monitoring.free_tool_id(tool)
    assert calls == ["watched"] * 3


# ---- Event loops of their own ----


def each_runs_an_asyncio_loop() -> None:
    import asyncio

    async def main(i: int) -> int:
        await asyncio.sleep(0)
        park()  # in a callback of a loop, and another one runs on the same OS thread
        await asyncio.sleep(0)
        return i

    assert all_at_once(lambda i: asyncio.run(main(i)), 3) == [0, 1, 2]


def each_runs_a_trio_loop() -> None:
    import trio

    async def main(i: int) -> int:
        await trio.lowlevel.checkpoint()
        return i

    def run(i: int) -> Any:
        with parked_before_and_after():
            return trio.run(main, i)

    assert all_at_once(run, 3) == [0, 1, 2]


@contextmanager
def parked_before_and_after() -> Iterator[None]:
    park()
    yield
    park()


# ---- C code between ----


def a_c_function_calls_back_what_parks() -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )

    def compare(a: Any, b: Any) -> int:
        park()
        return int(a[0]) - int(b[0])

    callback = compare_type(compare)

    def work(i: int) -> list[int]:
        numbers = (ctypes.c_int * 8)(*[(j * 5 + i) % 8 for j in range(8)])
        libc.qsort(numbers, 8, ctypes.sizeof(ctypes.c_int), callback)
        return list(numbers)

    assert all_at_once(work, 4) == [list(range(8))] * 4


def sorting_functions_park() -> None:
    def compare(a: int, b: int) -> int:
        park()
        return a - b

    def work(i: int) -> list[int]:
        return sorted([(j * 5 + i) % 8 for j in range(8)], key=cmp_to_key(compare))

    assert all_at_once(work, 4) == [list(range(8))] * 4


def numpy_calls_back_what_parks() -> None:
    import numpy as np

    def add(a: int, b: int) -> int:
        park()
        return a + b

    def work(i: int) -> list[int]:
        result: list[int] = np.vectorize(add)(np.arange(4), i).tolist()
        return result

    assert all_at_once(work, 3) == [[i, i + 1, i + 2, i + 3] for i in range(3)]


# ---- Runaway recursion ----


class _Attributes:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "x")


class _Represented:
    def __repr__(self) -> str:
        return repr([self])


def _sort_forever(item: int) -> int:
    return sorted([item], key=_sort_forever)[0]


def _nested_list() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def _dump_json() -> None:
    import json

    json.dumps(_nested_list())


def _pickle_list() -> None:
    import pickle

    pickle.dumps(_nested_list())


def _parse() -> None:
    import ast

    ast.literal_eval("(" * 100_000 + ")" * 100_000)


def _compile_deep() -> None:
    import ast

    tree: ast.expr = ast.Constant(1)
    for _ in range(20_000):
        tree = ast.UnaryOp(ast.USub(), tree)
    compile(ast.fix_missing_locations(ast.Expression(tree)), "deep", "eval")


RUNAWAYS: dict[str, Callable[[], object]] = {
    "sorted": lambda: _sort_forever(1),
    "getattr": lambda: _Attributes().x,
    "repr": lambda: repr(_Represented()),
    "json": _dump_json,
    "pickle": _pickle_list,
    "parser": _parse,
    "compiler": _compile_deep,
    "isinstance": lambda: isinstance(1, _nested_tuple()),
}


def _nested_tuple() -> tuple[Any, ...]:
    nested: tuple[Any, ...] = (str,)
    for _ in range(100_000):
        nested = (nested,)
    return nested


def run_away_here(name: str) -> str:
    """Recurse without end in C code, and return by what that was ended."""
    try:
        RUNAWAYS[name]()
    except (RecursionError, MemoryError, SyntaxError) as error:
        return type(error).__name__
    return "nothing"


def run_away(name: str) -> str:
    """The same on a stack that is not the thread's own."""
    return str(on_new_stack(run_away_here, name))


# ---- Lives ----


def sleep_and_return(value: int) -> int:
    green.sleep(0.01)
    return value


def wait_for_ever() -> None:
    green.Event().wait()


def keep_parked(count: int, said: str) -> None:
    """Keep green threads parked for ever; when all are, write to this file."""
    with parked_ones(lambda _: None, count):
        Path(said).write_text("parked")
        wait_for_ever()


# ---- What cannot park ----


def runs_beside(fn: Callable[..., object], *args: object) -> bool:
    """Call a function that waits, and return whether another task ran meanwhile."""
    ran, meanwhile = False, []

    def other() -> None:
        nonlocal ran
        ran = True

    with green.open_scope() as scope:
        scope.spawn(other)
        fn(*args)
        meanwhile.append(ran)
    return meanwhile == [True]


def wait_a_little() -> None:
    green.sleep(0.01)


def wait_in_greenlet() -> None:
    import greenlet

    greenlet.greenlet(wait_a_little).switch()


def park_with_suspended_greenlets() -> None:
    import greenlet

    def work(i: int) -> list[int]:
        seen = []

        def inside() -> None:
            for j in range(3):
                main.switch(i * 10 + j)

        main = greenlet.getcurrent()
        other = greenlet.greenlet(inside)
        for _ in range(3):
            seen.append(other.switch())
            park()
        other.switch()
        return seen

    # One after the other, since greenlets are of the OS thread.
    assert [on_new_stack(work, i) for i in range(3)] == [
        [i * 10 + j for j in range(3)] for i in range(3)
    ]


class _WaitsAtItsEnd:
    me: _WaitsAtItsEnd

    def __del__(self) -> None:
        wait_a_little()


def wait_in_finalizer() -> None:
    waits = _WaitsAtItsEnd()
    del waits


def wait_in_collected_finalizer() -> None:
    waits = _WaitsAtItsEnd()
    waits.me = waits
    del waits
    gc.collect()


def import_twice(folder: str) -> list[bool]:
    sys.path.insert(0, folder)
    try:

        def load(_: int) -> bool:
            import green_waits_at_import  # type: ignore[import-not-found]

            return hasattr(green_waits_at_import, "ready")

        return all_at_once(load, 2)
    finally:
        sys.path.remove(folder)


# ---- What a green thread begins with ----

initialized = 0


def initialize() -> None:
    global initialized
    initialized += 1


def all_are_initialized() -> list[bool]:
    return all_at_once(lambda _: initialized == 1, 5)


def count_threads() -> int:
    """How many objects of `threading` stand for this worker and its green threads."""

    def work(_: int) -> threading.Thread:
        park()
        return threading.current_thread()

    return len(set(all_at_once(work, 5)))
