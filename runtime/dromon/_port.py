"""How a trio run gets its finished calls: a completion port, and a system task that waits on it.

A port per run, made at the run's first call. The system task sleeps until the port's eventfd is
readable and then wakes the tasks of a whole batch of calls at once; that, and not the hop between
threads, is where `trio.lowlevel.TrioToken.run_sync_soon` spends its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from outcome import Outcome, acapture, capture
from trio import CancelScope, Event, open_nursery
from trio.abc import Instrument
from trio.lowlevel import (
    Abort,
    Task,
    add_instrument,
    checkpoint,
    current_trio_token,
    enable_ki_protection,
    remove_instrument,
    reschedule,
    spawn_system_task,
    wait_readable,
)

from . import _bridge
from ._errors import SpawnError
from ._trio_run import current_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RetT = TypeVar("RetT")

_CANNOT_LISTEN = "cannot open the eventfd that tells a trio run of finished calls"

# Most calls that are delivered before other tasks of the loop get their turn.
DELIVER_AT_MOST = 256

# The ports, of all runs, that only wait for their last calls.
_ending: set[_bridge.Port] = set()


def new_port() -> _bridge.Port:
    """A port whose calls trio can abort."""
    try:
        return _bridge.Port(Abort.SUCCEEDED, Abort.FAILED, current_trio_token())
    except OSError as error:
        raise SpawnError.from_errno(cast("int", error.errno), _CANNOT_LISTEN) from None


def current_port() -> _bridge.Port | None:
    """The port of the current trio run; None if the run is too near its end to serve one."""
    run = current_run()
    if run.port is not None or run.is_over:
        return run.port
    port = new_port()
    try:
        spawn_system_task(_deliver_calls, port)
    except RuntimeError:  # trio finalises async generators, and system tasks are over
        port.close()
        run.is_over = True
        return None
    run.port = port
    return port


async def on_own_port(function: Callable[[_bridge.Port], Awaitable[RetT]]) -> RetT:
    """Run a function with a port of its own: at the end of a run, where `current_port` is None.

    Cancellation, a timeout say, reaches the function, and not what delivers its calls until it has
    ended.
    """
    port = new_port()
    delivery = CancelScope(shield=True)

    async def deliver() -> None:
        with delivery:
            await _deliver_calls(port)

    async with open_nursery() as nursery:
        nursery.start_soon(deliver)
        result = await acapture(function, port)  # or the nursery would make a group of its error
        nursery.cancel_scope.shield = True  # now that there is a result it is kept
        delivery.cancel()
    return result.unwrap()


class _Look(Instrument):
    """Lets a loop that has nothing else to do look for calls that end soon, before it sleeps."""

    def __init__(self, port: _bridge.Port) -> None:
        self._port = port

    def before_io_wait(self, timeout: float) -> None:
        self._port.look(timeout)


@enable_ki_protection
async def _deliver_calls(port: _bridge.Port) -> None:
    """Wake whoever waits for the calls that come out of the port, until the run ends."""
    look = _Look(port)
    add_instrument(look)
    try:
        while True:
            await wait_readable(port.fileno())
            await _deliver_ready(port)
    finally:
        # System tasks are cancelled as soon as the main task has ended. Others of them may still
        # wait for calls that cannot be cancelled.
        await _deliver_rest(port)
        remove_instrument(look)
        run = current_run()
        run.port = None
        run.is_over = True
        port.close()


async def _deliver_rest(port: _bridge.Port) -> None:
    """Deliver, cancelled or not, until nobody waits for a call of this port any longer."""
    _ending.add(port)
    with CancelScope(shield=True):
        await _deliver_ready(port)
        while port.waiting > 0:
            await wait_readable(port.fileno())
            await _deliver_ready(port)
    _ending.discard(port)


async def _deliver_ready(port: _bridge.Port) -> None:
    while len(calls := port.take(DELIVER_AT_MOST)) == DELIVER_AT_MOST:
        _wake_waiters(calls)
        await checkpoint()
    _wake_waiters(calls)
    _note_if_idle(port)


def _wake_waiters(calls: list[_bridge.Call]) -> None:
    for call in calls:
        waiter = call.waiter
        if type(waiter) is Task:
            reschedule(waiter, call)  # type: ignore[arg-type]  # an Outcome, see below
        elif call.asks:  # nobody waits for it who could serve
            call.unwrap().start_system_task()
            call.leave()
        elif waiter is not None:
            waiter()
        elif call.limiter is not None:
            # Of an abandoned call: its task has gone on. As in trio, an error has nowhere to go.
            capture(call.limiter.release_on_behalf_of, call)


# ---- Whether calls are waited for ----------------------------------------------------------------


def waiting_calls() -> int:
    """How many calls of the current trio run somebody waits for."""
    port = current_run().port
    return 0 if port is None else port.waiting


async def wait_idle() -> None:
    """Wait until nobody waits for a call any longer, and those who did have gone on."""
    run = current_run()
    while waiting_calls() > 0:
        if run.idle is None:
            run.idle = Event()
        await run.idle.wait()
        await checkpoint()  # who waited for the last call was woken in the same step of the loop


def note_withdrawn(port: _bridge.Port) -> None:
    """Tell `wait_idle`, and the end of the run, if nobody waits any longer.

    After a call was withdrawn or abandoned, which does not show on its port.
    """
    _note_if_idle(port)
    if port.waiting == 0 and port in _ending:
        port.post(_nothing)


def _nothing() -> None:
    """What `_wake_waiters` calls for a port that only has to be looked at."""


def _note_if_idle(port: _bridge.Port) -> None:
    if port.waiting > 0:
        return
    run = current_run()
    if run.idle is not None:
        run.idle.set()
        run.idle = None


# A call is the outcome that its waiter gets: trio unwraps it right into the waiting task.
Outcome.register(_bridge.Call)
