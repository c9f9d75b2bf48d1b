"""Random trees of green tasks, for test_green_stress; light to import, for isolated workers.

A tree keeps an account of its tasks: each is to begin once or, if it was cancelled, perhaps never,
and to end as often as it has begun; what they hand on is to arrive once.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError

from dromon import green

MOST_TASKS = 300  # in a tree


class Tree:
    def __init__(self, seed: int, may_fork: bool) -> None:
        self.random = random.Random(seed)
        self.may_fork = may_fork
        self.tasks: list[green.Task[None]] = []
        self.begun: list[int] = []  # list.append is one step
        self.ended: list[int] = []
        self.sent: list[int] = []
        self.received: list[int] = []
        self.lock = green.Lock()
        self.locked = 0
        self.permits = green.Semaphore(2)
        self.event = green.Event()
        self.send_channel: green.SendChannel[int]
        self.receive_channel: green.ReceiveChannel[int]
        self.send_channel, self.receive_channel = green.open_channel(math.inf)

    # ---- What tasks do ----

    def run(self, number: int, depth: int) -> None:
        self.begun.append(number)
        try:
            for _ in range(self.random.randrange(1, 4)):
                self.random.choice(STEPS)(self, number)
            if depth > 0:
                self.branch(depth)
        finally:
            if self.random.random() < 0.2:
                with contextlib.suppress(green.Cancelled):
                    green.sleep(self.random.random() * 1e-4)
            self.ended.append(number)

    def branch(self, depth: int) -> None:
        try:
            with green.open_scope() as scope:
                own = [self.spawn(scope, depth - 1) for _ in range(self.random.randrange(5))]
                if own and self.random.random() < 0.3:
                    self.random.choice(own).cancel()
                if own and self.random.random() < 0.5:
                    with contextlib.suppress(CancelledError):
                        self.random.choice(own).exception()
                if self.random.random() < 0.1:
                    scope.cancel()
        except* LookupError:
            if self.random.random() < 0.3:
                raise

    def spawn(self, scope: green.Scope, depth: int) -> green.Task[None]:
        number = len(self.tasks)
        task = scope.spawn(self.run, number, depth if number < MOST_TASKS else 0)
        self.tasks.append(task)
        return task

    def sleep(self, number: int) -> None:
        green.sleep(self.random.random() * 1e-3)

    def yields(self, number: int) -> None:
        green.checkpoint()

    def fail(self, number: int) -> None:
        if self.random.random() < 0.1:
            raise LookupError(number)

    def take_turns(self, number: int) -> None:
        with self.lock:
            self.locked += 1
            try:
                green.checkpoint()
                assert self.locked == 1
            finally:
                self.locked -= 1

    def take_permit(self, number: int) -> None:
        with self.permits:
            green.sleep(1e-5)

    def wait_for_event(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            self.event.wait(timeout=1e-4)

    def set_event(self, number: int) -> None:
        self.event.set()
        self.event.clear()

    def send(self, number: int) -> None:
        value = self.random.getrandbits(60)
        self.send_channel.send_nowait(value)
        self.sent.append(value)

    def receive(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            self.received.append(self.receive_channel.receive(timeout=1e-4))

    def cancel_some(self, number: int) -> None:
        if self.tasks and self.random.random() < 0.2:
            self.random.choice(self.tasks).cancel()

    def collect(self, number: int) -> None:
        cycle: list[object] = [self]
        cycle.append(cycle)
        if self.random.random() < 0.05:
            gc.collect()

    def recurse(self, number: int, depth: int = 100) -> None:
        if depth == 0:
            green.checkpoint()
        else:
            sorted([depth], key=lambda depth: self.recurse(number, depth - 1) or 0)  # type: ignore[func-returns-value]

    def fork(self, number: int) -> None:
        if self.may_fork and self.random.random() < 0.02:
            pid = os.fork()
            if pid == 0:
                gc.collect()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

    # ---- The account ----

    def errors(self) -> list[str]:
        """What is wrong when all is over."""
        while True:
            try:
                self.received.append(self.receive_channel.receive_nowait())
            except green.WouldBlock:
                break
        begun, ended = Counter(self.begun), Counter(self.ended)
        found = {
            "begun twice": [number for number, times in begun.items() if times > 1],
            "not ended": list((begun - ended).keys()) + list((ended - begun).keys()),
            "not done": [n for n, task in enumerate(self.tasks) if not task.done()],
            "never begun": [
                n for n, task in enumerate(self.tasks) if n not in begun and not task.cancelled()
            ],
            "wrong errors": [n for n, task in enumerate(self.tasks) if not _may_end_so(task)],
            "not received": list((Counter(self.sent) - Counter(self.received)).keys()),
            "received twice": list((Counter(self.received) - Counter(self.sent)).keys()),
            "permits": [self.permits.value] if self.permits.value != 2 else [],
            "lock": [self.locked] if self.locked or self.lock.locked() else [],
        }
        return [f"{what}: {which}" for what, which in found.items() if which]


def _may_end_so(task: green.Task[None]) -> bool:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, BaseExceptionGroup):
        return error.split(LookupError)[1] is None
    return error is None or isinstance(error, LookupError)


STEPS: list[Callable[[Tree, int], None]] = [
    Tree.sleep,
    Tree.yields,
    Tree.fail,
    Tree.take_turns,
    Tree.take_permit,
    Tree.wait_for_event,
    Tree.set_event,
    Tree.send,
    Tree.receive,
    Tree.cancel_some,
    Tree.collect,
    Tree.recurse,
    Tree.fork,
]


def grow(seed: int, may_fork: bool) -> list[str]:
    """Run a random tree, and return what was wrong with it."""
    tree = Tree(seed, may_fork)
    with contextlib.suppress(green.Cancelled):  # its account is the outcome all the same
        try:
            tree.branch(5)
        except* LookupError:
            pass
    return tree.errors()
