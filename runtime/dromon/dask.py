"""dromon's workers as the threads of a Dask worker.

`distributed.Worker` takes an executor for the tasks of a worker. By the name of its class it tells
whether that runs them in threads of its own process, with the worker's context and counted as
active, or elsewhere, with pickled arguments. So the class here is named as the one it stands in
for::

    from dromon.dask import ThreadPoolExecutor

    async with distributed.Worker(scheduler, nthreads=4, executor=ThreadPoolExecutor(4)): ...
"""

from __future__ import annotations

from ._executor import Executor


class ThreadPoolExecutor(Executor):
    """A `dromon.Executor` for ``distributed.Worker(executor=...)``.

    It needs as many threads as the worker has ``nthreads``. The worker shuts it down when it
    closes.

    Example::

        executor = ThreadPoolExecutor(max_workers=4)
        async with distributed.Worker(address, nthreads=4, executor=executor):
            ...
    """
