"""Instructions for each call, item and task, as many on a busy machine as on an idle one."""

from __future__ import annotations

from typing import Any

import instruction_counts
import pytest
from compiler import needs_compiler
from instruction_counts import Counts, count_instructions, find_build

ROOM = 0.1
ROOM_LEAST = 10  # instructions: where there are next to none, what is not of a task is in the way


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    build = find_build()
    if not build.is_optimized:
        pytest.skip("a build with debug information: what pip builds is recorded")
    records = instruction_counts.load_records()
    if build.own not in records:
        pytest.skip(f"no counts are recorded for {build.own}")
    return dict(records[build.own])


@pytest.fixture(scope="module")
def counts(record: dict[str, Any]) -> Counts:
    return count_instructions()


def deviations(counted: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """What is not as it was recorded, up or down."""
    return [
        f"{work}: {counted.get(work)} instructions, {recorded.get(work)} recorded"
        for work in sorted(counted.keys() | recorded.keys())
        if work not in counted
        or work not in recorded
        or abs(counted[work] - recorded[work]) > max(ROOM * recorded[work], ROOM_LEAST)
    ]


def check(counted: dict[str, int], recorded: dict[str, int]) -> None:
    found = deviations(counted, recorded)
    # Fewer are to be recorded, too: else they could come back unseen.
    hint = "if they are to be so: python tests/instruction_counts.py records them"
    assert not found, "\n".join([*found, hint])


@needs_compiler
@pytest.mark.skipif(
    not (instruction_counts.HEADERS / "valgrind" / "callgrind.h").exists(),
    reason="valgrind is not installed",
)
class TestCounts:
    def test_dromons_own_code_takes_as_many_instructions_as_recorded(
        self, record: dict[str, Any], counts: Counts
    ) -> None:
        check(counts.own, record["own"])

    def test_all_code_together_takes_as_many_instructions_as_recorded(
        self, record: dict[str, Any], counts: Counts
    ) -> None:
        if record["whole with"] != find_build().whole:
            pytest.skip(f"all code together was recorded with Python {record['whole with']}")
        check(counts.whole, record["whole"])


@pytest.mark.parametrize("count", [899, 1101, None])
def test_a_count_that_rose_fell_or_is_gone_is_told(count: int | None) -> None:
    counted = {"kept": 950} | ({} if count is None else {"changed": count})
    assert deviations(counted, {"kept": 1000, "changed": 1000}) == [
        f"changed: {count} instructions, 1000 recorded"
    ]
