"""Scopes: no green task outlives the one that it lives in, and nothing that is raised gets lost."""

from __future__ import annotations

import green_task_works as works
from green_pools import in_both, run

LOG = ["begun", "cancelled"]
LOG_OF_CLEANUP = [*LOG, "cleaned up"]
WRONG_EXIT = "RuntimeError: a scope is left by the task that has opened it, the innermost first"


@in_both
def test_a_body_that_raises_cancels_its_children(isolation: str) -> None:
    outcome, log = run(isolation, works.body_raises)
    assert outcome == ["ExceptionGroup", "ValueError: body"]
    assert log == LOG_OF_CLEANUP


@in_both
def test_a_child_that_raises_cancels_its_siblings_and_the_body(isolation: str) -> None:
    outcome, log, body_log = run(isolation, works.child_raises)
    assert outcome == ["ExceptionGroup", "ValueError: child"]
    assert log == LOG_OF_CLEANUP
    assert body_log == ["body cancelled"]


@in_both
def test_a_child_that_raises_while_the_scope_is_left_cancels_its_siblings(isolation: str) -> None:
    outcome, log = run(isolation, works.child_raises_while_leaving)
    assert outcome == ["ExceptionGroup", "ValueError: child"]
    assert log == LOG


@in_both
def test_all_that_is_raised_comes_out(isolation: str) -> None:
    kind, *errors = run(isolation, works.many_raise)
    assert kind == "ExceptionGroup"
    assert sorted(errors) == ["KeyError: 'cleanup'", "KeyError: 'cleanup'", "ValueError: body"]


@in_both
def test_what_a_body_has_from_a_child_comes_out_once(isolation: str) -> None:
    outcome = run(isolation, works.body_raises_what_a_child_raised)
    assert outcome == ["ExceptionGroup", "ValueError: child"]


@in_both
def test_what_is_no_exception_comes_out_in_a_base_exception_group(isolation: str) -> None:
    assert run(isolation, works.exits_raised_in_children) == (
        ["BaseExceptionGroup", "KeyboardInterrupt: key"],
        ["BaseExceptionGroup", "SystemExit: 3"],
        ["BaseExceptionGroup", "GeneratorExit: "],
    )


@in_both
def test_the_context_of_the_group_is_that_of_the_bodys_exception(isolation: str) -> None:
    assert run(isolation, works.group_has_the_context_of_the_body) == ("KeyError: 'before'", None)


@in_both
def test_a_scope_that_is_cancelled_catches_its_own_cancellation(isolation: str) -> None:
    assert run(isolation, works.cancels_itself) == (["goes on", "after"], LOG, True)


@in_both
def test_of_a_cancellation_that_nothing_waited_for_nothing_is_left(isolation: str) -> None:
    assert run(isolation, works.cancels_itself_and_leaves)


@in_both
def test_what_a_cancelled_scope_raises_comes_out(isolation: str) -> None:
    outcome = run(isolation, works.cancels_itself_and_raises)
    assert outcome == ["ExceptionGroup", "ValueError: body"]


@in_both
def test_before_it_is_open_and_when_it_is_closed_a_cancellation_does_nothing(
    isolation: str,
) -> None:
    assert run(isolation, works.cancelled_before_and_after) == ((3, 1), False)


@in_both
def test_what_is_spawned_in_a_cancelled_scope_never_begins(isolation: str) -> None:
    assert run(isolation, works.spawn_in_a_cancelled_scope) == ([], True)


@in_both
def test_a_scope_that_is_not_open_takes_no_children(isolation: str) -> None:
    error = "RuntimeError: the scope is not open"
    assert run(isolation, works.spawn_when_closed) == (error, error)


@in_both
def test_a_scope_is_opened_once(isolation: str) -> None:
    error = "RuntimeError: the scope was opened before"
    assert run(isolation, works.enter_twice) == (error, error)


@in_both
def test_children_may_spawn_siblings(isolation: str) -> None:
    assert run(isolation, works.children_spawn_siblings) == 31


@in_both
def test_the_cancellation_of_a_scope_is_one_of_those_inside(isolation: str) -> None:
    assert run(isolation, works.outer_cancelled_with_inner_open) == ([], LOG, True, True)


@in_both
def test_a_failure_in_the_outer_scope_ends_the_leaving_of_the_inner_one(isolation: str) -> None:
    outcome, log, child_log = run(isolation, works.outer_fails_while_inner_is_left)
    assert outcome == ["ExceptionGroup", "ValueError: outer"]
    assert log == []
    assert child_log == LOG


@in_both
def test_a_scope_that_a_cancelled_task_opens_does_not_wait(isolation: str) -> None:
    assert run(isolation, works.scope_opened_by_a_cancelled_task) == ([], [])


@in_both
def test_of_two_requests_while_a_scope_is_left_none_is_lost(isolation: str) -> None:
    log = run(isolation, works.two_requests_while_leaving)
    assert log == ["outer goes on to its next wait"]


@in_both
def test_another_task_cannot_leave_a_scope_but_ends_its_children(isolation: str) -> None:
    assert run(isolation, works.scope_left_by_another_task) == (WRONG_EXIT, LOG)


@in_both
def test_the_innermost_scope_is_left_first(isolation: str) -> None:
    assert run(isolation, works.scope_left_out_of_order) == WRONG_EXIT


@in_both
def test_a_scope_that_is_let_go_of_leaves_the_others_alone(isolation: str) -> None:
    assert run(isolation, works.scope_forgotten) == (3, 1)


@in_both
def test_a_task_that_ends_with_an_open_scope_closes_it_and_cancels_its_children(
    isolation: str,
) -> None:
    log, spawn = run(isolation, works.task_ends_with_an_open_scope)
    assert log == LOG_OF_CLEANUP
    assert spawn == "RuntimeError: the scope is not open"
