"""The backend of `dromon.joblib`: an executor behind what joblib asks of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joblib import cpu_count, register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from ._executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


def register(name: str = "dromon", *, make_default: bool = False) -> None:
    """Register the backend with joblib, for ``parallel_config(backend=name)``.

    Each call of `joblib.Parallel` (each ``with Parallel(...)`` block, if it is used so) has an
    executor of its own, of ``n_jobs`` threads; further arguments of ``parallel_config`` are options
    of it (see `dromon.Executor`). Calls share the memory of the process
    (``require="sharedmem"``), small ones are batched, and a `joblib.Parallel` inside of one has an
    executor, too; one inside that runs its calls one after the other.

    Args:
      name (str): By what joblib knows it.
      make_default (bool): Whether joblib shall use it where no backend is named.

    Example::

        dromon.joblib.register()
        with joblib.parallel_config("dromon", n_jobs=4, nice=5):
            search.fit(X, y)
    """
    register_parallel_backend(name, DromonBackend, make_default=make_default)


class DromonBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What joblib asks for, see `joblib.parallel.ParallelBackendBase`."""

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    _executor: Executor | None = None
    _workers = 1

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        **_: Any,  # what joblib has for its processes
    ) -> int:
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._workers = workers
        self._open()
        return workers

    def _open(self) -> None:
        self._executor = Executor(self._workers, "joblib", **self.backend_kwargs)

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None
    ) -> Future[Any]:
        assert self._executor is not None  # between configure and terminate
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        level = (self.nesting_level or 0) + 1
        kind = DromonBackend if level == 1 else SequentialBackend
        return kind(nesting_level=level), None

    def terminate(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        if ensure_ready:
            self._open()
