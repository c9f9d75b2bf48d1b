"""`explain`: where a call can run, found out without running it."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from ._callables import check_sync
from ._errors import IsolationError
from ._functions import BY_REFERENCE, portable
from ._isolated import load_call
from ._isolation import choose_isolation
from ._pickling import WritableBuffer, dumps
from ._pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

# A function's kind and blob, and the pickled arguments with their buffers.
_Parts: TypeAlias = tuple[int, bytes, bytes, list[bytes | bytearray]]

# Why a call cannot be loaded, and the extension module that is to blame.
_Refusal: TypeAlias = tuple[str, str | None]

# For all imports that a call needs.
_SECONDS: Final = 30.0

_PROBE: Final = """\
import pickle, sys
sys.path[:], parts = pickle.load(sys.stdin.buffer)
from dromon._explain import probe
probe(parts)
"""


@attrs.frozen
class Explanation:
    """Where a call can run. As text it is a few lines for people.

    Attributes:
      function (str): The name of the function.
      thread (bool): Whether it can run on workers that are threads, as all sync callables can.
      interpreter (bool): Whether it can run on isolated workers, as far as can be told beforehand.
      reason (str | None): Why it cannot run on these, or not at all.
      module (str | None): The extension module that refuses interpreters of a worker's own, if that
        is the reason.
      travels (str | None): How the function gets to an isolated worker: ``"by reference"``, which
        means that its module is imported there, or ``"by value"``; None if it does not.
    """

    function: str
    thread: bool
    interpreter: bool
    reason: str | None = None
    module: str | None = None
    travels: Literal["by reference", "by value"] | None = None

    def __str__(self) -> str:
        lines = [
            self.function,
            f"  thread: {'yes' if self.thread else 'no'}",
            f"  interpreter: {'yes' if self.interpreter else 'no'}",
        ]
        if self.travels is not None:
            lines[-1] += f", the function travels {self.travels}"
        if self.reason is not None:
            lines.append(f"  reason: {self.reason}")
        return "\n".join(lines)


def explain(fn: Callable[..., object], /, *args: object) -> Explanation:
    """Tell where ``fn(*args)`` can run: on threads only, or on isolated workers, too.

    Nothing is called. In a process of its own the function and the arguments are loaded as an
    isolated worker loads them, with all imports that this takes. What the function imports in its
    body, or what a module imports later, is not seen: at run time that may still be refused, by an
    `IsolationError`. Nor is seen whether the result can travel.

    It blocks until that process has answered, for 30 seconds at most. In a trio task it belongs in
    a call of `dromon.to_thread.run_sync`.

    Example::

        explanation = dromon.explain(parse, source)
        if not explanation.interpreter:
            print(explanation.reason)
    """
    name = getattr(fn, "__qualname__", None) or repr(fn)
    try:
        check_sync("fn", fn)
    except TypeError as error:
        return Explanation(name, False, False, str(error))
    try:
        choose_isolation("interpreter")
    except IsolationError as error:
        return Explanation(name, True, False, str(error))
    try:
        kind, blob = portable(fn)
    except Exception as error:
        return Explanation(name, True, False, f"the function cannot travel: {_describe(error)}")
    travels: Final = "by reference" if kind == BY_REFERENCE else "by value"
    try:
        data, buffers = dumps(args)
        parts = kind, blob, data, list(map(_copy, buffers))
    except Exception as error:
        reason = f"the arguments cannot travel: {_describe(error)}"
        return Explanation(name, True, False, reason, None, travels)
    refusal = _probe_in_process(parts)
    if refusal is None:
        return Explanation(name, True, True, travels=travels)
    return Explanation(name, True, False, *refusal, travels)


def _copy(buffer: Any) -> bytes | bytearray:
    view = memoryview(buffer.buffer if isinstance(buffer, WritableBuffer) else buffer)
    return view.tobytes() if view.readonly else bytearray(view.tobytes())


def _describe(error: BaseException) -> str:
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}"


def _probe_in_process(parts: _Parts) -> _Refusal | None:
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        process = subprocess.run(
            [sys.executable, *flags, "-P", "-c", _PROBE],
            input=pickle.dumps((sys.path, parts)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"loading it has not ended in {_SECONDS:g} seconds", None
    except OSError as error:
        return f"cannot start a process to load it in: {error}", None
    if not process.stdout:
        return f"loading it ended the process {_how_it_ended(process.returncode)}", None
    refusal: _Refusal | None = pickle.loads(process.stdout)
    return refusal


def _how_it_ended(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


# ---- In that process -----------------------------------------------------------------------------


def probe(parts: _Parts) -> None:
    """Load a call in an isolated worker, write the refusal to stdout, and end the process."""
    # A module that crashes shall leave no core file, and what it prints is not the answer.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    refusal: _Refusal | None = None
    try:
        Pool(1, isolation="interpreter").submit(load_call, *parts).result()
    except IsolationError as error:
        refusal = str(error), error.module
    except BaseException as error:
        refusal = f"it cannot be loaded in another interpreter: {_describe(error)}", None
    with answer:
        pickle.dump(refusal, answer)
    os._exit(0)  # how modules take the end of an interpreter is another question
