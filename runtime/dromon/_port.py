"""How a trio run gets its finished calls: a completion port, and a system task that waits on it.

A port per run, made at the run's first call. The system task sleeps until the port's eventfd is
readable and then wakes the tasks of a whole batch of calls at once; that, and not the hop between
threads, is where `trio.lowlevel.TrioToken.run_sync_soon` spends its time.
"""

from __future__ import annotations

from typing import cast

from outcome import Outcome
from trio.lowlevel import (
    Abort,
    RunVar,
    Task,
    checkpoint,
    reschedule,
    spawn_system_task,
    wait_readable,
)

from . import _bridge

# Most calls that are delivered before other tasks of the loop get their turn.
DELIVER_AT_MOST = 256

_port_of_run: RunVar[_bridge.Port] = RunVar("dromon port")


def current_port() -> _bridge.Port:
    """The port of the current trio run."""
    try:
        return _port_of_run.get()
    except LookupError:
        port = _bridge.Port(Abort.SUCCEEDED, Abort.FAILED)
        _port_of_run.set(port)
        spawn_system_task(_deliver_calls, port)
        return port


async def _deliver_calls(port: _bridge.Port) -> None:
    """Wake whoever waits for the calls that come out of the port, until the run ends."""
    try:
        while True:
            await wait_readable(port.fileno())
            while len(calls := port.take(DELIVER_AT_MOST)) == DELIVER_AT_MOST:
                _wake_waiters(calls)
                await checkpoint()
            _wake_waiters(calls)
            del calls  # an idle loop holds on to nothing
    finally:
        port.close()


def _wake_waiters(calls: list[_bridge.Call]) -> None:
    for call in calls:
        waiter = call.waiter
        if isinstance(waiter, Task):
            reschedule(waiter, cast("Outcome[object]", call))
        elif waiter is not None:
            # Of an abandoned call: its task has gone on, and this is what remains to be done.
            waiter()


# A call is the outcome that its waiter gets: trio unwraps it right into the waiting task.
Outcome.register(_bridge.Call)
