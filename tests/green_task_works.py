"""Green tasks and scopes at work, for tests: light to import, since isolated workers do, too.

Each function is called on a worker, and returns what came of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import dromon
from dromon import green

FOREVER = 3600

colour: ContextVar[str] = ContextVar("colour", default="none")


def errors_of(error: BaseException) -> Any:
    """The types and texts of an exception, as plain data; of a group: of all that is in it."""
    if isinstance(error, BaseExceptionGroup):
        return [type(error).__name__, *map(errors_of, error.exceptions)]
    return f"{type(error).__name__}: {error}"


def outcome_of(fn: Callable[..., Any], *args: Any) -> Any:
    try:
        return fn(*args)
    except BaseException as error:
        return errors_of(error)


def fail(text: str) -> None:
    raise ValueError(text)


def fail_after_park(text: str) -> None:
    green.checkpoint()
    raise ValueError(text)


def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    while not condition():
        green.checkpoint()


def is_parked(task: green.Task[Any]) -> bool:
    return task.state == "waiting"


class Sleeper:
    """A child that waits until it is cancelled, and what has come to it."""

    def __init__(self, *, cleanup: bool = False) -> None:
        self.begun = green.Event()
        self.log: list[str] = []
        self._cleanup = cleanup

    def __call__(self) -> None:
        self.log.append("begun")
        self.begun.set()
        try:
            green.sleep(FOREVER)
        except green.Cancelled:
            self.log.append("cancelled")
            raise
        finally:
            if self._cleanup:
                green.sleep(0.001)
                self.log.append("cleaned up")


# ---- Tasks ---------------------------------------------------------------------------------------


def results() -> Any:
    with green.open_scope() as scope:
        tasks = [scope.spawn(divmod, i, 3) for i in range(5)]
    return [task.result() for task in tasks], [task.done() for task in tasks]


def result_of_failed() -> Any:
    task: Any = None

    def spawn() -> None:
        nonlocal task
        with green.open_scope() as scope:
            task = scope.spawn(fail, "wrong")

    return (
        outcome_of(spawn),
        outcome_of(task.result),
        errors_of(task.exception()),
        task.cancelled(),
    )


def result_of_cancelled() -> Any:
    with green.open_scope() as scope:
        sleeper = Sleeper()
        parked = scope.spawn(sleeper)
        sleeper.begun.wait()
        parked.cancel()
        queued = scope.spawn(fail, "never begins")
        queued.cancel()

    def is_cancelled(task: green.Task[Any]) -> list[bool]:
        found = [task.done(), task.cancelled()]
        for ask in (task.result, task.exception):
            try:
                ask()
            except CancelledError:
                found.append(True)
        return found

    return is_cancelled(parked), is_cancelled(queued), sleeper.log


def result_in_time() -> Any:
    sleeper = Sleeper()
    with green.open_scope() as scope:
        task = scope.spawn(sleeper)
        found = [
            outcome_of(task.result, 0),
            outcome_of(task.result, 0.001),
            outcome_of(lambda: task.result(timeout=0.001)),
            outcome_of(lambda: task.exception(timeout=0.001)),
        ]
        scope.cancel()
    return found


def states() -> Any:
    event = green.Event()
    with green.open_scope() as scope:
        task: green.Task[None] = scope.spawn(event.wait, name="the one")
        found = [(task.name, task.state, task.parent is green.current_task())]
        until(lambda: is_parked(task))
        found.append((task.name, task.state, task.waits_for is event))
        event.set()
    found.append((task.name, task.state, task.parent is None))
    return found, event.is_set()


def wait_for_oneself() -> Any:
    with green.open_scope() as scope:
        task: green.Task[Any] = scope.spawn(lambda: outcome_of(task.result))
    return task.result()


def chain(depth: int) -> int:
    """Each spawns the next one and waits for it."""
    if depth == 0:
        return 0
    with green.open_scope() as scope:
        task = scope.spawn(chain, depth - 1)
        return 1 + task.result()


def chain_of_scopes(depth: int) -> int:
    """The same, where each waits by leaving its scope."""
    if depth == 0:
        return 0
    with green.open_scope() as scope:
        task = scope.spawn(chain_of_scopes, depth - 1)
    return 1 + task.result()


def cancel_a_chain(depth: int) -> int:
    """Cancel a chain of tasks, each a child of the one before; tell how many have ended so."""
    ends = 0
    at_the_end = green.Event()

    def link(depth: int) -> None:
        nonlocal ends
        try:
            if depth == 1:
                at_the_end.set()
                green.sleep(FOREVER)
            with green.open_scope() as scope:
                scope.spawn(link, depth - 1)
        except green.Cancelled:
            ends += 1
            raise

    with green.open_scope() as scope:
        scope.spawn(link, depth)
        at_the_end.wait()
        scope.cancel()
    return ends


def contexts() -> Any:
    colour.set("of the parent")
    told = green.Event()

    def change() -> tuple[str, str]:
        before = colour.get()
        colour.set("of the child")
        told.wait()
        return before, colour.get()

    with green.open_scope() as scope:
        in_place = scope.spawn(change)
        parked = scope.spawn(change)
        until(lambda: is_parked(parked))
        told.set()
        colour.set("changed")
        in_place.result()
    return in_place.result(), parked.result(), colour.get()


# ---- Scopes --------------------------------------------------------------------------------------


def body_raises() -> Any:
    sleeper = Sleeper(cleanup=True)

    def run() -> None:
        with green.open_scope() as scope:
            scope.spawn(sleeper)
            sleeper.begun.wait()
            raise ValueError("body")

    return outcome_of(run), sleeper.log


def child_raises() -> Any:
    sleeper = Sleeper(cleanup=True)
    log: list[str] = []

    def run() -> None:
        with green.open_scope() as scope:
            scope.spawn(sleeper)
            sleeper.begun.wait()
            scope.spawn(fail_after_park, "child")
            try:
                green.sleep(FOREVER)
            except green.Cancelled:
                log.append("body cancelled")
                raise

    return outcome_of(run), sleeper.log, log


def child_raises_while_leaving() -> Any:
    sleeper = Sleeper()

    def run() -> None:
        with green.open_scope() as scope:
            scope.spawn(sleeper)
            sleeper.begun.wait()
            scope.spawn(fail_after_park, "child")

    return outcome_of(run), sleeper.log


def many_raise() -> Any:
    def fail_cleanup() -> None:
        try:
            green.sleep(FOREVER)
        finally:
            raise KeyError("cleanup")

    def run() -> None:
        with green.open_scope() as scope:
            tasks = [scope.spawn(fail_cleanup) for _ in range(2)]
            until(lambda: all(map(is_parked, tasks)))
            raise ValueError("body")

    return outcome_of(run)


def body_raises_what_a_child_raised() -> Any:
    def run() -> None:
        with green.open_scope() as scope:
            scope.spawn(fail, "child").result()

    return outcome_of(run)


def exits_raised_in_children() -> Any:
    def run(error: BaseException) -> Any:
        def raise_it() -> None:
            raise error

        def spawn() -> None:
            with green.open_scope() as scope:
                scope.spawn(raise_it)

        return outcome_of(spawn)

    return run(KeyboardInterrupt("key")), run(SystemExit(3)), run(GeneratorExit())


def group_has_the_context_of_the_body() -> Any:
    try:
        try:
            raise KeyError("before")
        except KeyError:
            with green.open_scope() as scope:
                scope.spawn(fail, "child")
                raise LookupError("body")  # noqa: B904
    except ExceptionGroup as group:
        return errors_of(group.__context__ or ValueError("none")), group.__cause__
    return None


def cancels_itself() -> Any:
    sleeper = Sleeper()
    log: list[str] = []
    with green.open_scope() as scope:
        scope.spawn(sleeper)
        sleeper.begun.wait()
        scope.cancel()
        scope.cancel()
        log.append("goes on")
        green.sleep(FOREVER)
        log.append("not reached")
    log.append("after")
    green.checkpoint()  # of which nothing is left
    return log, sleeper.log, scope.cancel_called


def cancels_itself_and_leaves() -> Any:
    with green.open_scope() as scope:
        scope.cancel()
    green.checkpoint()
    return scope.cancel_called


def cancels_itself_and_raises() -> Any:
    def run() -> None:
        with green.open_scope() as scope:
            scope.cancel()
            raise ValueError("body")

    return outcome_of(run)


def cancelled_before_and_after() -> Any:
    before = green.open_scope()
    before.cancel()
    with before as scope:
        task = scope.spawn(divmod, 7, 2)
    after_called = before.cancel_called
    before.cancel()
    return task.result(), after_called


def spawn_in_a_cancelled_scope() -> Any:
    begun: list[int] = []
    with green.open_scope() as scope:
        scope.cancel()
        task = scope.spawn(begun.append, 1)
    return begun, task.cancelled()


def spawn_when_closed() -> Any:
    with green.open_scope() as scope:
        pass
    return outcome_of(scope.spawn, print), outcome_of(green.open_scope().spawn, print)


def enter_twice() -> Any:
    with green.open_scope() as scope:
        again = outcome_of(scope.__enter__)
    return again, outcome_of(scope.__enter__)


def children_spawn_siblings() -> Any:
    found = []

    def multiply(depth: int) -> None:
        found.append(depth)
        green.checkpoint()
        if depth:
            scope.spawn(multiply, depth - 1)
            scope.spawn(multiply, depth - 1)

    with green.open_scope() as scope:
        scope.spawn(multiply, 4)
    return len(found)


def outer_cancelled_with_inner_open() -> Any:
    """The inner scope waits for a child that only the cancellation of the outer one ends."""
    sleeper = Sleeper()
    log: list[str] = []
    with green.open_scope() as outer:
        with green.open_scope() as inner:
            inner.spawn(sleeper)
            sleeper.begun.wait()
            outer.cancel()
            late = inner.spawn(log.append, "began in a cancelled scope")
        log.append("not reached")
    return log, sleeper.log, late.cancelled(), inner.cancel_called


def outer_fails_while_inner_is_left() -> Any:
    sleeper = Sleeper()
    log: list[str] = []

    def run() -> None:
        with green.open_scope() as outer:
            with green.open_scope() as inner:
                inner.spawn(sleeper)
                outer.spawn(fail_after_park, "outer")
            log.append("not reached")

    return outcome_of(run), log, sleeper.log


def scope_opened_by_a_cancelled_task() -> Any:
    """It has not waited since, so it has not heard of it when it waits for its own children."""
    child_log: list[str] = []
    log: list[str] = []

    def child() -> None:
        sleeper = Sleeper()
        child_log.extend(["child"])
        sleeper()

    with green.open_scope() as outer:
        outer.cancel()
        with green.open_scope() as inner:
            inner.spawn(child)
        log.append("not reached")
    return log, child_log


def two_requests_while_leaving() -> Any:
    """The inner request comes first; the outer one must not be lost."""
    log: list[str] = []
    begun = green.Event()

    def slow_to_end() -> None:
        try:
            begun.set()
            green.sleep(FOREVER)
        finally:
            green.sleep(0.001)
            outer.cancel()

    def cancel_middle() -> None:
        green.checkpoint()
        middle.cancel()

    with green.open_scope() as outer:
        with green.open_scope() as middle:
            with green.open_scope() as inner:
                inner.spawn(slow_to_end)
                begun.wait()
                middle.spawn(cancel_middle)
            log.append("not in the middle")
        log.append("outer goes on to its next wait")
        green.sleep(FOREVER)
        log.append("not reached")
    return log


def scope_left_by_another_task() -> Any:
    sleeper = Sleeper()

    def opener() -> Any:
        with green.open_scope() as scope:
            scope.spawn(sleeper)
            yield

    generator = opener()
    next(generator)
    sleeper.begun.wait()
    with green.open_scope() as scope:
        task = scope.spawn(lambda: outcome_of(next, generator))
    until(lambda: len(sleeper.log) == 2)
    return task.result(), sleeper.log


def scope_left_out_of_order() -> Any:
    first, second = green.open_scope(), green.open_scope()
    first.__enter__()
    second.__enter__()
    found = outcome_of(first.__exit__, None, None, None)
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    return found


def scope_forgotten() -> Any:
    """One that is open and let go of leaves the others of the task as they are."""
    first, second = green.open_scope(), green.open_scope()
    first.__enter__()
    second.__enter__()
    del first
    task = second.spawn(divmod, 7, 2)
    second.__exit__(None, None, None)
    return task.result()


def task_ends_with_an_open_scope() -> Any:
    sleeper = Sleeper(cleanup=True)
    kept: list[Any] = []

    def opener() -> None:
        scope = green.open_scope()
        scope.__enter__()
        scope.spawn(sleeper)
        sleeper.begun.wait()
        kept.append(scope)

    with green.open_scope() as scope:
        scope.spawn(opener)
    until(lambda: len(sleeper.log) == 3)
    return sleeper.log, outcome_of(kept[0].spawn, print)


# ---- Cancellation --------------------------------------------------------------------------------


def cancelled_once() -> Any:
    """One request reaches each task of the tree once: `finally` blocks park again."""
    sleepers = [Sleeper(cleanup=True) for _ in range(3)]
    log: list[str] = []

    def parent() -> None:
        with green.open_scope() as scope:
            for sleeper in sleepers:
                scope.spawn(sleeper)
            try:
                green.sleep(FOREVER)
            finally:
                green.sleep(0.001)
                log.append("parent cleaned up")

    with green.open_scope() as scope:
        task = scope.spawn(parent)
        for sleeper in sleepers:
            sleeper.begun.wait()
        task.cancel()
    return [sleeper.log for sleeper in sleepers], log, task.cancelled()


def cancelled_while_leaving_once() -> Any:
    """The same for a parent that waits for its children and nothing else."""
    sleepers = [Sleeper(cleanup=True) for _ in range(3)]

    def parent() -> None:
        with green.open_scope() as scope:
            for sleeper in sleepers:
                scope.spawn(sleeper)

    with green.open_scope() as scope:
        task = scope.spawn(parent)
        for sleeper in sleepers:
            sleeper.begun.wait()
        task.cancel()
    return [sleeper.log for sleeper in sleepers], task.cancelled()


def cancelled_twice() -> Any:
    """Each request is delivered."""
    log: list[str] = []
    begun = green.Event()

    def stubborn() -> None:
        for _ in range(2):
            try:
                begun.set()
                green.sleep(FOREVER)
            except green.Cancelled:
                log.append("cancelled")

    with green.open_scope() as scope:
        task = scope.spawn(stubborn)
        begun.wait()
        task.cancel()
        until(lambda: bool(log))
        task.cancel()
    return log, task.cancelled(), task.done()


def cancelled_while_it_runs() -> Any:
    """It hears of it at its next wait."""
    log: list[str] = []

    def run() -> None:
        green.current_task().cancel()
        log.append("goes on")
        try:
            green.checkpoint()
        except green.Cancelled:
            log.append("cancelled")
            green.checkpoint()
            raise

    with green.open_scope() as scope:
        task = scope.spawn(run)
    return log, task.cancelled()


def cancelled_queued() -> Any:
    begun: list[int] = []
    with green.open_scope() as scope:
        tasks = [scope.spawn(begun.append, i) for i in range(10)]
        for task in tasks:
            task.cancel()
    return begun, all(task.cancelled() for task in tasks)


def cancelled_and_ended_otherwise() -> Any:
    def ignore() -> str:
        with suppress(green.Cancelled):
            green.sleep(FOREVER)
        return "done all the same"

    def run() -> Any:
        with green.open_scope() as scope:
            task = scope.spawn(ignore)
            until(lambda: is_parked(task))
            task.cancel()
        return task.result(), task.cancelled()

    return run()


def wait_cancelled_not_the_awaited() -> Any:
    """A task that waits for another one is cancelled: the other one goes on."""
    event = green.Event()
    with green.open_scope() as scope:
        awaited = scope.spawn(event.wait)
        until(lambda: is_parked(awaited))
        waiting: green.Task[object] = scope.spawn(awaited.result)
        until(lambda: is_parked(waiting))
        waiting.cancel()
        until(waiting.done)
        found = waiting.cancelled(), awaited.done()
        event.set()
    return found, awaited.cancelled()


def host_cancelled_while_a_child_runs_in_its_place() -> Any:
    """The child is another scope's, so that it must not be hit."""
    log: list[str] = []

    def child() -> str:
        host.cancel()
        green.checkpoint()
        return "not cancelled"

    def wait(task: green.Task[str]) -> None:
        log.append(task.result())
        try:
            green.checkpoint()
        except green.Cancelled:
            log.append("cancelled")
            raise

    with green.open_scope() as other, green.open_scope() as scope:
        task = other.spawn(child)
        host = scope.spawn(wait, task)
        until(host.done)
    return log


