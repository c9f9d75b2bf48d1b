"""The backend of joblib, alone and below scikit-learn."""

from __future__ import annotations

import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dromon

joblib = pytest.importorskip("joblib", reason="joblib is not installed")

import dromon.joblib  # noqa: E402
from dromon._joblib import DromonBackend  # noqa: E402

delayed: Callable[..., Any] = joblib.delayed


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    dromon.joblib.register()
    with joblib.parallel_config("dromon", n_jobs=2):
        yield


def thread_name() -> str:
    return threading.current_thread().name


def no_worker_is_left() -> bool:
    return not any(each.name.startswith("joblib") for each in threading.enumerate())


def test_results_come_in_order_from_workers() -> None:
    assert joblib.Parallel()(delayed(pow)(number, 2) for number in range(100)) == [
        number**2 for number in range(100)
    ]
    assert {name[:6] for name in joblib.Parallel()(delayed(thread_name)() for _ in range(9))} == {
        "joblib"
    }
    assert no_worker_is_left()


def test_a_block_reuses_its_workers() -> None:
    with joblib.Parallel() as parallel:
        first = set(parallel(delayed(threading.get_native_id)() for _ in range(50)))
        second = set(parallel(delayed(threading.get_native_id)() for _ in range(50)))
        assert len(first | second) <= 2
    assert no_worker_is_left()


@pytest.mark.parametrize("n_jobs", [1, None])
def test_one_job_runs_in_the_calling_thread(n_jobs: int | None) -> None:
    with joblib.parallel_config("dromon", n_jobs=n_jobs):
        assert joblib.Parallel()([delayed(thread_name)()]) == [thread_name()]


def test_all_cpus_but_so_many_may_be_asked_for() -> None:
    assert joblib.Parallel(n_jobs=-1)(delayed(int)("7") for _ in range(3)) == [7, 7, 7]
    backend = DromonBackend()
    assert backend.effective_n_jobs(-1) == joblib.cpu_count()
    assert backend.effective_n_jobs(-1000) == 1
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)


def test_what_a_call_raises_comes_out_and_the_next_parallel_works() -> None:
    with joblib.Parallel() as parallel:
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(divmod)(1, number % 7) for number in range(1000))
        assert parallel(delayed(int)("7") for _ in range(3)) == [7, 7, 7]
    assert no_worker_is_left()


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_may_come_from_a_generator(return_as: str) -> None:
    results = joblib.Parallel(return_as=return_as)(delayed(pow)(each, 2) for each in range(100))
    assert sorted(results) == [number**2 for number in range(100)]
    assert no_worker_is_left()


def test_a_generator_may_be_closed_before_its_end() -> None:
    results = joblib.Parallel(return_as="generator")(delayed(int)("7") for _ in range(1000))
    assert next(results) == 7
    with warnings.catch_warnings():  # joblib says so if there are results that nobody took
        warnings.simplefilter("ignore", UserWarning)
        results.close()


def test_a_call_that_takes_too_long_times_out() -> None:
    gate = threading.Event()
    try:
        with pytest.raises(multiprocessing.TimeoutError):
            joblib.Parallel(timeout=0.05)(delayed(gate.wait)() for _ in range(4))
    finally:
        gate.set()


def test_short_calls_are_batched() -> None:
    sizes: list[int] = []

    class Watched(DromonBackend):
        def compute_batch_size(self) -> int:
            size: int = super().compute_batch_size()
            sizes.append(size)
            return size

    joblib.register_parallel_backend("watched", Watched)
    with joblib.parallel_config("watched", n_jobs=2):
        joblib.Parallel()(delayed(time.sleep)(0.001) for _ in range(500))
    assert max(sizes) > 1


def test_a_nested_parallel_has_workers_and_one_inside_it_has_none() -> None:
    def innermost() -> tuple[int, set[int]]:
        calls = [delayed(threading.get_native_id)()] * 4
        return threading.get_native_id(), set(joblib.Parallel(n_jobs=2)(calls))

    def inner() -> tuple[int, list[tuple[int, set[int]]]]:
        calls = [delayed(innermost)()] * 4
        return threading.get_native_id(), joblib.Parallel(n_jobs=2)(calls)

    for outer, nested in joblib.Parallel()(delayed(inner)() for _ in range(4)):
        assert all(thread != outer for thread, _ in nested)
        assert all(below == {thread} for thread, below in nested)


def test_memory_is_shared() -> None:
    seen: list[int] = []
    joblib.Parallel(require="sharedmem")(delayed(seen.append)(number) for number in range(10))
    assert sorted(seen) == list(range(10))


def test_options_of_the_executor_are_taken() -> None:
    with joblib.parallel_config("dromon", n_jobs=2, stack_size=1 << 20):
        (size, *_) = joblib.Parallel()(delayed(threading.active_count)() for _ in range(3))
        assert size >= 3
    with (
        joblib.parallel_config("dromon", n_jobs=2, stack_size=1),
        pytest.raises(ValueError, match="stack_size must be"),
    ):
        joblib.Parallel()([delayed(int)()])


def test_a_random_forest_is_the_same_as_with_joblibs_threads() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="scikit-learn is not installed")
    from sklearn.datasets import make_classification

    points, labels = make_classification(300, random_state=0)

    def fit() -> Any:
        forest = ensemble.RandomForestClassifier(20, n_jobs=2, random_state=0)
        return forest.fit(points, labels).predict_proba(points)

    ours = fit()
    with joblib.parallel_config("threading", n_jobs=2):
        assert (fit() == ours).all()


def test_a_grid_search_over_forests_is_fitted() -> None:
    selection = pytest.importorskip("sklearn.model_selection", reason="no scikit-learn")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    points, labels = make_classification(200, random_state=0)
    search = selection.GridSearchCV(
        RandomForestClassifier(5, n_jobs=2, random_state=0), {"max_depth": [2, 3]}, cv=3, n_jobs=2
    )
    search.fit(points, labels)
    assert search.best_params_["max_depth"] in (2, 3)
    assert search.best_score_ > 0.5
