"""What green threads wait for, in workers with an interpreter of their own."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import green_sync_works as works
import pytest

if TYPE_CHECKING:
    import dromon

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share one GIL"
)


async def test_an_event_wakes_all_who_wait(isolated_worker: dromon.Pool) -> None:
    assert await isolated_worker.run_sync(works.wait_for_an_event) == 5


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore"])
async def test_one_holds_it_at_a_time(isolated_worker: dromon.Pool, kind: str) -> None:
    order = await isolated_worker.run_sync(works.take_turns_with, kind)
    assert order[::2] == order[1::2]
    assert sorted(order[::2]) == list(range(5))


async def test_a_future_gives_what_was_set(isolated_worker: dromon.Pool) -> None:
    assert await isolated_worker.run_sync(works.get_what_another_sets) == "value"


@pytest.mark.parametrize("size", [0, 3, math.inf])
async def test_a_channel_hands_values_over(isolated_worker: dromon.Pool, size: float) -> None:
    received = await isolated_worker.run_sync(works.receive_what_another_sends, size)
    assert received == list(range(100))


async def test_who_gives_up_takes_nothing(isolated_worker: dromon.Pool) -> None:
    outcome = await isolated_worker.run_sync(works.give_up)
    assert outcome == ("Event.wait() timed out", True, 1)
