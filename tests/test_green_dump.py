"""`dromon.green.dump`: what it says of green tasks, and of those that wait for each other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial

import pytest
import trio
from waiting import dump_in_there, dumped, let_wait, wait_inside

import dromon
from dromon import _bridge, green


def has_cycle(text: str) -> bool:
    return text.splitlines()[1].startswith("wait cycle")


def dump_when_stuck(*fns: Callable[[], object]) -> str:
    """The same, with what is dumped once there is a deadlock."""
    with green.open_scope() as scope:
        for fn in fns:
            scope.spawn(fn, name=fn.__name__)
        for _ in range(10_000):
            green.checkpoint()
            if has_cycle(text := dumped()):
                break
        scope.cancel()
    return text


def dump_beside(*fns: Callable[[], object]) -> str:
    """What is dumped while tasks wait that run these; they are cancelled afterwards."""
    with green.open_scope() as scope:
        for fn in fns:
            let_wait(scope.spawn(fn))
        text = dumped()
        scope.cancel()
    return text


# ---- What a dump says ----------------------------------------------------------------------------


def test_a_task_is_dumped_with_its_name_its_state_what_it_waits_for_and_its_stack(
    one_worker: dromon.Executor,
) -> None:
    event = green.Event()
    text = one_worker.submit(dump_beside, partial(wait_inside, event)).result()
    line = f"wait_inside: waiting in Event.wait for <Event at {id(event):#x}> "
    task, _, stack = text.partition(line)[2].partition("\n")
    assert task.startswith("(")
    assert [each.split()[-1] for each in stack.splitlines()[::2]] == ["wait_inside"]
    assert stack.splitlines()[1].strip() == "event.wait()"


def test_it_begins_with_how_many_tasks_there_are_and_in_which_states(
    one_worker: dromon.Executor,
) -> None:
    def root() -> str:
        with green.open_scope() as scope:
            waiting = [scope.spawn(green.Event().wait) for _ in range(2)]
            let_wait(*waiting)
            scope.spawn(int)  # and does not begin, as this one goes on
            text = dumped()
            scope.cancel()
        return text

    text = one_worker.submit(root).result()
    assert text.startswith("green tasks: 4 (1 queued, 1 running, 2 waiting)\n")


def test_children_are_below_their_parents(one_worker: dromon.Executor) -> None:
    event = green.Event()

    def middle() -> None:
        with green.open_scope() as scope:
            scope.spawn(event.wait, name="grandchild")

    def root() -> str:
        with green.open_scope() as scope:
            scope.spawn(middle, name="child")
            scope.spawn(event.wait, name="other child")
            while sum(task.state == "waiting" for task in _bridge.tasks()) < 3:
                green.checkpoint()
            text = dumped()
            event.set()
        return text

    lines = one_worker.submit(root).result().splitlines()
    names = [line.partition(":")[0] for line in lines if ": waiting" in line or ": running" in line]
    assert names == [f"{root.__qualname__}", "    child", "        grandchild", "    other child"]


async def test_a_root_has_the_name_of_what_its_user_has_it_call() -> None:
    def name_it(_: object = None) -> str:
        return green.current_task().name

    own = name_it.__qualname__
    async with dromon.open_pool(1) as pool:
        assert await pool.run_sync(name_it) == own
        assert await pool.run_sync(partial(name_it, None)) == own
        assert await trio.to_thread.run_sync(pool.submit(name_it).result) == own
        assert await pool.map(name_it, [1, 2], chunksize=2) == [own, own]


def test_a_task_that_has_ended_keeps_its_name(one_worker: dromon.Executor) -> None:
    def root() -> list[str]:
        with green.open_scope() as scope:
            tasks = [scope.spawn(wait_inside, event), scope.spawn(int, name="named")]
        return list(map(repr, tasks))

    event = green.Event()
    event.set()
    assert one_worker.submit(root).result() == [
        "<dromon.green.Task wait_inside, done>",
        "<dromon.green.Task named, done>",
    ]


def test_a_task_whose_wait_is_over_is_ready_until_it_has_its_turn(
    one_worker: dromon.Executor,
) -> None:
    def root() -> list[str]:
        event = green.Event()
        with green.open_scope() as scope:
            task = scope.spawn(event.wait)
            let_wait(task)
            states = [task.state]
            event.set()
            states.append(task.state)
        return [*states, task.state]

    assert one_worker.submit(root).result() == ["waiting", "ready", "done"]


def test_a_sleeping_task_whose_time_is_over_is_ready(one_worker: dromon.Executor) -> None:
    def root() -> str:
        with green.open_scope() as scope:
            task = scope.spawn(green.sleep, 0.001)
            let_wait(task)
            while task.state == "waiting":  # without giving it a turn
                pass
            return task.state

    assert one_worker.submit(root).result() == "ready"


def test_a_task_that_cannot_park_is_said_to_block_its_thread(one_worker: dromon.Executor) -> None:
    event = green.Event()

    greenlet = pytest.importorskip("greenlet", reason="greenlet is not installed")
    future = one_worker.submit(lambda: greenlet.greenlet(wait_inside).switch(event))
    said = ", and blocks its thread, since it cannot park here ("
    while said not in (text := dumped()) and not future.done():
        pass
    event.set()
    future.result()
    assert "Event.wait" in next(line for line in text.splitlines() if said in line)


def test_where_there_are_no_tasks_it_says_so() -> None:
    assert dumped() == "green tasks: 0\n"


# ---- Deadlocks -----------------------------------------------------------------------------------


def cycle_of(text: str) -> list[str]:
    _, _, rest = text.partition("wait cycle (deadlock):\n")
    assert "wait cycle" not in rest, "there are several"
    return sorted(
        line.strip() for line in rest.splitlines() if line.startswith("  ") and " waits " in line
    )


def test_two_tasks_that_wait_for_each_others_locks_are_a_cycle(one_worker: dromon.Executor) -> None:
    def root() -> str:
        one, other = green.Lock(), green.RLock()
        has_one, has_other = green.Event(), green.Event()

        def take_one_first() -> None:
            with one:
                has_one.set()
                has_other.wait()
                with other:
                    pass

        def take_other_first() -> None:
            with other:
                has_other.set()
                has_one.wait()
                with one:
                    pass

        return dump_when_stuck(take_one_first, take_other_first)

    text = one_worker.submit(root).result()
    assert cycle_of(text) == [
        "take_one_first waits in RLock.acquire for take_other_first",
        "take_other_first waits in Lock.acquire for take_one_first",
    ]
    assert "> of task take_other_first (" in text


def test_a_cycle_may_lead_through_results_and_scopes(one_worker: dromon.Executor) -> None:
    lock = green.Lock()

    def want(_: object = None) -> None:
        with lock:
            pass

    def await_child() -> None:
        with lock, green.open_scope() as scope:
            scope.spawn(want, name="child").result(timeout=3600)

    def leave() -> None:
        with lock, green.open_scope() as scope:
            scope.spawn(want, name="child")

    text = one_worker.submit(dump_when_stuck, await_child).result()
    assert cycle_of(text) == [
        "await_child waits in Task.result for child",
        "child waits in Lock.acquire for await_child",
    ]
    text = one_worker.submit(dump_when_stuck, leave).result()
    assert cycle_of(text) == [
        "child waits in Lock.acquire for leave",
        "leave waits in leaving a scope for child",
    ]


def test_a_cycle_may_lead_through_a_task_that_runs_in_place_of_the_wait_for_it(
    one_worker: dromon.Executor,
) -> None:
    lock = green.Lock()

    def want() -> None:
        with lock:
            pass

    def parent() -> None:
        # The test cancels the child, too.
        with lock, green.open_scope() as scope, suppress(CancelledError):
            scope.spawn(want, name="child").result()

    text = one_worker.submit(dump_when_stuck, parent).result()
    assert cycle_of(text) == [
        "child waits in Lock.acquire for parent",
        "parent waits in Task.result for child",
    ]
    assert "(that runs in place of the wait, on the same stack)" in text


def test_tasks_that_wait_for_one_that_sleeps_are_no_cycle(one_worker: dromon.Executor) -> None:
    lock = green.Lock()

    def hold() -> None:
        with lock:
            green.sleep(3600)

    def want() -> None:
        with lock:
            pass

    text = one_worker.submit(dump_beside, hold, want).result()
    assert "Lock.acquire" in text
    assert not has_cycle(text)


# ---- Where it is called --------------------------------------------------------------------------


def test_by_default_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    green.dump()
    assert capsys.readouterr() == ("", "green tasks: 0\n")


def test_without_a_stderr_it_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    green.dump()


def test_it_can_be_called_by_a_signals_handler(one_worker: dromon.Executor) -> None:
    texts = []
    before = signal.signal(signal.SIGUSR1, lambda *_: texts.append(dumped()))
    try:
        event = green.Event()
        future = one_worker.submit(wait_inside, event)
        while not any("waiting in Event.wait" in text for text in texts):
            os.kill(os.getpid(), signal.SIGUSR1)
        event.set()
        future.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "in wait_inside" in texts[-1]


def test_it_holds_while_tasks_come_and_go() -> None:
    def root() -> None:
        for _ in range(300):
            green.map(green.sleep, [0, 0.0001, 0.0002])

    with dromon.Executor(2) as executor:
        roots = [executor.submit(root) for _ in range(4)]
        while not all(each.done() for each in roots):
            assert dumped().startswith("green tasks: ")
    for each in roots:
        each.result()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs interpreters of their own")
async def test_in_an_interpreter_of_its_own_it_shows_the_tasks_of_that_one() -> None:
    async with dromon.open_pool(1, isolation="interpreter", name="apart") as pool:
        text = await pool.run_sync(dump_in_there, "inner")
    lines = [line for line in text.splitlines() if not line.startswith(("  F", "    "))]
    assert lines[0] == "green tasks: 2 (1 running, 1 waiting)"
    assert lines[1] == "dump_in_there: running (apart-0)"
    assert "    inner: waiting in Event.wait for <Event at " in text
