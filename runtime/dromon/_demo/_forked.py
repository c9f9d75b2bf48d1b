"""Bare forked processes: the most that this machine gives for the files of the demo."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import attrs
import trio

from ._bar import Bar
from ._files import File, Work, crunch, total


@attrs.frozen
class Process:
    """A child that does its share of the files each time that it is told to."""

    pid: int
    channel: socket.socket
    share: Sequence[File]

    def start(self) -> None:
        """Tell it to do its share."""
        self.channel.send(b"!")

    async def result(self) -> Work:
        """Wait until it is done.

        Raises:
            ChildProcessError: It died.
        """
        await trio.lowlevel.wait_readable(self.channel)
        try:
            with self.channel.makefile("rb") as replies:
                work: Work = pickle.load(replies)
        except EOFError:
            raise ChildProcessError(f"the bare process {self.pid} died") from None
        return work


async def run_forked(processes: Sequence[Process], bar: Bar) -> Work:
    """Let each process do its share, all at once.

    Raises:
        ChildProcessError: A process died.
    """
    for process in processes:
        process.start()
    works: list[Work] = []
    for process in processes:
        works.append(await process.result())
        bar.advance(works[-1].read)
    return total(works)


@contextmanager
def forked(files: Sequence[File], count: int) -> Iterator[Sequence[Process]]:
    """Fork processes that share some files, and kill them in the end.

    Call it while this process has only one thread: a fork takes over only the calling one, with
    every lock as it stands.

    Args:
        files: The files, the largest first.
        count: How many processes.
    """
    processes: list[Process] = []
    with ExitStack() as stack:
        for share in _deal(files, count):
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                _serve(theirs, share, [ours, *(process.channel for process in processes)])
            stack.callback(_end, pid)
            stack.enter_context(ours)
            theirs.close()
            processes.append(Process(pid, ours, share))
        yield processes


def _deal(files: Sequence[File], count: int) -> list[list[File]]:
    """Deal files, the largest first, each to whoever has the fewest bytes so far."""
    shares: list[list[File]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file in files:
        least = sizes.index(min(sizes))
        shares[least].append(file)
        sizes[least] += file.size
    return shares


def _serve(
    channel: socket.socket, share: Sequence[File], others: Sequence[socket.socket]
) -> NoReturn:
    """Be the child; it never returns, whatever happens."""
    try:
        # While a child held a parent's end, it would not see that the parent has gone.
        for other in others:
            other.close()
        with channel.makefile("wb") as replies:
            while channel.recv(1):
                pickle.dump(total(crunch(file.path) for file in share), replies)
                replies.flush()
    finally:
        os._exit(0)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