def cancelled_in_any_wait() -> Any:
    """Each way to wait is ended by a cancellation."""
    found = {}
    _sender, receiver = green.open_channel(0)
    lock = green.Lock()
    pending: green.Task[object]
    with green.open_scope() as outer:
        pending = outer.spawn(green.sleep, FOREVER)
        waits: dict[str, Callable[[], object]] = {
            "sleep": lambda: green.sleep(FOREVER),
            "event": green.Event().wait,
            "future": green.Future[int]().result,
            "lock": lock.acquire,
            "semaphore": green.Semaphore(0).acquire,
            "receive": receiver.receive,
            "join": lambda: pending.result(FOREVER),
        }
        lock.acquire()
        for name, wait in waits.items():
            with green.open_scope() as scope:
                task = scope.spawn(wait)
                until(lambda task=task: is_parked(task))  # type: ignore[misc]
                task.cancel()
            found[name] = task.cancelled()
        lock.release()
        outer.cancel()
    return found


# ---- Arguments -----------------------------------------------------------------------------------


async def asynchronous() -> None:
    pass


class Asynchronous:
    """A callable that turns out to be asynchronous when it is called."""

    def __repr__(self) -> str:
        return "Asynchronous()"

    def __call__(self) -> Any:
        return asynchronous()


def bad_arguments() -> Any:
    def spawn(fn: Any) -> Any:
        with green.open_scope() as scope:
            return outcome_of(scope.spawn, fn)

    def spawn_and_fail(fn: Any) -> Any:
        def run() -> None:
            with green.open_scope() as scope:
                scope.spawn(fn)

        return outcome_of(run)

    with green.open_scope() as scope:
        spawn_without: Any = scope.spawn
        result: Any = scope.spawn(int).result
        return {
            "async": spawn(asynchronous).split(">")[-1],
            "async when called": spawn_and_fail(Asynchronous()),
            "no callable": spawn(3),
            "nothing": outcome_of(spawn_without),
            "keyword": outcome_of(lambda: spawn_without(print, end="")),
            "name": outcome_of(lambda: spawn_without(print, name=3)),
            "no iterable": outcome_of(lambda: green.map(print)),
            "timeout": outcome_of(lambda: scope.spawn(int).result(timeout=-1)),
            "timeout of a kind": outcome_of(lambda: result("1")),
            "argument": outcome_of(lambda: result(1, 2)),
        }


