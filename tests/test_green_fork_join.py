"""Fork-join: any number of tasks on any number of workers, and none waits for a worker."""

from __future__ import annotations

from typing import Any

import green_task_works as works
import pytest
from green_pools import in_both, run
from hypothesis import given, settings
from hypothesis import strategies as st

import dromon

TREES = st.recursive(
    st.integers(-100, 100) | st.sampled_from([1, 2, 3, None]),
    lambda parts: st.lists(parts, max_size=6),
    max_leaves=60,
)


def plain_sum(tree: Any) -> int:
    """What `works.sum_of_tree` does, without tasks."""
    if tree is None:
        raise ValueError("no number")
    return tree if isinstance(tree, int) else sum(map(plain_sum, tree))


def is_only_value_error(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_only_value_error, error.exceptions))
    return isinstance(error, ValueError)


@pytest.fixture(scope="module", params=[1, 2, 8])
def pool(request: pytest.FixtureRequest) -> Any:
    with dromon.Pool(request.param) as pool:
        yield pool


@settings(deadline=None, max_examples=60)
@given(tree=TREES, join=st.booleans())
def test_a_tree_of_tasks_gives_what_plain_recursion_gives(
    pool: dromon.Pool, tree: Any, join: bool
) -> None:
    try:
        expected = plain_sum(tree)
    except ValueError:
        error = pool.submit(works.sum_of_tree, tree, join).exception(60)
        assert error is not None
        assert is_only_value_error(error)
    else:
        assert pool.submit(works.sum_of_tree, tree, join).result(60) == expected


def test_trees_share_the_workers(pool: dromon.Pool) -> None:
    futures = [pool.submit(works.fibonacci, 10) for _ in range(50)]
    assert [future.result(60) for future in futures] == [55] * 50


@in_both
def test_recursion_with_tasks_gives_what_it_gives_without(isolation: str) -> None:
    assert run(isolation, works.fibonacci, 15) == 610


@in_both
def test_a_tree_of_tasks_is_summed(isolation: str) -> None:
    tree = [[1, [2, 3], []], [[[4]]], 5] * 20
    assert run(isolation, works.sum_of_tree, tree, True) == 300
    assert run(isolation, works.sum_of_tree, tree, False) == 300


@in_both
@pytest.mark.parametrize("work", [works.chain, works.chain_of_scopes])
def test_a_chain_of_tasks_may_be_deeper_than_a_stack(isolation: str, work: Any) -> None:
    assert run(isolation, work, 3000) == 3000


@in_both
def test_a_deep_chain_is_cancelled(isolation: str) -> None:
    assert run(isolation, works.cancel_a_chain, 3000) == 3000
