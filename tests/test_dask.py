"""A Dask worker whose tasks run on dromon's workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

distributed = pytest.importorskip("distributed", reason="distributed is not installed")

from dromon.dask import ThreadPoolExecutor  # noqa: E402

# Not this project's: what its event loop and its sockets leave to the collector.
pytestmark = pytest.mark.filterwarnings("ignore")


def run_on_worker(use: Callable[[Any, ThreadPoolExecutor], Any]) -> Any:
    """Run ``use(client, executor)`` on a cluster of one worker, and return what it returns."""

    async def main() -> Any:
        executor = ThreadPoolExecutor(2, "dask")
        options = {"dashboard_address": ":0", "protocol": "inproc"}
        async with (
            distributed.Scheduler(**options) as scheduler,
            distributed.Worker(scheduler.address, nthreads=2, executor=executor, dashboard=False),
            distributed.Client(scheduler.address, asynchronous=True) as client,
        ):
            return await use(client, executor)

    return asyncio.run(main())


def test_tasks_run_on_the_workers_of_the_executor() -> None:
    async def use(client: Any, _: object) -> Any:
        names = client.map(lambda number: threading.current_thread().name, range(20), pure=False)
        total = client.submit(sum, client.map(lambda number: number**2, range(100)))
        return set(await client.gather(names)), await total

    names, total = run_on_worker(use)
    assert names <= {"dask-0", "dask-1"}
    assert total == sum(number**2 for number in range(100))


def test_tasks_are_run_as_dask_runs_them_in_threads_of_its_own() -> None:
    """With the worker at hand, counted as active while they run, and without pickling."""

    def inspect_worker() -> tuple[bool, int]:
        worker = distributed.get_worker()
        return threading.get_ident() in worker.active_threads, worker.state.nthreads

    async def use(client: Any, _: object) -> Any:
        return await client.submit(inspect_worker)

    assert run_on_worker(use) == (True, 2)


def test_what_a_task_raises_comes_out_of_its_future() -> None:
    async def use(client: Any, _: object) -> None:
        with pytest.raises(ZeroDivisionError):
            await client.submit(divmod, 1, 0)

    run_on_worker(use)


def test_the_worker_shuts_the_executor_down() -> None:
    async def use(client: Any, executor: ThreadPoolExecutor) -> ThreadPoolExecutor:
        assert await client.submit(int, "7") == 7
        return executor

    executor = run_on_worker(use)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    assert not any(each.name.startswith("dask-") for each in threading.enumerate())