# ---- Map and fork-join ---------------------------------------------------------------------------


def map_squares(count: int) -> list[int]:
    return green.map(lambda number: number * number, range(count))


def map_pairs() -> Any:
    return green.map(divmod, [7, 8, 9], [2, 3]), green.map(int, [])


def map_fails() -> Any:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        green.checkpoint()
        if number == 3:
            fail("three")
        green.sleep(FOREVER)
        return number

    return outcome_of(green.map, work, range(5))


def map_refuses_coroutines() -> Any:
    return outcome_of(green.map, asynchronous, [1])


def sum_of_tree(tree: Any, join: bool) -> int:
    """The sum of a tree: an int, or a list of trees; None raises.

    `join`: with result(), else with map.
    """
    if tree is None:
        raise ValueError("no number")
    if isinstance(tree, int):
        return tree
    if not join:
        return sum(green.map(sum_of_tree, tree, [join] * len(tree)))
    with green.open_scope() as scope:
        tasks = [scope.spawn(sum_of_tree, part, join) for part in tree]
        if len(tasks) % 2:
            green.checkpoint()
        return sum(task.result() for task in tasks)


def fibonacci(number: int) -> int:
    if number < 2:
        return number
    with green.open_scope() as scope:
        task = scope.spawn(fibonacci, number - 2)
        return fibonacci(number - 1) + task.result()


