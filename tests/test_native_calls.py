"""C functions on workers: how they and their arguments are given, lifetimes, cancellation."""

from __future__ import annotations

import array
import ctypes
import errno
import gc
import re
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cffi
import pytest
import trio
import trio.testing
from child import run_child
from compiler import compile_library, needs_compiler

import dromon

SOURCE = Path(__file__).with_name("native_work.c").read_text()
ffi = cffi.FFI()
ffi.cdef("\n".join(f"{line};" for line in re.findall(r"^int \w+\(.*?\)", SOURCE, re.MULTILINE)))
libc = ctypes.CDLL(None)

pytestmark = needs_compiler


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions of native_work.c, compiled."""
    return compile_library(tmp_path_factory.mktemp("native"), SOURCE, "-D_GNU_SOURCE", "-pthread")


@pytest.fixture
def work(library: Path) -> Any:
    """The same, as cffi's library: each attribute is a function pointer."""
    return ffi.dlopen(str(library))


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(1) as pool:
        yield pool


class Gate:
    """The argument of pass_gate: tells when the function has begun, and lets it end."""

    def __init__(self) -> None:
        self.semaphores = (ctypes.c_byte * 32 * 2)()
        for semaphore in self.semaphores:
            assert libc.sem_init(semaphore, 0, 0) == 0

    async def wait_begun(self) -> None:
        await trio.to_thread.run_sync(libc.sem_wait, self.semaphores[0])

    def open(self) -> None:
        libc.sem_post(self.semaphores[1])


# ---- Functions -----------------------------------------------------------------------------------


class Compiled:
    """What run_native knows of a numba cfunc."""

    def __init__(self, function: Any) -> None:
        self.address = int(ffi.cast("uintptr_t", function))


WAYS_TO_NAME: dict[str, Callable[[Any, Path], Any]] = {
    "a function pointer of cffi": lambda work, _: work.answer,
    "ffi.addressof": lambda work, _: ffi.addressof(work, "answer"),
    "void * of cffi": lambda work, _: ffi.cast("void *", work.answer),
    "a function of ctypes": lambda _, path: ctypes.CDLL(str(path)).answer,
    "an object with an address": lambda work, _: Compiled(work.answer),
    "an address": lambda work, _: int(ffi.cast("uintptr_t", work.answer)),
}


@pytest.mark.parametrize("way", WAYS_TO_NAME)
async def test_a_function_is_named_in_many_ways(
    work: Any, library: Path, pool: dromon.Pool, way: str
) -> None:
    function = WAYS_TO_NAME[way](work, library)
    assert await pool.run_native(function, ffi.new("int *", 42)) == 42


@pytest.fixture
def numba() -> Any:
    return pytest.importorskip("numba", reason="numba is not installed")


@pytest.fixture
def numpy() -> Any:
    return pytest.importorskip("numpy", reason="NumPy is not installed")


async def test_a_function_that_numba_compiled(numba: Any, pool: dromon.Pool) -> None:
    signature = numba.types.intc(numba.types.CPointer(numba.types.intc))
    function = numba.cfunc(signature)(lambda pointer: pointer[0] + 1)
    assert await pool.run_native(function, ffi.new("int *", 41)) == 42


@pytest.mark.parametrize("fn", [None, "answer", 1.5, True, len, ffi.cast("int", 1), object()])
async def test_what_is_no_c_function_is_named(pool: dromon.Pool, fn: Any) -> None:
    with pytest.raises(TypeError, match="fn must be a C function: .*, not " + re.escape(repr(fn))):
        await pool.run_native(fn)
    assert pool.statistics().completed == 0


