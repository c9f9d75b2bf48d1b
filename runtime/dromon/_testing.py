"""`dromon.testing`: how many calls are under way, for tests of code that makes them."""

from __future__ import annotations

from trio.lowlevel import checkpoint

from ._port import wait_idle, waiting_calls


def active_thread_count() -> int:
    """Return how many calls of this trio run have been given to workers and are waited for.

    Takes the place of `trio.testing.active_thread_count`. A call counts from the moment that its
    limiter has let it pass until its task gets the outcome, whichever pool runs it. An abandoned
    one does not.

    Raises:
      RuntimeError: Outside of trio.

    Example::

        assert dromon.testing.active_thread_count() == 0
    """
    return waiting_calls()


async def wait_all_threads_completed() -> None:
    """Wait until `active_thread_count` is 0.

    Takes the place of `trio.testing.wait_all_threads_completed`. A task that has got its outcome
    may make another call at once, so a test that wants to see the end of it all waits for both::

        async def wait_all_settled():
            while True:
                await dromon.testing.wait_all_threads_completed()
                await trio.testing.wait_all_tasks_blocked()
                if dromon.testing.active_thread_count() == 0:
                    break

    Always a checkpoint. **Cancellation** ends the waiting at once.
    """
    await checkpoint()
    await wait_idle()
