"""Isolated workers in rare moments: a run that ends first, a question in a question, a fork."""

from __future__ import annotations

import sys

import pytest
from child import check_child

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="needs such interpreters")


def test_a_pool_lives_on_when_a_run_ends_before_its_abandoned_calls() -> None:
    check_child(
        """
        import gc, time, trio, dromon

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(abandoned, nursery.cancel_scope)
                while not pool.statistics().running:
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()

        async def abandoned(scope):
            await pool.run_sync(time.sleep, 0.1, abandon_on_cancel=True)

        with dromon.Pool(workers=1, isolation="interpreter") as pool:
            for _ in range(3):
                trio.run(main)
                while pool.statistics().running:
                    time.sleep(0.001)
                gc.collect()
                assert pool._bridge.waiting() == []
        """
    )


def test_pickling_a_question_may_ask_another_one() -> None:
    check_child(
        """
        import trio, dromon

        class Asks:
            def __reduce__(self):
                from dromon import from_thread
                return str, (from_thread.run_sync(len, (1, "2" * 100)),)

        def ask():
            from dromon import from_thread
            return from_thread.run_sync(lambda *values: values, Asks(), 7)

        async def main():
            async with dromon.open_pool(1, isolation="interpreter") as pool:
                print(await pool.run_sync(ask))

        trio.run(main)
        """,
        "('2', 7)",
    )


def test_a_system_task_answers_a_call_that_may_be_abandoned() -> None:
    check_child(
        """
        import trio, dromon

        async def is_of_the_caller():
            import trio
            return trio.lowlevel.current_task().name.endswith('.main')

        def ask():
            from dromon import from_thread
            return from_thread.run(is_of_the_caller)

        async def main():
            async with dromon.open_pool(1, isolation="interpreter") as pool:
                for abandon in (False, True):
                    print(await pool.run_sync(ask, abandon_on_cancel=abandon))

        trio.run(main)
        """,
        "True\nFalse",
    )


def test_the_child_of_a_fork_lets_go_of_memory_of_a_worker() -> None:
    check_child(
        """
        import os, trio, dromon

        async def main():
            async with dromon.open_pool(1, isolation="interpreter") as pool:
                view = await pool.run_sync(lambda: memoryview(bytes(100_000)))
                child = os.fork()
                if child == 0:
                    del view
                    os._exit(7)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        import warnings
        warnings.simplefilter("ignore")
        trio.run(main)
        """,
        "7",
    )