@pytest.mark.parametrize(
    ("fn", "named"),
    [
        (0, "0x0"),
        (-1, "-0x1"),
        (1 << 64, "0x10000000000000000"),
        (ffi.NULL, "0x0"),
        (ctypes.CFUNCTYPE(ctypes.c_int)(), "0x0"),
    ],
)
async def test_what_cannot_be_the_address_of_a_function_is_named(
    pool: dromon.Pool, fn: Any, named: str
) -> None:
    with pytest.raises(ValueError, match=f"fn must be the address of a C function, not {named}$"):
        await pool.run_native(fn)


# ---- Arguments -----------------------------------------------------------------------------------


class Pair(ctypes.Structure):
    """Something of ctypes that is no pointer."""

    _fields_ = (("first", ctypes.c_uint8), ("second", ctypes.c_uint8))


KEPT = ctypes.create_string_buffer(b"*")  # for those that are addresses alone

ARGUMENTS: dict[str, Any] = {
    "a pointer of cffi": ffi.new("char *", b"*"),
    "an array of cffi": ffi.new("char[]", b"*"),
    "a void pointer of cffi": ffi.cast("void *", ctypes.addressof(KEPT)),
    "a pointer of ctypes": ctypes.pointer(KEPT),
    "a void pointer of ctypes": ctypes.cast(KEPT, ctypes.c_void_p),
    "a char pointer of ctypes": ctypes.c_char_p(b"*"),
    "an array of ctypes": KEPT,
    "a structure of ctypes": Pair(42, 0),
    "a number of ctypes": ctypes.c_int8(42),
    "bytes": b"*",
    "a bytearray": bytearray(b"*"),
    "a memoryview": memoryview(b"-*")[1:],
    "an array.array": array.array("B", [42]),
    "an address": ctypes.addressof(KEPT),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
async def test_an_argument_reaches_the_function_as_an_address(
    work: Any, pool: dromon.Pool, kind: str
) -> None:
    assert await pool.run_native(work.first_byte, ARGUMENTS[kind]) == ord("*")


async def test_a_function_as_argument_is_its_address(
    work: Any, library: Path, pool: dromon.Pool
) -> None:
    first = ctypes.string_at(int(ffi.cast("uintptr_t", work.answer)), 1)[0]
    assert await pool.run_native(work.first_byte, work.answer) == first
    assert await pool.run_native(work.first_byte, ctypes.CDLL(str(library)).answer) == first


async def test_an_array_of_numpy_is_a_buffer_too(work: Any, numpy: Any, pool: dromon.Pool) -> None:
    numbers = numpy.zeros(1, dtype=numpy.intc)
    for _ in range(3):
        await pool.run_native(work.add_one, numbers)
    assert numbers.tolist() == [3]
    with pytest.raises(TypeError, match=r"arg must be .* a C-contiguous buffer"):
        await pool.run_native(work.add_one, numpy.zeros((4, 4))[:, 1])


@pytest.mark.parametrize("nothing", [None, 0, ffi.NULL, ctypes.c_void_p(None)])
async def test_nothing_reaches_the_function_as_null(
    work: Any, pool: dromon.Pool, nothing: object
) -> None:
    assert await pool.run_native(work.is_null, nothing) == 1


async def test_without_an_argument_the_function_gets_null(work: Any, pool: dromon.Pool) -> None:
    assert await pool.run_native(work.is_null) == 1


@pytest.mark.parametrize("arg", ["text", 1.5, True, [1], object(), ffi.cast("int", 1)])
async def test_an_argument_without_an_address_is_named(
    work: Any, pool: dromon.Pool, arg: object
) -> None:
    with pytest.raises(
        TypeError, match=r"arg must be a pointer.*, not .*" + re.escape(repr(arg)[:8])
    ):
        await pool.run_native(work.is_null, arg)


@pytest.mark.parametrize("arg", [-1, 1 << 64])
async def test_an_argument_that_cannot_be_an_address_is_named(
    work: Any, pool: dromon.Pool, arg: int
) -> None:
    with pytest.raises(ValueError, match=f"arg must be an address, not {arg}"):
        await pool.run_native(work.is_null, arg)


# ---- Results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2**31 - 1])
async def test_a_status_is_returned(work: Any, pool: dromon.Pool, status: int) -> None:
    assert await pool.run_native(work.answer, ffi.new("int *", status)) == status


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EAGAIN, BlockingIOError),
        (errno.ENOMEM, OSError),
        (12345, OSError),
    ],
)
async def test_a_negative_status_is_raised_as_the_os_error_of_that_errno(
    work: Any, pool: dromon.Pool, code: int, kind: type[OSError]
) -> None:
    with pytest.raises(kind) as raised:
        await pool.run_native(work.answer, ffi.new("int *", -code))
    assert raised.value.errno == code


