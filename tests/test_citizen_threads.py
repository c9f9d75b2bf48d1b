"""Workers are raw clone3 threads that libc, CPython and the kernel take for ordinary threads.

What each test shows was seen to break, somewhere, with threads that libc does not know.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from child import check_child

import dromon
from dromon._native import lib

libc = ctypes.CDLL(None, use_errno=True)
libc.pthread_self.restype = ctypes.c_void_p


@pytest.fixture(params=["clone3", "clone", "pthread"])
def spawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A way to make workers, which pools of the test go by, in child processes too."""
    name: str = request.param
    if name == "clone3" and (error := lib.dromon_clone3_probe()) < 0:
        pytest.skip(f"clone3 is refused here: {os.strerror(-error)}")
    monkeypatch.setenv("DROMON_SPAWN", name)
    return name


@pytest.fixture
async def pool(spawn: str) -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=2) as pool:
        yield pool


# ---- How they are made ---------------------------------------------------------------------------


async def test_each_worker_is_made_by_one_clone3_call_of_ours() -> None:
    before = lib.dromon_spawn_count(lib.DROMON_SPAWN_CLONE3)
    async with dromon.open_pool(workers=3) as pool:
        assert lib.dromon_spawn_count(lib.DROMON_SPAWN_CLONE3) == before + 3 + 1  # its monitor
        for worker in pool.statistics().workers:
            assert (worker.spawn, worker.spawn_error) == ("clone3", None)


async def test_a_way_that_was_wished_is_how_they_are_made(pool: dromon.Pool, spawn: str) -> None:
    for worker in pool.statistics().workers:
        assert (worker.spawn, worker.spawn_error) == (spawn, None)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_call_is_clone3_with_the_flags_of_libc(tmp_path: Path) -> None:
    script = """if True:
        import trio, dromon
        async def main():
            async with dromon.open_pool(workers=2) as pool:
                for worker in pool.statistics().workers:
                    print(worker.tid)
        trio.run(main)
    """
    log = tmp_path / "strace"
    # By a filter it stops at these calls only; else it takes minutes in an emulated machine.
    strace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=clone3,clone", "-o", str(log)]
    tids = subprocess.run(
        [*strace, sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    flags = (
        "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|"
        "CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID"
    )
    lines = log.read_text().splitlines()
    for tid in tids:
        made_by = [line for line in lines if "clone3" in line and line.endswith(f"= {tid}")]
        assert len(made_by) == 1
        assert f"flags={flags}," in made_by[0].replace(" ", "") or "resumed" in made_by[0]


async def test_stacks_lie_in_mappings_of_ours_with_a_guard_below(pool: dromon.Pool) -> None:
    mappings = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        low, high = (int(address, 16) for address in span.split("-"))
        mappings[low] = (high, permissions)
    for worker in pool.statistics().workers:
        low = worker.stack_address
        assert mappings[low][0] >= low + worker.stack_size
        assert mappings[low][1] == "rw-p"  # not executable
        assert mappings[low - worker.guard_size] == (low, "---p")


async def test_frames_of_a_call_lie_on_the_stack_of_its_worker(pool: dromon.Pool) -> None:
    def stack_pointer() -> tuple[int, int]:
        fields = Path("/proc/thread-self/syscall").read_text().split()
        return threading.get_native_id(), int(fields[-2], 16)

    tid, pointer = await pool.run_sync(stack_pointer)
    (worker,) = (worker for worker in pool.statistics().workers if worker.tid == tid)
    assert worker.stack_address < pointer < worker.stack_address + worker.stack_size


# ---- What libc thinks of them --------------------------------------------------------------------


async def test_libc_knows_the_bounds_of_the_stack(pool: dromon.Pool) -> None:
    def bounds() -> tuple[int, int, int]:
        attributes = ctypes.create_string_buffer(256)
        low, size = ctypes.c_void_p(), ctypes.c_size_t()
        this = ctypes.c_void_p(libc.pthread_self())
        assert libc.pthread_getattr_np(this, attributes) == 0
        assert libc.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size)) == 0
        libc.pthread_attr_destroy(attributes)
        return threading.get_native_id(), low.value or 0, size.value

    tid, low, size = await pool.run_sync(bounds)
    (worker,) = (worker for worker in pool.statistics().workers if worker.tid == tid)
    assert (low, size) == (worker.stack_address, worker.stack_size)


async def test_libc_gives_the_ident_and_the_cpu_clock_of_the_very_thread(
    pool: dromon.Pool,
) -> None:
    def identify() -> tuple[bool, int, int, float]:
        clock = time.pthread_getcpuclockid(threading.get_ident())
        used = time.clock_gettime(clock)
        return libc.pthread_self() == threading.get_ident(), clock, threading.get_native_id(), used

    same, clock, tid, used = await pool.run_sync(identify)
    assert same
    assert ~(clock >> 3) == tid  # how Linux encodes a thread in a clock id
    assert used > 0


async def test_errno_belongs_to_the_worker(pool: dromon.Pool) -> None:
    def fail() -> int:
        ctypes.set_errno(0)
        libc.close(-1)
        return ctypes.get_errno()

    assert await pool.run_sync(fail) == 9  # EBADF


