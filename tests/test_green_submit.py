"""Calls that wait for futures of their own pool, which parks them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dromon
from dromon import green


@pytest.fixture
def pool() -> Iterator[dromon.Pool]:
    with dromon.Pool(1) as pool:
        yield pool


def test_a_call_can_wait_for_another_one_of_its_own_pool_of_one_worker(pool: dromon.Pool) -> None:
    assert pool.submit(lambda: pool.submit(divmod, 17, 5).result()).result() == (3, 2)


def test_it_can_do_so_to_any_depth(pool: dromon.Pool) -> None:
    def count(depth: int) -> int:
        return 0 if depth == 0 else 1 + pool.submit(count, depth - 1).result()

    assert pool.submit(count, 200).result() == 200


def test_the_exception_of_another_call_can_be_waited_for(pool: dromon.Pool) -> None:
    error = pool.submit(lambda: pool.submit(int, "x").exception()).result()
    assert isinstance(error, ValueError)


def test_what_another_call_raises_is_raised_where_it_is_waited_for(pool: dromon.Pool) -> None:
    def call() -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "x").result()

    pool.submit(call).result()


def test_a_wait_for_another_call_ends_with_its_time(pool: dromon.Pool) -> None:
    def call() -> None:
        event = green.Event()
        other = pool.submit(event.wait)
        with pytest.raises(TimeoutError):
            other.result(timeout=0.01)
        event.set()
        other.result(timeout=60)

    pool.submit(call).result()


def test_the_result_of_a_call_that_has_ended_is_there_at_once(pool: dromon.Pool) -> None:
    done = pool.submit(int, "42")
    assert done.result() == 42
    assert pool.submit(done.result, 0).result() == 42


def test_an_executor_can_be_waited_for_in_its_own_calls() -> None:
    with dromon.Executor(1) as executor:
        assert executor.submit(lambda: executor.submit(int, "42").result()).result() == 42