async def test_a_native_call_counts_as_any_other_but_takes_no_batch(
    work: Any, pool: dromon.Pool
) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.pass_gate, gate.semaphores)
        await gate.wait_begun()
        nursery.start_soon(pool.run_native, work.is_null)
        await trio.testing.wait_all_tasks_blocked()
        statistics = pool.statistics()
        assert (statistics.running, statistics.queued, statistics.completed) == (1, 1, 0)
        gate.open()
    statistics = pool.statistics()
    assert (statistics.running, statistics.queued, statistics.completed) == (0, 0, 2)
    assert statistics.batches == 0


async def test_a_native_call_is_a_checkpoint(work: Any, pool: dromon.Pool) -> None:
    with trio.testing.assert_checkpoints():
        await pool.run_native(work.is_null)


# ---- Side by side --------------------------------------------------------------------------------


async def test_native_calls_run_beside_each_other_and_beside_python_code(work: Any) -> None:
    barrier = ctypes.create_string_buffer(64)
    assert libc.pthread_barrier_init(barrier, None, 3) == 0
    async with dromon.open_pool(3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.meet, barrier)
        nursery.start_soon(pool.run_native, work.meet, barrier)
        while pool.statistics().running < 2:
            await trio.lowlevel.checkpoint()
        # Both wait, on two workers; Python code runs here and on the third worker.
        assert await pool.run_sync(int, "7") == 7
        assert pool.statistics().running == 2
        nursery.start_soon(pool.run_native, work.meet, barrier)


async def test_1000_native_calls_between_1000_calls_of_python_none_lost_or_doubled(
    work: Any,
) -> None:
    count, ran = ffi.new("int *"), []
    async with dromon.open_pool(3, queue_capacity=64) as pool, trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(pool.run_native, work.add_one, count)
            nursery.start_soon(pool.run_sync, ran.append, number)
    assert count[0] == 1000
    assert sorted(ran) == list(range(1000))
    assert pool.statistics().completed == 2000


@pytest.mark.parametrize("change", ["change_name", "change_mask"])
async def test_what_a_native_call_changed_of_its_thread_is_restored_for_the_next(
    work: Any, pool: dromon.Pool, change: str
) -> None:
    assert await pool.run_native(work.has_own_state) == 1
    for _ in range(100):
        assert await pool.run_native(getattr(work, change)) == 0
        assert await pool.run_native(work.has_own_state) == 1


# ---- How long the argument lives -----------------------------------------------------------------


class Watched:
    """The argument of a native call in flight, and whether it is still alive."""

    def __init__(self) -> None:
        self.gate = Gate()
        self._argument = weakref.ref(self.gate.semaphores)

    def take(self) -> Any:
        """Give away the one reference that this test has."""
        return self.gate.__dict__.pop("semaphores")

    def is_alive(self) -> bool:
        gc.collect()
        return self._argument() is not None

    async def wait_begun(self) -> None:
        argument = self._argument()
        assert argument is not None
        await trio.to_thread.run_sync(libc.sem_wait, argument[0])

    def open(self) -> None:
        argument = self._argument()
        assert argument is not None
        libc.sem_post(argument[1])

    async def wait_released(self) -> None:
        with trio.fail_after(60):
            while self.is_alive():
                await trio.lowlevel.checkpoint()