def thread_local_of_tasks() -> Any:
    """What a parked task has in a thread-local is not what others have there."""
    local = threading.local()

    def work(number: int) -> bool:
        local.number = number
        green.sleep(0.001)
        return bool(local.number == number)

    with green.open_scope() as scope:
        tasks = [scope.spawn(work, i) for i in range(20)]
    return all(task.result() for task in tasks)


def is_subclass() -> bool:
    return issubclass(green.Cancelled, dromon.Interrupted)


# ---- Calls that a trio task waits for ------------------------------------------------------------


def give(descriptor: int) -> None:
    os.write(descriptor, b"!")


def park(begun: int, ended: int, wait: str) -> None:
    """Waits until it is cancelled, and once more in its clean-up."""
    waits: dict[str, Callable[[], object]] = {
        "sleep": lambda: green.sleep(FOREVER),
        "event": green.Event().wait,
        "scope": park_in_children,
        "child": park_in_a_child,
    }
    try:
        give(begun)
        waits[wait]()
    finally:
        green.sleep(0.001)
        green.checkpoint()
        give(ended)


def park_in_children() -> None:
    with green.open_scope() as scope:
        for _ in range(3):
            scope.spawn(green.sleep, FOREVER)


def park_in_a_child() -> None:
    with green.open_scope() as scope:
        scope.spawn(park_in_children).result(FOREVER)


def spin_and_park(begun: int, go_on: memoryview, ended: int) -> None:
    """It is cancelled while it runs, and hears of it at its first wait."""
    give(begun)
    while not go_on[0]:
        pass
    try:
        green.sleep(FOREVER)
    finally:
        green.sleep(0.001)
        give(ended)


def spin_in_children(begun: int, ended: int) -> None:
    """A child runs, another one waits, and one has not begun: its parent waits for all."""

    def spin() -> None:
        give(begun)
        while True:
            pass

    def wait() -> None:
        try:
            green.sleep(FOREVER)
        finally:
            green.sleep(0.001)
            give(ended)

    with green.open_scope() as scope:
        parked = scope.spawn(wait)
        until(lambda: is_parked(parked))
        scope.spawn(fail, "never begins")
        scope.spawn(spin)


def never_wait(begun: int, go_on: memoryview) -> str:
    give(begun)
    while not go_on[0]:
        pass
    return "has not heard of it"