async def test_thread_locals_of_python_and_of_libraries_work(pool: dromon.Pool) -> None:
    local = threading.local()

    def use() -> tuple[bool, int]:
        fresh = not hasattr(local, "value")
        local.value = threading.get_ident()
        return fresh, local.value

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(pool.run_sync, use)
    assert not hasattr(local, "value")


async def test_malloc_from_all_workers_at_once(pool: dromon.Pool) -> None:
    def churn(seed: int) -> int:
        blocks = [bytes([seed % 256]) * size for size in range(1, 3000, 7)]
        blocks += [bytes([seed % 256]) * (1 << 20)]
        return sum(block.count(seed % 256) for block in blocks)

    expected = churn(1)
    async with trio.open_nursery() as nursery:

        async def check(seed: int) -> None:
            assert await pool.run_sync(churn, seed) == expected

        for seed in range(50):
            nursery.start_soon(check, seed)


async def test_the_cpu_that_runs_a_worker_can_be_asked_for(pool: dromon.Pool) -> None:
    """glibc answers from the thread's rseq area, which the worker has taken over."""
    cpu = await pool.run_sync(libc.sched_getcpu)
    assert cpu in os.sched_getaffinity(0)


# ---- Signals and identity ------------------------------------------------------------------------


async def test_pthread_kill_reaches_the_very_worker(pool: dromon.Pool) -> None:
    def interrupted() -> bool:
        # A signal that is blocked, as all are in a worker, stays pending on the thread it was
        # sent to.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        return (
            signal.SIGUSR1 in signal.sigpending()
            and signal.sigtimedwait([signal.SIGUSR1], 0) is not None
        )

    assert await pool.run_sync(interrupted)


async def test_asynchronous_signals_are_blocked_and_faults_are_not(pool: dromon.Pool) -> None:
    blocked = await pool.run_sync(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    faults = {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
    never = {signal.SIGKILL, signal.SIGSTOP}
    assert {signal.Signals(number) for number in blocked if number < 32} == (
        {number for number in signal.Signals if number < 32} - faults - never
    )
    status = await pool.run_sync(Path("/proc/thread-self/status").read_text)
    mask = int(next(line.split()[1] for line in status.splitlines() if "SigBlk" in line), 16)
    assert mask >> 31 & 0b11 == 0  # 32 and 33, libc's own


def test_the_mask_of_the_thread_that_opens_a_pool_is_unchanged() -> None:
    async def main() -> None:
        async with dromon.open_pool(workers=1):
            pass

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    trio.run(main)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up being root")
@pytest.mark.usefixtures("spawn")
@pytest.mark.parametrize("busy", [False, True])
def test_setuid_reaches_every_worker(busy: bool) -> None:
    """libc sends it to each thread that it knows; one that it misses keeps its old rights."""
    check_child(
        f"""
        import os, threading, trio, dromon

        def ids_of_all_threads():
            ids = set()
            for task in os.listdir("/proc/self/task"):
                try:
                    with open(f"/proc/self/task/{{task}}/status") as status:
                        ids |= {{tuple(line.split()) for line in status if line[1:3] == "id"}}
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended
            return {{line for line in ids if line[0] in ("Uid:", "Gid:")}}

        async def main():
            release = threading.Event()
            begun = threading.Barrier(5)

            def block():
                begun.wait()
                release.wait()

            async with dromon.open_pool(workers=4) as pool, trio.open_nursery() as nursery:
                if {busy}:
                    for _ in range(4):
                        nursery.start_soon(pool.run_sync, block)
                    await trio.to_thread.run_sync(begun.wait)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                nobody = {{("Uid:", *["65534"] * 4), ("Gid:", *["65534"] * 4)}}
                # A thread that is no longer there may be listed for a moment; one that was missed
                # would keep its rights for ever.
                with trio.fail_after(30):
                    while ids_of_all_threads() != nobody:
                        await trio.lowlevel.checkpoint()
                release.set()
            print("all")

        trio.run(main)
        """,
        "all",
    )


# ---- What CPython does on them -------------------------------------------------------------------


async def test_deep_recursion_is_a_recursion_error_and_no_overflow(pool: dromon.Pool) -> None:
    def recurse(depth: int) -> int:
        return recurse(depth + 1)

    with pytest.raises(RecursionError):
        await pool.run_sync(recurse, 0)

    def nested(depth: int) -> object:
        # Through C: each level takes real stack.
        return max([depth], key=lambda _: nested(depth + 1))

    with pytest.raises(RecursionError):
        await pool.run_sync(nested, 0)
    assert await pool.run_sync(int) == 0


@pytest.mark.usefixtures("spawn")
async def test_numpy_is_imported_and_used_in_a_worker() -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    check_child(
        """
        import sys, trio, dromon

        def use():
            import numpy
            return int((numpy.arange(1000) @ numpy.ones(1000)).item())

        assert "numpy" not in sys.modules
        print(trio.run(dromon.to_thread.run_sync, use))
        """,
        "499500",
    )
