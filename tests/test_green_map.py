"""`green.map`: each call of a function a green task."""

from __future__ import annotations

import green_task_works as works
from green_pools import in_both, run


@in_both
def test_map_returns_the_results_in_order(isolation: str) -> None:
    assert run(isolation, works.map_squares, 500) == [i * i for i in range(500)]


@in_both
def test_map_ends_with_its_shortest_iterable(isolation: str) -> None:
    assert run(isolation, works.map_pairs) == ([(3, 1), (2, 2)], [])


@in_both
def test_a_call_of_map_that_fails_cancels_the_others(isolation: str) -> None:
    assert run(isolation, works.map_fails) == ["ExceptionGroup", "ValueError: three"]


@in_both
def test_map_refuses_an_async_function(isolation: str) -> None:
    error = "TypeError: dromon expected a sync function, but 'asynchronous' appears to be"
    assert run(isolation, works.map_refuses_coroutines) == f"{error} asynchronous, given as fn"
