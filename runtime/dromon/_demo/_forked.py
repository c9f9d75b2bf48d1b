"""Bare forked processes: the most that this machine gives for the files of the demo."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

from ._files import total

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._bar import Bar
    from ._files import File, Work
    from ._workloads import Workload


async def run_forked(channels: Sequence[socket.socket], number: int, bar: Bar) -> Work:
    """Let each process do its share of a workload, all at once.

    Args:
      channels (Sequence[socket.socket]): What `forked` gave.
      number (int): The workload's index among those that `forked` was given.
      bar (Bar): Moves on whenever one is done.

    Raises:
      ChildProcessError: A process died.
    """
    works: list[Work] = []
    try:
        for channel in channels:
            channel.send(bytes([number]))
        for channel in channels:
            works.append(await _result(channel))
            bar.advance(works[-1].read)
    except (EOFError, ConnectionError) as error:
        raise ChildProcessError("a bare process died") from error
    return total(works)


async def _result(channel: socket.socket) -> Work:
    await trio.lowlevel.wait_readable(channel)
    with channel.makefile("rb") as results:
        work: Work = pickle.load(results)
    return work


@contextmanager
def forked(workloads: Sequence[Workload], count: int) -> Iterator[Sequence[socket.socket]]:
    """Fork processes that share the files of each workload, the largest of which come first; kill
    them at the end.

    This process must have only one thread: a fork takes over the calling thread alone, and every
    lock as another thread holds it. What the body gets are the channels to the processes.
    """
    channels: list[socket.socket] = []
    with ExitStack() as stack:
        shares = [_deal(workload, count) for workload in workloads]
        for index in range(count):
            ours, theirs = socket.socketpair()
            channels.append(stack.enter_context(ours))
            with theirs:
                pid = os.fork()
                if pid == 0:
                    _serve(theirs, [dealt[index] for dealt in shares], channels)
            stack.callback(_end, pid)
        yield channels


def _deal(workload: Workload, count: int) -> list[Workload]:
    """Deal the files, each to whoever has the fewest bytes so far."""
    shares: list[list[File]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file in workload.files:
        least = sizes.index(min(sizes))
        shares[least].append(file)
        sizes[least] += file.size
    return [attrs.evolve(workload, files=share) for share in shares]


def _serve(
    channel: socket.socket, shares: Sequence[Workload], parents: Sequence[socket.socket]
) -> NoReturn:
    """Be the child."""
    try:
        # A child that held the parent's end of a channel would hide from the others, and from
        # itself, that the parent has gone.
        for end in parents:
            end.close()
        with channel.makefile("wb") as results:
            while number := channel.recv(1):
                share = shares[number[0]]
                pickle.dump(total(share.function(file.path) for file in share.files), results)
                results.flush()
    finally:
        # Nothing of the parent's, its exit handlers and buffers, is the child's to run or write.
        os._exit(0)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
