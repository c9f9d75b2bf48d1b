"""Many mixed calls in isolated workers: each ends in one way, as it should, and nothing stays.

`DROMON_STRESS` sets how many.
"""

from __future__ import annotations

import functools
import gc
import os
import random
import sys
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import isolated_works as works
import pytest
import trio
import trio.testing

import dromon

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="needs interpreters with a GIL of their own"
)

CALLS = int(os.environ.get("DROMON_STRESS", "24000")) // 2  # of each of the two tests
ROUNDS = 3  # after each of which memory is looked at
LONGEST = 1e-3  # seconds until a call is cancelled: enough for most
STATES = 20  # of each closure: workers keep a number of those that they have met
SOURCES = 16  # buffers that are lent again and again
MAPPED = 8  # items of a map
SHARE_OF_TASKS = 50  # of which each task of a caller

UNKNOWN, RESULT, EXCEPTION, CANCELLED, WITHDRAWN = range(5)


@attrs.frozen
class Work:
    """A call, and what is to come of it."""

    function: Callable[..., object]
    arguments: tuple[object, ...]
    is_right: Callable[[Any], bool]
    error: type[BaseException] | None = None
    asks: bool = False


class Stress:
    def __init__(self, pool: dromon.Pool, workers: int, seed: int) -> None:
        self.pool = pool
        self.workers = workers
        self.chance = random.Random(seed)
        self.ends = bytearray(CALLS)  # of each call
        self.sources = [bytearray(self.chance.randbytes(1 << n)) for n in range(SOURCES)]
        self.sums = [zlib.crc32(source) for source in self.sources]
        self.kept: deque[tuple[memoryview, bytes]] = deque(maxlen=8)  # outlive their calls
        self.written_to: deque[bytearray] = deque(maxlen=SOURCES)
        self.closures: list[tuple[Callable[[int], object], Callable[[int], None]]] = []
        self.memory: list[tuple[int, int]] = []  # after each round: blocks, and bytes

    def end(self, number: int, how: int) -> None:
        assert self.ends[number] == UNKNOWN
        self.ends[number] = how

    # ---- What is called ----

    def value(self, number: int) -> Work:
        chance = self.chance
        value: object = chance.choice(
            (
                None,
                True,
                -number,
                1 << chance.randrange(200),
                chance.random(),
                "añ語🚣" * chance.randrange(9),
                "\udc80",
                chance.randbytes(chance.choice((0, 9, 4096, 4097))),
                (number, ("a", (b"b", None, (2.5,)))),
                [number, {"key": {number}}],
                Fraction(number, 7),
                works.Value(number, (number, [b"c" * 5_000])),
            )
        )
        return Work(
            works.echo, (number, value), lambda got: type(got) is type(value) and got == value
        )

    def large_bytes(self, number: int) -> Work:
        value = works.pattern(number, 1 << self.chance.randrange(12, 19))
        return Work(works.echo, (number, value), lambda got: type(got) is bytes and got == value)

    def closure(self, number: int) -> Work:
        """By value."""
        added = self.chance.randrange(STATES)
        return Work(
            lambda number: works.echo(number, added),
            (number,),
            functools.partial(int.__eq__, added),
        )

    def changed_closure(self, number: int) -> Work:
        """One that was called before, if one is free, with what it has captured changed."""
        closed, change = self.closures.pop() if self.closures else changeable()
        state = self.chance.randrange(STATES)
        change(state)

        def is_right(got: object) -> bool:
            self.closures.append((closed, change))
            return got == (number, state)

        return Work(closed, (number,), is_right)

    def loop(self, number: int) -> Work:
        turns = self.chance.choice((10, 400, 4_000))
        return Work(works.loop, (number, turns), functools.partial(int.__eq__, loop(number, turns)))

    def unwinding(self, number: int) -> Work:
        return Work(works.unwinding, (number,), lambda got: got == loop(number, 200))

    def survives(self, number: int) -> Work:
        return Work(
            works.survives, (number,), lambda got: got in (("unhurt", 500), ("hurt", number))
        )

    def lent(self, number: int) -> Work:
        at = self.chance.randrange(SOURCES)
        view = memoryview(self.sources[at])
        return Work(works.checksum, (number, view), lambda got: got == self.sums[at])

    def lent_in_a_list(self, number: int) -> Work:
        at = self.chance.randrange(SOURCES)
        value = {"views": [memoryview(self.sources[at])] * 2}
        return Work(
            works.echo,
            (number, value),
            lambda got: all(v == self.sources[at] for v in got["views"]),
        )

    def view_back(self, number: int) -> Work:
        source = self.chance.choice(self.sources)
        start = self.chance.randrange(len(source))
        arguments = number, memoryview(source), start
        return Work(works.view_back, arguments, lambda got: self.keep(got, bytes(source[start:])))

    def own_view(self, number: int) -> Work:
        size = 1 << self.chance.randrange(2, 17)
        expected = works.pattern(number, size)
        return Work(works.own_view, (number, size), lambda got: self.keep(got, expected))

    def keep(self, view: memoryview, expected: bytes) -> bool:
        self.kept.append((view, expected))
        return type(view) is memoryview and view.readonly and view == expected

    def written(self, number: int) -> Work:
        memory = bytearray(works.pattern(number, 64))
        inverted = bytes(byte ^ 0xFF for byte in memory)
        self.written_to.append(memory)
        return Work(
            works.invert,
            (number, dromon.writable(memory)),
            lambda got: got == 64 and memory == inverted,
        )

    def fails(self, number: int) -> Work:
        def is_right(error: LookupError) -> bool:
            return (
                error.args == (number, b"data")
                and error.__notes__[0] == f"note {number}"  # a map adds one
                and isinstance(error.__cause__, KeyError)
                and error.__cause__.args == (number,)
            )

        return Work(works.fails, (number,), is_right, LookupError)

    def fails_here(self, number: int) -> Work:
        def is_right(error: dromon.RemoteError) -> bool:
            return str(number) in str(error) and "StaysError" in str(error)

        return Work(works.fails_here, (number,), is_right, dromon.RemoteError)

    def returns_what_stays(self, number: int) -> Work:
        return Work(
            works.returns_what_stays, (number,), lambda error: "travel" in str(error), TypeError
        )

    def asks(self, number: int) -> Work:
        at = CALLS + number
        function = self.chance.choice((works.asks, works.asks_async))
        return Work(
            function, (number, at), lambda got: got == at + 1 and works.runs[at] == 1, asks=True
        )

    def asks_in_vain(self, number: int) -> Work:
        at = CALLS + number
        return Work(
            works.asks_in_vain,
            (number, at),
            lambda error: error.args == (at,) and works.runs[at] == 1,
            LookupError,
            asks=True,
        )

    # In a map the results of several items travel together, and one that cannot holds up all.
    MAPPED_WORKS: tuple[Callable[[Stress, int], Work], ...] = (
        *(value, value, value, large_bytes, closure, changed_closure, loop, loop, unwinding),
        *(survives, lent, lent, lent_in_a_list, view_back, own_view, written),
        *(fails, fails_here, asks, asks_in_vain),
    )
    WORKS = (*MAPPED_WORKS, returns_what_stays)

    # ---- How it is called, and how that ends ----

    async def check(self, number: int, work: Work, call: Callable[[], Any]) -> None:
        """Call, and see what comes of it unless it is cancelled."""
        try:
            result = await call()
        except (trio.Cancelled, trio.TooSlowError, CancelledError):
            raise
        except BaseException as error:
            if work.error is None or not (type(error) is work.error and work.is_right(error)):
                raise
            self.end(number, EXCEPTION)
        else:
            assert work.error is None
            assert work.is_right(result), (work, result)
            self.end(number, RESULT)

    async def awaited(self, number: int, work: Work, **options: Any) -> None:
        call = functools.partial(self.pool.run_sync, work.function, *work.arguments, **options)
        await self.check(number, work, call)

    async def timed(self, number: int, work: Work) -> None:
        try:
            await self.awaited(number, work, timeout=self.chance.random() * LONGEST)
        except trio.TooSlowError:
            self.end(number, CANCELLED)

    async def cancelled(self, number: int, work: Work, **options: Any) -> None:
        with trio.move_on_after(self.chance.random() * LONGEST) as scope:
            await self.awaited(number, work, **options)
        if scope.cancelled_caught:
            self.end(number, CANCELLED)

    async def interrupted(self, number: int, work: Work) -> None:
        await self.cancelled(number, work, interrupt_on_cancel=True)

    async def abandoned(self, number: int, work: Work) -> None:
        await self.cancelled(number, work, abandon_on_cancel=True)

    async def with_a_future(self, number: int, work: Work) -> None:
        if work.asks:  # who has a future has no trio
            await self.awaited(number, work)
            return
        future = self.pool.submit(work.function, *work.arguments)
        if self.chance.randrange(2):
            await trio.lowlevel.checkpoint()
            if future.cancel():
                assert future.cancelled()
                self.end(number, WITHDRAWN)
                return
        await self.check(number, work, functools.partial(outcome_of, future))

    async def mapped(self, numbers: list[int]) -> None:
        """A work like others, for several numbers."""
        works_of = [self.chance.choice(self.MAPPED_WORKS)(self, number) for number in numbers]
        calls = [(work.function, *work.arguments) for work in works_of]
        async with self.pool.open_map(
            works.call, calls, return_outcomes=True, chunksize=self.chance.randrange(1, 4)
        ) as results:
            outcomes = [result async for result in results]
        for number, work, result in zip(numbers, works_of, outcomes, strict=True):

            async def unwrap(result: Any = result) -> object:
                return result.unwrap()

            await self.check(number, work, unwrap)

    WAYS = (awaited, awaited, timed, cancelled, interrupted, abandoned, with_a_future)

    # ---- All of it ----

    async def caller(self, numbers: list[int]) -> None:
        while numbers:
            if len(numbers) >= MAPPED and self.chance.randrange(SHARE_OF_TASKS) == 0:
                await self.mapped([numbers.pop() for _ in range(MAPPED)])
                continue
            number = numbers.pop()
            work = self.chance.choice(self.WORKS)(self, number)
            await self.chance.choice(self.WAYS)(self, number, work)

    async def settle(self, turn: int) -> None:
        """Wait until no worker has anything left, and have each collect garbage."""
        async with trio.open_nursery() as nursery:
            for index in range(self.workers):
                nursery.start_soon(
                    self.pool.run_sync, works.meet, 2 * CALLS, self.workers, index, turn
                )
        await trio.testing.wait_all_tasks_blocked()
        assert all(view == expected for view, expected in self.kept)
        self.kept.clear()
        gc.collect()
        for memory in (*self.sources, *self.written_to):
            memory.append(0)  # as long as it is lent, it cannot be resized
            del memory[-1]

    async def run(self) -> None:
        for turn in range(1, ROUNDS + 1):
            numbers = list(range(CALLS * (turn - 1) // ROUNDS, CALLS * turn // ROUNDS))
            async with trio.open_nursery() as nursery:
                for _ in range(self.workers + 2):
                    nursery.start_soon(self.caller, numbers)
            await self.settle(turn)
            # With the blocks of all interpreters.
            self.memory.append((sys.getallocatedblocks(), resident_bytes()))

    def check_ends(self) -> None:
        runs = works.runs
        assert UNKNOWN not in self.ends
        for number, end in enumerate(self.ends):
            least, most = {WITHDRAWN: (0, 0), CANCELLED: (0, 1)}.get(end, (1, 1))
            assert least <= runs[number] <= most, (number, end)
            assert runs[CALLS + number] <= 1, number


def loop(number: int, turns: int) -> int:
    return sum(n ^ number for n in range(turns))


def changeable() -> tuple[Callable[[int], object], Callable[[int], None]]:
    """A function that travels by value, and one that changes what it has captured."""
    state = 0

    def closed(number: int) -> object:
        works.runs[number] += 1
        return number, state

    def change(to: int) -> None:
        nonlocal state
        state = to

    return closed, change


async def outcome_of(future: Future[object]) -> object:
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()
    future.add_done_callback(lambda _: token.run_sync_soon(done.set))
    await done.wait()
    return future.result()


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("workers", [1, 3])
async def test_each_of_many_calls_in_isolated_workers_ends_in_one_way_and_nothing_of_it_stays(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray: list[object] = []  # exceptions that came up where nobody is to get them
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: stray.append(hook.exc_value))
    monkeypatch.setattr(threading, "excepthook", lambda hook: stray.append(hook.exc_value))
    seed = random.randrange(1 << 32)
    print("seed", seed)
    path = tmp_path / "runs"
    path.write_bytes(bytes(2 * CALLS + workers))
    works.open_runs(str(path))
    initializer = functools.partial(works.open_runs, str(path))
    async with dromon.open_pool(workers, isolation="interpreter", initializer=initializer) as pool:
        stress = Stress(pool, workers, seed)
        await stress.run()
    ends = Counter(stress.ends)
    print(ends, stress.memory)
    stress.check_ends()
    assert min(ends[end] for end in (RESULT, EXCEPTION, CANCELLED, WITHDRAWN)) > 0
    _, (blocks_before, bytes_before), (blocks, resident) = stress.memory
    assert blocks - blocks_before < 1_000 * (1 + workers) + CALLS // 1_000
    assert resident - bytes_before < 0.1 * bytes_before
    assert stray == []
