"""What an extension module refuses in an isolated worker, and what that is for the caller."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from child import check_child

import dromon

needs_isolation = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share one GIL"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1, isolation="interpreter") as pool:
        yield pool


def use_cffi(item: object = None) -> None:
    import _cffi_backend  # type: ignore[import-not-found]  # noqa: F401


def check_refusal(error: BaseException) -> None:
    assert type(error) is dromon.IsolationError
    assert error.module == "_cffi_backend"
    assert "'_cffi_backend' does not load in an interpreter of a worker's own" in str(error)
    assert type(error.__cause__) is ImportError
    assert "does not support loading in subinterpreters" in str(error.__cause__)


def raised(fn: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011
        fn()
    return info.value


@needs_isolation
async def test_a_refused_import_in_a_call_is_an_isolation_error() -> None:
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        with pytest.raises(dromon.IsolationError) as info:
            await pool.run_sync(use_cffi)
    check_refusal(info.value)


@needs_isolation
def test_so_it_is_for_a_future_and_each_time_again(pool: dromon.Pool) -> None:
    for _ in range(2):
        error = raised(pool.submit(use_cffi).result)
        check_refusal(error)
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is not None
        assert error.__cause__.__traceback__.tb_frame.f_code.co_name == "use_cffi"


@needs_isolation
def test_so_it_is_for_a_function_that_cannot_be_loaded(pool: dromon.Pool) -> None:
    import _cffi_backend

    check_refusal(raised(pool.submit(_cffi_backend.callback).result))
    check_refusal(raised(pool.submit(lambda: _cffi_backend.callback).result))


@needs_isolation
def test_so_it_is_for_an_argument_that_cannot_be_loaded(pool: dromon.Pool) -> None:
    import _cffi_backend

    check_refusal(raised(pool.submit(id, _cffi_backend.callback).result))


@needs_isolation
async def test_so_it_is_in_a_map() -> None:
    async with dromon.open_pool(1, isolation="interpreter") as pool:
        with pytest.raises(BaseExceptionGroup) as info:
            await pool.map(use_cffi, range(1))
        (error,) = info.value.exceptions
        check_refusal(error)
        assert error.__notes__ == ["raised for item 0 of the map"]
        async with pool.open_map(use_cffi, range(1), return_outcomes=True) as outcomes:
            async for outcome in outcomes:
                check_refusal(outcome.error)  # type: ignore[union-attr]


@needs_isolation
def test_so_it_is_in_an_executor() -> None:
    with dromon.Executor(1, isolation="interpreter") as executor:
        check_refusal(raised(executor.submit(use_cffi).result))
        check_refusal(raised(lambda: list(executor.map(use_cffi, range(4), chunksize=2))))


@needs_isolation
def test_so_it_is_in_an_initializer() -> None:
    check_refusal(
        raised(lambda: dromon.Pool(1, isolation="interpreter", initializer=use_cffi).close())
    )


@needs_isolation
def test_other_errors_stay_what_they_are(pool: dromon.Pool) -> None:
    def wrap() -> None:
        try:
            use_cffi()
        except ImportError as error:
            raise LookupError("no backend") from error

    def miss() -> None:
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401

    assert type(raised(pool.submit(wrap).result)) is LookupError
    assert type(raised(pool.submit(miss).result)) is ModuleNotFoundError


@needs_isolation
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="_ctypes loads there")
def test_modules_of_the_standard_library_refuse_too(pool: dromon.Pool) -> None:
    def use_ctypes() -> None:
        import ctypes  # noqa: F401

    error: Any = raised(pool.submit(use_ctypes).result)
    assert (type(error), error.module) == (dromon.IsolationError, "_ctypes")


@needs_isolation
def test_numpy_refuses_by_name_and_no_other_call_minds_that_it_is_there() -> None:
    pytest.importorskip("numpy")
    check_child(
        """
        import dromon, numpy
        with dromon.Pool(1, isolation="interpreter") as pool:
            print(pool.submit(len, "four").result())
            for _ in range(2):
                print(pool.submit(len, numpy.arange(3)).exception().module)
        """,
        "4\nnumpy._core._multiarray_umath\nnumpy._core._multiarray_umath",
    )


@needs_isolation
def test_arguments_that_c_parsed_first_in_a_worker_are_no_trouble_at_the_end() -> None:
    check_child(
        """
        import dromon
        def use_keywords():
            import hashlib, io, pickle
            hashlib.md5(b"", usedforsecurity=False)
            pickle.Unpickler(io.BytesIO(), encoding="ascii")
        with dromon.Pool(2, isolation="interpreter") as pool:
            pool.submit(use_keywords).result()
            pool.submit(use_keywords).result()
        """
    )


def test_an_isolation_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(dromon.IsolationError("refused", "a.b")))
    assert type(error) is dromon.IsolationError
    assert (error.args, error.module) == (("refused",), "a.b")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has such interpreters")
def test_before_python_3_12_a_pool_says_what_to_use() -> None:
    with pytest.raises(dromon.IsolationError, match=r"need Python 3\.12 or later") as info:
        dromon.Pool(1, isolation="interpreter")
    assert info.value.module is None
