"""`dromon.from_thread`: from a worker back into trio."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, TypeVarTuple

import attrs
import trio
from outcome import Error, Outcome, Value, acapture, capture
from trio.lowlevel import (
    Task,
    TrioToken,
    cancel_shielded_checkpoint,
    current_task,
    disable_ki_protection,
    reschedule,
    spawn_system_task,
)

from . import _trio_threads
from ._bridge import (
    ABANDON,
    CANCELLED,
    ERROR,
    VALUE,
    Answer,
    Cancelled,
    current_call,
    root_call,
)
from ._callables import refuse_coroutine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from . import _bridge

RetT = TypeVar("RetT")
Ts = TypeVarTuple("Ts")


def run(
    afn: Callable[[*Ts], Awaitable[RetT]],
    *args: *Ts,
    trio_token: TrioToken | None = None,
) -> RetT:
    """Run ``await afn(*args)`` in trio, from a worker, and wait for it.

    Takes the place of `trio.from_thread.run`, with the same meaning. Within a call of
    `dromon.to_thread.run_sync` or `dromon.Pool.run_sync` the function runs in the very task that
    waits for that call: its cancel scopes apply, and its context is that of the worker. It runs in
    a system task if the call is one with ``abandon_on_cancel=True``, or if a ``trio_token`` is
    given, which works from any thread.

    Args:
      afn: An async function.
      *args: Its positional arguments.
      trio_token (trio.lowlevel.TrioToken | None): The trio run to call into, see
          `trio.lowlevel.current_trio_token`. By default that of the call.

    Returns:
      Whatever ``afn(*args)`` returns.

    Raises:
      trio.RunFinishedError: The trio run is over, or too near its end.
      trio.Cancelled: The task was cancelled meanwhile, and ``afn`` let it pass.
      dromon.green.Cancelled: The green task was, or a green scope that it has open.
      RuntimeError: This is a thread of a trio run, which would wait for itself; or no call of a
          trio task, and no ``trio_token`` was given.
      TypeError: ``afn`` is not an async function.
      Exception: Whatever ``afn(*args)`` raises.

    A child of a call (`dromon.green`) has the function run in a system task, too. The worker has
    time for others meanwhile.

    **Cancellation**: the function is cancelled with the task that it runs in, and with the green
    task that waits for it. The waiting call is not interrupted (``interrupt_on_cancel``) until it
    has its answer.

    Example::

        def resize(path):  # on a worker
            image = render(path)
            dromon.from_thread.run(channel.send, image)
    """
    token = _token(trio_token)
    if token is None:
        return trio.from_thread.run(afn, *args, trio_token=trio_token)
    result: RetT = _ask(trio_token, token, AsyncMessage(afn, args))
    return result


def run_sync(
    fn: Callable[[*Ts], RetT],
    *args: *Ts,
    trio_token: TrioToken | None = None,
) -> RetT:
    """Run ``fn(*args)`` in the trio thread, from a worker, and wait for it.

    Takes the place of `trio.from_thread.run_sync`, with the same meaning. Where it runs, arguments
    and errors are as for `dromon.from_thread.run`.

    Returns:
      Whatever ``fn(*args)`` returns.

    Raises:
      trio.RunFinishedError: The trio run is over.
      RuntimeError: As for `dromon.from_thread.run`.
      TypeError: ``fn`` is an async function.
      Exception: Whatever ``fn(*args)`` raises.

    Example::

        dromon.from_thread.run_sync(event.set)
    """
    token = _token(trio_token)
    if token is None:
        return trio.from_thread.run_sync(fn, *args, trio_token=trio_token)
    result: RetT = _ask(trio_token, token, SyncMessage(fn, args))
    return result


def check_cancelled() -> None:
    """Raise `trio.Cancelled` if the task that waits for this call has been cancelled.

    Takes the place of `trio.from_thread.check_cancelled`. For long calls without
    ``abandon_on_cancel`` or ``interrupt_on_cancel`` to end early, at a place of their choice, and
    for abandoned ones to end at all.

    Raises:
      trio.Cancelled: The task was cancelled since the call began.
      RuntimeError: This thread does not run a call of a trio task.

    Example::

        def work(rows):
            for row in rows:
                dromon.from_thread.check_cancelled()
                crunch(row)
    """
    call = root_call()
    if call is None or call.port is None:
        trio.from_thread.check_cancelled()
    elif call.raise_cancel is not None:
        call.raise_cancel()


# ---- What a worker asks of a trio task -----------------------------------------------------------


@attrs.define(eq=False)
class AsyncMessage(Generic[RetT]):
    """An async function to run, and where its outcome goes."""

    afn: Callable[..., Awaitable[RetT]]
    args: tuple[object, ...]
    context: Context = attrs.field(factory=copy_context)
    answer: Any = attrs.field(factory=Answer)  # or an _Answer
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    begun: bool = False  # it was sent, and there will be an answer

    async def run_for(self, call: _bridge.Call) -> None:
        """Run it in the task that waits for the call, which protects itself."""
        task = current_task()
        own_context = task.context
        task.context = self.context
        await cancel_shielded_checkpoint()  # trio changes contexts between two steps of a task
        with self.scope:  # of which nothing comes out: it is captured
            outcome = await acapture(self._unprotected)
        task.context = own_context
        await cancel_shielded_checkpoint()
        if _is_cancellation(outcome) and not self.scope.cancel_called:
            call.tell_cancelled()
        self.answer.put(outcome)

    async def run_in_system_task(self) -> None:
        with self.scope:
            self.answer.put(await acapture(self._unprotected))

    def cancel(self) -> None:
        """Cancel it, and nothing else of the task that it runs in."""
        self.scope.cancel()
        if not self.begun:  # and never will: it was not sent
            self.answer.put(Value(None))

    def start_system_task(self) -> None:
        self.begun = True
        try:
            spawn_system_task(self.run_in_system_task, name=self.afn, context=self.context)
        except RuntimeError:
            error = trio.RunFinishedError("the trio run is too near its end")
            self.answer.put(Error(error))

    @disable_ki_protection
    async def _unprotected(self) -> RetT:
        return await _coroutine_of(self.afn, self.args)


@attrs.define(eq=False)
class SyncMessage(Generic[RetT]):
    """A sync function to run, and where its outcome goes."""

    fn: Callable[..., RetT]
    args: tuple[object, ...]
    context: Context = attrs.field(factory=copy_context)
    answer: Any = attrs.field(factory=Answer)  # or an _Answer
    begun: bool = False  # it was sent, and there will be an answer

    def run_sync(self) -> None:
        """Run it in whatever task it is."""
        self.answer.put(capture(self._unprotected))

    def start_system_task(self) -> None:
        self.begun = True
        self.run_sync()

    def cancel(self) -> None:
        """It does not wait, so it has an answer, unless it was never sent."""
        if not self.begun:
            self.answer.put(Value(None))

    @disable_ki_protection
    def _unprotected(self) -> RetT:
        result = self.context.run(self.fn, *self.args)
        if inspect.iscoroutine(result):
            refuse_coroutine("fn", self.fn, result)
        return result


def _coroutine_of(
    afn: Callable[..., Awaitable[RetT]], args: tuple[object, ...]
) -> Coroutine[Any, Any, RetT]:
    if isinstance(afn, Coroutine):
        afn.close()
        raise TypeError(
            f"afn must be an async function, not a coroutine object: {afn!r}; give its arguments"
            " after it, in place of calling it"
        )
    coroutine = afn(*args)
    if not isinstance(coroutine, Coroutine):
        raise TypeError(f"afn must be an async function, but {afn!r} returned {coroutine!r}")
    return coroutine


MESSAGES: Final = frozenset(map(id, (AsyncMessage, SyncMessage, *_trio_threads.MESSAGES)))
"""The ids of the types of what may come to a task that waits for a call in place of its outcome."""


async def serve(call: _bridge.Call, message: Any) -> None:
    """Do what a call asks of the task that waits for it."""
    if call.on_abort == ABANDON:  # of an isolated worker; others do not get here
        message.start_system_task()
    elif isinstance(message, AsyncMessage):
        if _has_room(_ROOM):
            await message.run_for(call)
        else:
            message.answer.put(Error(RecursionError("calls back into trio are nested too deeply")))
    elif hasattr(message, "run"):  # trio's
        await message.run()
    else:
        message.run_sync()
    call.leave()


_ROOM: Final = 40
"""More frames than there are of ours, from one call back into trio to the next one inside."""


def _has_room(frames: int) -> bool:
    """Whether functions can be nested further. Else no frame of ours could see to its duties."""
    try:
        return frames == 0 or _has_room(frames - 1)
    except RecursionError:
        return False


def _token(trio_token: TrioToken | None) -> TrioToken | None:
    """The run to ask, for what runs on a worker; None: that is for trio to say."""
    call = root_call()
    if call is None or trio.lowlevel.in_trio_run():
        return None
    if trio_token is not None:
        return trio_token if isinstance(trio_token, TrioToken) else None
    return None if call.port is None else call.port.token


def _ask(trio_token: TrioToken | None, token: TrioToken, message: Any) -> Any:
    """Have a message served, and wait for the answer: the green thread parks meanwhile.

    By the task that waits for the call, if this is the call itself and that task does. What a child
    of the call asks is served by a system task, since its parent may ask, too.
    """
    if trio_token is not None:
        token.run_sync_soon(message.start_system_task)
        return message.answer.get(True).unwrap()  # no cancellation applies
    call = current_call()
    try:
        if call is not None and isinstance(call.waiter, Task) and call.visit():
            token.run_sync_soon(_deliver, call, message)
        else:
            token.run_sync_soon(message.start_system_task)
        outcome = message.answer.get(False)
    except Cancelled:
        with suppress(trio.RunFinishedError):  # then there is an answer
            token.run_sync_soon(message.cancel)
        outcome = message.answer.get(True)
        if isinstance(outcome, Error) and not _is_cancellation(outcome):
            outcome.unwrap()  # it has failed on its way out
        raise
    return outcome.unwrap()


def _is_cancellation(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome, Error) and isinstance(outcome.error, trio.Cancelled)


# ---- What a call in another interpreter asks -----------------------------------------------------


@attrs.frozen(eq=False)
class _Answer:
    """Where the outcome of a message of such a call goes."""

    call: _bridge.Call

    def put(self, outcome: Outcome[Any]) -> None:
        try:
            if not isinstance(outcome, Error):
                self.call.answer(VALUE, outcome.unwrap())
            elif isinstance(outcome.error, trio.Cancelled):
                self.call.answer(CANCELLED, None)
            else:
                self.call.answer(ERROR, outcome.error)
        except BaseException as error:  # it cannot travel
            self.call.answer(ERROR, error)


def question(
    call: _bridge.Call,
    asked: tuple[Callable[..., Any], tuple[object, ...]] | None,
    error: BaseException | None,
    is_async: bool,
) -> AsyncMessage[Any] | SyncMessage[Any]:
    """The message of a call that asks; an error if what it asks cannot be made here."""
    if asked is None:
        return SyncMessage(_raise, (error,), Context(), _Answer(call))
    kind = AsyncMessage if is_async else SyncMessage
    return kind(*asked, Context(), _Answer(call))


def _raise(error: BaseException) -> NoReturn:
    raise error


# ---- Calls of this interpreter -------------------------------------------------------------------


def _deliver(call: _bridge.Call, message: Any) -> None:
    message.begun = True
    task = call.waiter
    assert isinstance(task, Task)  # it is not abandoned while the call visits
    reschedule(task, Value(message))