async def test_the_argument_lives_until_the_function_has_ended_and_no_longer(
    work: Any, pool: dromon.Pool
) -> None:
    watched = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.pass_gate, watched.take())
        await watched.wait_begun()
        assert watched.is_alive()
        watched.open()
    assert not watched.is_alive()


async def test_the_argument_of_a_withdrawn_call_is_released_at_once(
    work: Any, pool: dromon.Pool
) -> None:
    gate, watched = Gate(), Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.pass_gate, gate.semaphores)
        await gate.wait_begun()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pool.run_native, work.pass_gate, watched.take())
                await trio.testing.wait_all_tasks_blocked()
                assert watched.is_alive()
                scope.cancel()
        assert scope.cancelled_caught
        assert not watched.is_alive()
        gate.open()
    await pool.run_native(work.is_null)
    assert (pool.statistics().cancelled, pool.statistics().completed) == (1, 2)


async def abandon(pool: dromon.Pool, function: Any, watched: Watched) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            argument = watched.take()
            nursery.start_soon(
                lambda argument: pool.run_native(function, argument, abandon_on_cancel=True),
                argument,
            )
            del argument
            await watched.wait_begun()
            scope.cancel()
    assert scope.cancelled_caught


async def test_the_argument_of_an_abandoned_call_lives_until_the_function_has_ended(
    work: Any, pool: dromon.Pool
) -> None:
    watched = Watched()
    await abandon(pool, work.pass_gate, watched)
    assert watched.is_alive()
    assert pool.statistics().running == 1
    watched.open()
    await watched.wait_released()
    assert pool.statistics().running == 0


async def test_the_argument_lives_on_when_the_run_has_ended_before_the_function(
    work: Any, pool: dromon.Pool
) -> None:
    watched = Watched()
    await trio.to_thread.run_sync(trio.run, abandon, pool, work.pass_gate, watched)
    assert watched.is_alive()
    watched.open()
    await watched.wait_released()
    assert await pool.run_native(work.is_null) == 1


async def test_a_buffer_keeps_its_memory_while_the_function_runs(
    work: Any, pool: dromon.Pool
) -> None:
    gate = Gate()
    buffer = bytearray(64)
    memory = (ctypes.c_byte * 32 * 2).from_buffer(buffer)
    for semaphore in memory:
        libc.sem_init(semaphore, 0, 0)
    del semaphore, memory
    gate.semaphores = (ctypes.c_byte * 32 * 2).from_buffer(buffer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.pass_gate, buffer)
        await gate.wait_begun()
        opened = gate.semaphores
        del gate
        with pytest.raises(BufferError):
            buffer.extend(b"more")
        libc.sem_post(opened[1])
        del opened
    gc.collect()
    buffer.extend(b"more")


async def test_the_function_is_kept_alive_too(work: Any, pool: dromon.Pool) -> None:
    """Else the code of a closure of cffi or ctypes would go while it runs."""
    begun, release = threading.Event(), threading.Event()

    def function(_: int | None) -> int:
        begun.set()
        release.wait()
        return 7

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(function)
    watched = weakref.ref(callback)
    results = []

    async def call(callback: Any) -> None:
        results.append(await pool.run_native(callback))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, callback)
        del callback
        await trio.to_thread.run_sync(begun.wait)
        gc.collect()
        assert watched() is not None
        release.set()
    assert results == [7]


# ---- Cancellation --------------------------------------------------------------------------------


async def test_a_native_call_in_a_cancelled_scope_never_begins(
    work: Any, pool: dromon.Pool
) -> None:
    count = ffi.new("int *")
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.run_native(work.add_one, count)
    assert scope.cancelled_caught
    await pool.run_native(work.is_null)
    assert count[0] == 0


