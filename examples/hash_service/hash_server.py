"""Serve SHA-256 digests of what clients upload over TCP, hashed on a dromon pool.

    python hash_server.py [--host NAME] [--port N] [--limit BYTES] [--timeout SECONDS] [--workers N]

The protocol: the server says ``sha256 LIMIT`` and a line feed. The client sends the length of an
upload, at most LIMIT, as 8 bytes, most significant first, then so many bytes. The server answers
with the digest in hexadecimal and a line feed, and the next upload may come. A client that breaks a
rule is told so, ``error: ...`` and a line feed, and the connection is ended. A client that ends the
connection before it has its answer gets none, and what is queued for it is withdrawn.

Ctrl-C (or SIGTERM) ends all connections and the program, with status 0.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

LENGTH = struct.Struct(">Q")

# What a worker is given at once: less than a millisecond of work. A connection holds two parts at
# most: one that is queued or being hashed, and one that comes in meanwhile.
PART = 256 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve SHA-256 digests of uploads over TCP.")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1")
    parser.add_argument("--port", metavar="N", type=int, default=0, help="default: any free one")
    parser.add_argument("--limit", metavar="BYTES", type=int, default=1 << 30, help="of one upload")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=60, help=f"for {PART} bytes"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="default: one per usable CPU")
    args = parser.parse_args()
    if not 0 <= args.port < 1 << 16:
        parser.error(f"argument --port: must be from 0 to {(1 << 16) - 1}")
    if args.limit < 0:
        parser.error("argument --limit: must not be negative")
    if not args.timeout > 0:
        parser.error("argument --timeout: must be positive")
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    return trio.run(serve, args.host, args.port, opening, args.limit, args.timeout)


async def serve(
    host: str,
    port: int,
    opening: AbstractAsyncContextManager[dromon.Pool],
    limit: int,
    timeout: float,
) -> int:
    """Serve until a signal says to stop."""
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        print(f"cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as watch:
            async with opening as pool, trio.open_nursery() as nursery:
                service = HashService(pool, limit, timeout)
                nursery.start_soon(trio.serve_listeners, service.serve, listeners)
                for listener in listeners:
                    address, number, *_ = listener.socket.getsockname()
                    print(f"listening on {address}:{number}", flush=True)
                await anext(signals)
                watch.start_soon(ignore_signals, signals)
                # This ends the connections, and withdraws what they have queued.
                nursery.cancel_scope.cancel()
            watch.cancel_scope.cancel()
    return 0


async def ignore_signals(signals: AsyncIterator[int]) -> None:
    """It is ending already: a second Ctrl-C would only make that untidy."""
    async for _ in signals:
        pass


class BrokenRuleError(Exception):
    """A client has broken a rule of the protocol. The message tells it which."""


@attrs.frozen
class HashService:
    """What is the same for all connections."""

    pool: dromon.Pool
    limit: int
    timeout: float

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer the uploads of one client, until it ends the connection or breaks a rule."""
        refusals = []
        async with stream:
            try:
                await self._send(stream, f"sha256 {self.limit}")
                while True:
                    await self._send(stream, await self._hash_upload(stream))
            except* (EOFError, trio.BrokenResourceError):
                pass  # The client has gone.
            except* trio.TooSlowError:
                refusals = [f"too slow: {PART} bytes may take {self.timeout:g} seconds"]
            except* BrokenRuleError as group:
                refusals = [str(error) for error in group.exceptions]
            with suppress(trio.BrokenResourceError, trio.TooSlowError):
                for refusal in refusals:
                    await self._send(stream, f"error: {refusal}")

    async def _hash_upload(self, stream: trio.abc.Stream) -> str:
        (length,) = LENGTH.unpack(await self._receive(stream, LENGTH.size))
        if length > self.limit:
            raise BrokenRuleError(f"an upload has at most {self.limit} bytes, not {length}")
        digest = hashlib.sha256()
        part = await self._receive(stream, min(length, PART))
        while length := length - len(part):
            # A worker hashes one part while the next one comes in, which may take as long as it
            # likes: the worker does not wait for it.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.pool.run_sync, digest.update, part)
                part = await self._receive(stream, min(length, PART))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_for_the_end, stream)
            await self.pool.run_sync(digest.update, part)
            nursery.cancel_scope.cancel()
        return digest.hexdigest()

    async def _receive(self, stream: trio.abc.Stream, count: int) -> bytearray:
        part = bytearray()
        with trio.fail_after(self.timeout):
            while len(part) < count:
                received = await stream.receive_some(count - len(part))
                if not received:
                    raise EOFError
                part += received
        return part

    async def _send(self, stream: trio.abc.Stream, line: str) -> None:
        # A client that does not read its answers must not keep its connection forever.
        with trio.fail_after(self.timeout):
            await stream.send_all(f"{line}\n".encode())


async def watch_for_the_end(stream: trio.abc.Stream) -> None:
    """Raise as soon as a client ends its connection, or sends what it should not send yet."""
    if not await stream.receive_some(1):
        raise EOFError
    raise BrokenRuleError("the next upload has to wait for the answer")


if __name__ == "__main__":
    sys.exit(main())
