"""What type checkers are to know of `dromon.testing`; see check_to_thread."""

from __future__ import annotations

from typing import assert_type

import dromon.testing


async def threads() -> None:
    assert_type(dromon.testing.active_thread_count(), int)
    await dromon.testing.wait_all_threads_completed()
    await dromon.testing.wait_all_threads_completed(1)  # type: ignore[call-arg]