async def test_a_running_function_is_waited_for_and_its_result_kept(
    work: Any, pool: dromon.Pool
) -> None:
    gate, results = Gate(), []

    async def call() -> None:
        results.append(await pool.run_native(work.pass_gate, gate.semaphores))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.wait_begun()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert results == []
                gate.open()
    assert results == [7]


async def test_an_abandoned_functions_status_is_discarded(work: Any, pool: dromon.Pool) -> None:
    watched = Watched()
    await abandon(pool, work.pass_gate, watched)
    watched.open()
    assert await pool.run_native(work.is_null) == 1
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("how", ["ends", "abandoned"])
async def test_a_limiter_is_held_until_the_function_has_ended(
    work: Any, pool: dromon.Pool, how: str
) -> None:
    limiter, gate = trio.CapacityLimiter(1), Gate()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: pool.run_native(
                    work.pass_gate, gate.semaphores, abandon_on_cancel=True, limiter=limiter
                )
            )
            await gate.wait_begun()
            assert limiter.borrowed_tokens == 1
            if how == "ends":
                gate.open()
            else:
                scope.cancel()
    if how == "abandoned":
        assert limiter.borrowed_tokens == 1
        gate.open()
        async with limiter:  # once the function has ended
            pass
    assert limiter.borrowed_tokens == 0


async def test_a_limiter_is_released_when_the_call_is_withdrawn_or_refused(
    work: Any, pool: dromon.Pool
) -> None:
    limiter, gate = trio.CapacityLimiter(1), Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_native, work.pass_gate, gate.semaphores)
        await gate.wait_begun()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(lambda: pool.run_native(work.is_null, limiter=limiter))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert limiter.borrowed_tokens == 0
        gate.open()
    async with dromon.open_pool(1) as closed:
        pass
    with pytest.raises(dromon.ClosedPoolError):
        await closed.run_native(work.is_null, limiter=limiter)
    assert limiter.borrowed_tokens == 0


# ---- The end -------------------------------------------------------------------------------------


async def test_closing_waits_for_native_calls_that_run_and_that_are_queued(work: Any) -> None:
    gate, count = Gate(), ffi.new("int *")
    async with trio.open_nursery() as nursery:
        async with dromon.open_pool(1) as pool:
            nursery.start_soon(pool.run_native, work.pass_gate, gate.semaphores)
            await gate.wait_begun()
            for _ in range(10):
                nursery.start_soon(pool.run_native, work.add_one, count)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert count[0] == 10


async def test_a_closed_pool_refuses_native_calls(work: Any) -> None:
    async with dromon.open_pool(1) as pool:
        pass
    with pytest.raises(dromon.ClosedPoolError):
        await pool.run_native(work.is_null)


async def test_an_async_generator_that_trio_finalises_makes_native_calls(
    work: Any, pool: dromon.Pool
) -> None:
    results = []

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                for limiter in (None, trio.CapacityLimiter(1)):
                    results.append(await pool.run_native(work.is_null, limiter=limiter))

    async def main() -> None:
        kept.append(generator())
        await anext(kept[0])

    kept: list[AsyncGenerator[None, None]] = []
    await trio.to_thread.run_sync(trio.run, main)
    assert results == [1, 1]


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "os._exit(3)"])
def test_the_process_ends_with_its_exit_code_while_native_calls_run(
    library: Path, end: str
) -> None:
    result = run_child(
        f"""
        import ctypes, os, threading, trio, dromon

        work, libc = ctypes.CDLL({str(library)!r}), ctypes.CDLL(None)

        async def main():
            async with dromon.open_pool(2) as pool, trio.open_nursery() as nursery:
                for gate in gates:
                    nursery.start_soon(pool.run_native, work.pass_gate, gate)

        gates = [ctypes.create_string_buffer(64) for _ in range(2)]
        threading.Thread(target=trio.run, args=(main,), daemon=True).start()
        for gate in gates:
            libc.sem_wait(gate)
        {end}
        """
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")
