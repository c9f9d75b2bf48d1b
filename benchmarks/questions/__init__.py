"""The questions, in the order in which they are answered."""

from __future__ import annotations

from . import core, green, maps, payload
from .calls import CONCURRENT_CALLS, ONE_CALL
from .fork_join import FORK_JOIN
from .futures import FUTURES
from .lateness import LATENESS
from .scaling import SCALING
from .startup import MEMORY, STARTUP

QUESTIONS = {
    question.name: question
    for question in [
        ONE_CALL,
        CONCURRENT_CALLS,
        FUTURES,
        maps.EMPTY,
        maps.IN_C,
        maps.IN_PYTHON,
        SCALING,
        payload.COST,
        payload.VIEWS,
        LATENESS,
        STARTUP,
        MEMORY,
        FORK_JOIN,
        *green.ALL,
        *core.ALL,
    ]
}
