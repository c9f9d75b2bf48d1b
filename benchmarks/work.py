"""What the tasks of interpreters.py run: a module of its own, so that all workers can import it."""

from __future__ import annotations


def nothing() -> None:
    """A task that costs nothing."""


def nothing_with(_: object) -> None:
    """The same for an item of a map."""


def same(data: bytes) -> bytes:
    return data


def count(times: int) -> int:
    """Work in pure Python."""
    number = 0
    for i in range(times):
        number += i % 7
    return number
