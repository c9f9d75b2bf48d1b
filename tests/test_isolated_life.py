"""Isolated workers from first call to last: set-up, renewal, what they leave behind, and forks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import isolated_functions
import pytest
from child import check_child, run_child
from isolated_functions import CAN_ISOLATE, WHY_NOT, count

import dromon

pytestmark = pytest.mark.skipif(not CAN_ISOLATE, reason=WHY_NOT)

CYCLES = int(os.environ.get("DROMON_CYCLES", "40"))  # of opening and closing a pool


# ---- Initializers --------------------------------------------------------------------------------


def test_an_initializer_runs_once_in_each_worker() -> None:
    with dromon.Pool(2, isolation="interpreter", initializer=count) as pool:
        assert {pool.submit(isolated_functions.counted).result() for _ in range(20)} == {1}


def test_what_an_initializer_raises_comes_out_of_opening() -> None:
    with pytest.raises(LookupError) as caught:
        dromon.Pool(2, isolation="interpreter", initializer=isolated_functions.refuse)
    assert caught.value.args == ("not today",)
    assert "raised by the initializer of dromon-" in caught.value.__notes__[0]


def test_a_pool_can_be_opened_after_one_whose_initializer_failed() -> None:
    for _ in range(3):
        with pytest.raises(LookupError):
            dromon.Pool(1, isolation="interpreter", initializer=isolated_functions.refuse)
        with dromon.Pool(1, isolation="interpreter", initializer=count) as pool:
            assert pool.submit(isolated_functions.counted).result() == 1


def test_an_executor_whose_initializer_fails_is_broken() -> None:
    from concurrent.futures.thread import BrokenThreadPool

    with (
        dromon.Executor(
            1, isolation="interpreter", initializer=isolated_functions.refuse
        ) as executor,
        pytest.raises(BrokenThreadPool),
    ):
        executor.submit(int).result()


# ---- Modules -------------------------------------------------------------------------------------


def test_modules_are_imported_once_for_all_calls() -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:
        assert [pool.submit(count).result() for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_new_pool_begins_with_modules_of_its_own() -> None:
    for _ in range(3):
        with dromon.Pool(1, isolation="interpreter") as pool:
            assert pool.submit(count).result() == 1


def test_nothing_of_a_pool_is_left_in_the_next_one() -> None:
    def leave() -> None:
        import __main__

        __main__.left = 1

    def look() -> list[bool]:
        import __main__

        return [hasattr(__main__, "left"), "isolated_functions" in sys.modules]

    for _ in range(2):
        with dromon.Pool(1, isolation="interpreter") as pool:
            assert pool.submit(look).result() == [False, False]
            pool.submit(leave).result()
            pool.submit(count).result()


def test_modules_that_calls_import_do_not_pile_up() -> None:
    """Those with hooks for forks, as `logging` has, would be kept by these."""

    def count_objects() -> int:
        import gc
        import logging

        logging.getLogger()
        return len(gc.get_objects())

    counts = []
    for _ in range(10):
        with dromon.Pool(1, isolation="interpreter") as pool:
            counts.append(pool.submit(count_objects).result())
    assert counts[-1] - counts[2] < 1000


def test_the_main_module_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dromon\n"
        "print('begins')\n"
        "def double(number):\n"
        "    return 2 * number\n"
        "with dromon.Pool(2, isolation='interpreter') as pool:\n"  # without a guard
        "    print([pool.submit(double, number).result() for number in range(3)])\n"
    )
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == ("begins\n[0, 2, 4]\n", "")


# ---- What is taken over --------------------------------------------------------------------------


def test_path_and_arguments_are_the_programs() -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:
        assert pool.submit(isolated_functions.path_and_arguments).result() == (sys.path, sys.argv)


def test_warning_filters_are_the_programs() -> None:
    def warn() -> str:
        import warnings

        try:
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        except DeprecationWarning as warning:
            return f"raised {warning}"
        return "went on"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with dromon.Pool(1, isolation="interpreter") as pool:
            assert pool.submit(warn).result() == "raised old"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with dromon.Pool(1, isolation="interpreter") as pool:
            assert pool.submit(warn).result() == "went on"


def test_output_goes_to_the_process_s_own_descriptors() -> None:
    script = """
        import sys, dromon

        def speak(number):
            print("out", number)
            print("err", number, file=sys.stderr)

        with dromon.Pool(2, isolation="interpreter") as pool:
            for number in range(3):
                pool.submit(speak, number).result()
            print("main")
    """
    result = run_child(script)
    assert result.stdout == "out 0\nout 1\nout 2\nmain\n"
    assert result.stderr == "err 0\nerr 1\nerr 2\n"


def test_a_process_that_an_isolated_worker_starts_has_the_programs_signal_mask() -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:
        own = isolated_functions.mask_of_a_new_process()
        assert pool.submit(isolated_functions.mask_of_a_new_process).result() == own


def test_threads_that_calls_have_started_are_waited_for_when_the_worker_leaves(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    with dromon.Pool(1, isolation="interpreter") as pool:
        pool.submit(isolated_functions.start_thread_that_marks, str(mark)).result()
        assert not mark.exists()
        (tmp_path / "go").touch()
    assert mark.exists()


# ---- Renewal -------------------------------------------------------------------------------------


def test_a_worker_begins_anew_after_so_many_calls() -> None:
    with dromon.Pool(1, isolation="interpreter", max_tasks_per_worker=3) as pool:
        numbers = [pool.submit(count).result() for _ in range(9)]
        tids = {worker.tid for worker in pool.statistics().workers}
    assert numbers == [1, 2, 3] * 3
    assert len(tids) == 1


def test_calls_that_are_queued_together_count_one_by_one() -> None:
    with dromon.Pool(1, isolation="interpreter", max_tasks_per_worker=3) as pool:
        futures = [pool.submit(count) for _ in range(30)]
        assert [future.result() for future in futures] == [1, 2, 3] * 10


def test_the_initializer_runs_again_in_a_worker_that_begins_anew() -> None:
    with dromon.Pool(1, isolation="interpreter", max_tasks_per_worker=2, initializer=count) as pool:
        assert [pool.submit(isolated_functions.counted).result() for _ in range(6)] == [1] * 6
        assert [pool.submit(count).result() for _ in range(4)] == [2, 3] * 2


def test_a_worker_that_may_run_one_call_only() -> None:
    with dromon.Pool(2, isolation="interpreter", max_tasks_per_worker=1) as pool:
        futures = [pool.submit(count) for _ in range(20)]
        assert [future.result() for future in futures] == [1] * 20


# ---- Closing -------------------------------------------------------------------------------------


def test_a_closed_pool_refuses_calls_and_can_be_closed_again() -> None:
    pool = dromon.Pool(2, isolation="interpreter")
    pool.close()
    pool.close()
    with pytest.raises(dromon.ClosedPoolError):
        pool.submit(int)
    assert pool.statistics().workers == ()


def test_calls_that_were_accepted_run_before_the_pool_is_closed() -> None:
    with dromon.Pool(1, isolation="interpreter") as pool:
        futures = [pool.submit(count) for _ in range(50)]
    assert [future.result(timeout=0) for future in futures] == list(range(1, 51))


async def test_futures_have_their_outcomes_when_open_pool_is_left() -> None:
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        futures = [pool.submit(count) for _ in range(50)]
    assert [future.result(timeout=0) for future in futures] == list(range(1, 51))


def test_the_callback_of_a_future_can_close_the_pool() -> None:
    pool = dromon.Pool(1, isolation="interpreter")
    closed = threading.Event()

    def close(_: object) -> None:
        pool.close()
        closed.set()

    pool.submit(count).add_done_callback(close)
    assert closed.wait(timeout=60)


def test_a_pool_that_is_closed_at_once_leaves_nothing() -> None:
    for _ in range(20):
        dromon.Pool(2, isolation="interpreter").close()


def test_a_dropped_pool_ends_by_itself() -> None:
    pool = dromon.Pool(1, isolation="interpreter", name="dropped")
    future = pool.submit(divmod, 17, 5)
    with pytest.warns(ResourceWarning, match="unclosed dromon pool 'dropped'"):
        del pool
    assert future.result() == (3, 2)


async def test_memory_stays_the_same_when_pools_come_and_go() -> None:
    async def cycle() -> None:
        async with dromon.open_pool(2, isolation="interpreter") as pool:
            assert await pool.map(divmod_by_five, range(4), chunksize=1) == [
                (0, number) for number in range(4)
            ]

    def divmod_by_five(number: int) -> tuple[int, int]:
        return divmod(number, 5)

    for _ in range(50):
        await cycle()
    before = resident()
    for _ in range(CYCLES):
        await cycle()
    # One interpreter more would be 1.6 MB.
    assert resident() - before < 8 << 20


def resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---- Forks ---------------------------------------------------------------------------------------


def test_a_forked_child_opens_pools_of_its_own_and_the_parent_goes_on() -> None:
    check_child(
        """
        import os, sys, warnings, dromon
        warnings.simplefilter("ignore")  # of forking with threads

        with dromon.Pool(2, isolation="interpreter") as pool:
            print(pool.submit(divmod, 17, 5).result(), flush=True)
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    try:
                        pool.submit(int)
                    except dromon.ClosedPoolError:
                        print("refused")
                    with dromon.Pool(1, isolation="interpreter") as own:
                        print(own.submit(divmod, 27, 5).result())
                    sys.exit(3)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                print(pool.submit(divmod, 37, 5).result(), flush=True)
        """,
        ("(3, 2)\n" + "refused\n(5, 2)\n3\n(7, 2)\n" * 2).strip(),
    )


def test_a_child_can_be_forked_while_isolated_workers_are_busy() -> None:
    check_child(
        """
        import os, warnings, dromon
        warnings.simplefilter("ignore")

        def work(number):
            return sum(range(number))

        with dromon.Pool(2, isolation="interpreter") as pool:
            futures = [pool.submit(work, 20000) for _ in range(300)]
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    os._exit(3)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            print({future.result() for future in futures})
        """,
        "{199990000}",
    )
