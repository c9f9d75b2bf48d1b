"""What test_green_review runs in workers with an interpreter of their own."""

from __future__ import annotations

from dromon import green


class WaitsAtItsEnd:
    def __del__(self) -> None:
        green.sleep(0.01)


def leave_an_error_that_waits_at_its_end() -> None:
    waits = WaitsAtItsEnd()
    raise ValueError(type(waits).__name__)


def leave_a_scope_open() -> int:
    scope = green.open_scope()
    scope.__enter__()
    scope.spawn(return_one)
    return 1


def return_one() -> int:
    return 1


def initialize_with_a_wait() -> None:
    green.sleep(0.01)
