"""`dromon.from_thread` in a worker with an interpreter of its own, where trio is not at hand."""

from __future__ import annotations

from . import _bridge
from ._errors import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar, TypeVarTuple

    from trio.lowlevel import TrioToken

    RetT = TypeVar("RetT")
    Ts = TypeVarTuple("Ts")


def run(
    afn: Callable[[*Ts], Awaitable[RetT]],
    *args: *Ts,
    trio_token: TrioToken | None = None,
) -> RetT:
    """Run ``await afn(*args)`` in trio, from an isolated worker, and wait for it.

    The function runs in the main interpreter: what its module is there is not what it is here.
    ``afn`` is looked up there by its module and name, or travels by value if it cannot be; its
    arguments and its result travel. It runs in the very task that waits for the call, whose cancel
    scopes apply, or in a system task if the call is one with ``abandon_on_cancel=True``.

    Args:
      afn: An async function.
      *args: Its positional arguments.
      trio_token: None. A token does not travel to another interpreter.

    Returns:
      Whatever ``afn(*args)`` returns.

    Raises:
      trio.RunFinishedError: The trio run is over, or too near its end.
      trio.Cancelled: The task was cancelled meanwhile, and ``afn`` let it pass.
      RuntimeError: This thread runs no call of a trio task.
      TypeError: ``afn`` is not an async function, or a ``trio_token`` was given.
      Exception: Whatever ``afn(*args)`` raises.

    **Cancellation**: the function is cancelled with the task that it runs in. The waiting call is
    not interrupted (``interrupt_on_cancel``) until it has its answer.
    """
    _refuse_token(trio_token)
    result: RetT = _bridge.ask(afn, args, True)
    return result


def run_sync(
    fn: Callable[[*Ts], RetT],
    *args: *Ts,
    trio_token: TrioToken | None = None,
) -> RetT:
    """Run ``fn(*args)`` in the trio thread, from an isolated worker, and wait for it.

    Where it runs, what travels, arguments and errors are as for `run`.

    Returns:
      Whatever ``fn(*args)`` returns.

    Raises:
      trio.RunFinishedError: The trio run is over.
      RuntimeError: This thread runs no call of a trio task.
      TypeError: ``fn`` is an async function, or a ``trio_token`` was given.
      Exception: Whatever ``fn(*args)`` raises.
    """
    _refuse_token(trio_token)
    result: RetT = _bridge.ask(fn, args, False)
    return result


def check_cancelled() -> None:
    """Raise `dromon.Interrupted` if the task that waits for this call has been cancelled.

    Not `trio.Cancelled`, which would take importing trio here. Let it pass: the task that waits
    gets its `trio.Cancelled` as usual.

    Raises:
      dromon.Interrupted: The task was cancelled since the call began.
      RuntimeError: This thread does not run a call of a trio task.
    """
    if _bridge.is_cancelled():
        raise Interrupted


def _refuse_token(trio_token: object) -> None:
    if trio_token is not None:
        raise TypeError(
            "trio_token must be None in an isolated worker: tokens cannot travel to another"
            " interpreter"
        )
