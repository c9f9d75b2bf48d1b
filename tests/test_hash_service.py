"""examples/hash_service: in the tests' own process, and as programs."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from programs import EXAMPLES, held_worker, load_example, run_program, started_server
from trio.testing import (
    lockstep_stream_pair,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    StreamPair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
    Connect = Callable[..., trio.abc.Stream]

SERVER = EXAMPLES / "hash_service" / "hash_server.py"
CLIENT = EXAMPLES / "hash_service" / "hash_client.py"

hash_server = load_example("hash_service/hash_server.py")
PART = hash_server.PART


def upload(content: bytes) -> bytes:
    return struct.pack(">Q", len(content)) + content


def answer(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}\n".encode()


async def receive_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        received = await stream.receive_some(1)
        assert received, f"the connection ended after {line!r}"
        line += received
    return line


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=1) as pool:
        yield pool


@pytest.fixture
def connect(pool: dromon.Pool, nursery: trio.Nursery) -> Connect:
    """Opens a connection to a service with a limit of 10 MB and a timeout of 5 seconds."""
    service = hash_server.HashService(pool, limit=10_000_000, timeout=5)

    def connect(stream_pair: StreamPair = memory_stream_pair) -> trio.abc.Stream:
        client, server = stream_pair()
        nursery.start_soon(service.serve, server)
        return client

    return connect


async def test_the_service_says_its_limit_and_answers_one_upload_after_the_other(
    connect: Connect,
) -> None:
    client = connect()
    assert await receive_line(client) == b"sha256 10000000\n"
    for length in (0, 1, PART - 1, PART, PART + 1, 3 * PART):
        content = random.Random(length).randbytes(length)
        await client.send_all(upload(content))
        assert await receive_line(client) == answer(content)


async def test_an_upload_above_the_limit_is_refused_by_its_length_alone(connect: Connect) -> None:
    client = connect()
    await receive_line(client)
    await client.send_all(struct.pack(">Q", 10_000_001))
    refusal = b"error: an upload has at most 10000000 bytes, not 10000001\n"
    assert await receive_line(client) == refusal
    assert await client.receive_some(1) == b""


async def test_an_upload_that_comes_before_the_answer_to_the_last_one_is_refused(
    connect: Connect, pool: dromon.Pool
) -> None:
    async with held_worker(pool):
        client = connect()
        await receive_line(client)
        await client.send_all(upload(b"first") + upload(b"second"))
        refusal = b"error: the next upload has to wait for the answer\n"
        assert await receive_line(client) == refusal


async def test_a_slow_client_is_told_so_and_holds_no_worker_meanwhile(
    connect: Connect, pool: dromon.Pool, autojump_clock: trio.testing.MockClock
) -> None:
    slow, other = connect(), connect()
    await receive_line(slow)
    await slow.send_all(upload(bytes(2 * PART))[: -PART // 2])
    await wait_all_tasks_blocked()
    await receive_line(other)
    await other.send_all(upload(b"quick"))
    assert await receive_line(other) == answer(b"quick")
    assert await receive_line(slow) == b"error: too slow: 262144 bytes may take 5 seconds\n"


@pytest.mark.parametrize("parts", [1, 3])
async def test_what_is_queued_for_a_client_that_goes_away_is_withdrawn(
    connect: Connect, pool: dromon.Pool, parts: int
) -> None:
    async with held_worker(pool):
        client = connect()
        await client.send_all(upload(bytes(parts * PART))[: 2 * PART])
        await wait_all_tasks_blocked()
        assert pool.statistics().queued == 1
        await client.aclose()
        await wait_all_tasks_blocked()
    await pool.run_sync(int)
    statistics = pool.statistics()
    assert (statistics.cancelled, statistics.queued) == (1, 0)


async def test_a_connection_takes_two_parts_and_no_more_until_the_first_is_hashed(
    connect: Connect, pool: dromon.Pool
) -> None:
    taken = 0

    async def send() -> None:
        nonlocal taken
        for piece in (struct.pack(">Q", 3 * PART), bytes(PART), bytes(PART), b"0"):
            # In lock step: until the service has received it.
            await client.send_all(piece)
            taken += 1

    async with held_worker(pool) as go_on:
        client = connect(lockstep_stream_pair)
        await receive_line(client)
        async with trio.open_nursery() as sending:
            sending.start_soon(send)
            await wait_all_tasks_blocked()
            assert taken == 3
            go_on()
        assert taken == 4
        await client.aclose()


async def test_many_connections_are_served_at_once(nursery: trio.Nursery) -> None:
    contents = [random.Random(seed).randbytes(10_000 * (seed % 70)) for seed in range(200)]
    arrived = trio.Event()
    waiting = len(contents)

    async def ask(content: bytes) -> None:
        nonlocal waiting
        async with await open_stream_to_socket_listener(listeners[0]) as stream:
            await receive_line(stream)
            waiting -= 1
            if not waiting:
                arrived.set()
            await arrived.wait()
            await stream.send_all(upload(content))
            assert await receive_line(stream) == answer(content)

    async with dromon.open_pool() as pool, trio.open_nursery() as serving:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        service = hash_server.HashService(pool, limit=1_000_000, timeout=60)
        serving.start_soon(trio.serve_listeners, service.serve, listeners)
        async with trio.open_nursery() as asking:
            for content in contents:
                asking.start_soon(ask, content)
        serving.cancel_scope.cancel()


def test_the_client_prints_what_sha256sum_prints(tmp_path: Path) -> None:
    files = {tmp_path / "empty": b"", tmp_path / "large": random.Random(0).randbytes(5_000_000)}
    for file, content in files.items():
        file.write_bytes(content)
    with started_server(SERVER) as address:
        port = address.rpartition(":")[2]
        result = run_program(CLIENT, "--port", port, *files)
    assert result.stdout == "".join(
        f"{answer(content).decode().strip()}  {file}\n" for file, content in files.items()
    )
    assert result.stderr == ""


def test_the_client_reports_what_it_cannot_send_and_does_the_rest(tmp_path: Path) -> None:
    missing, large, pipe, small = (tmp_path / name for name in ("missing", "large", "pipe", "ok"))
    large.write_bytes(bytes(11))
    os.mkfifo(pipe)
    small.write_bytes(bytes(10))
    with started_server(SERVER, "--limit", "10") as address:
        port = address.rpartition(":")[2]
        result = run_program(CLIENT, "--port", port, missing, large, pipe, small, status=1)
    assert result.stdout == f"{answer(bytes(10)).decode().strip()}  {small}\n"
    assert result.stderr.splitlines() == [
        f"{missing}: No such file or directory",
        f"{large}: Larger than the server's limit of 10 bytes",
        f"{pipe}: Not a regular file",
    ]


def test_an_interrupted_server_ends_its_connections_and_ends_quietly() -> None:
    with started_server(SERVER) as address:
        host, _, port = address.rpartition(":")
        idle = socket.create_connection((host, int(port)))
        busy = socket.create_connection((host, int(port)))
        for connection in (idle, busy):
            assert connection.recv(100) == b"sha256 1073741824\n"
        busy.sendall(upload(bytes(3 * PART))[: -PART // 2])
    for connection in (idle, busy):
        # It is reset where the server had not read all.
        with connection, suppress(ConnectionResetError):
            assert connection.recv(100) == b""


@pytest.mark.parametrize(
    "arguments",
    [("--port", "65536"), ("--limit", "-1"), ("--timeout", "0"), ("--workers", "0")],
)
def test_the_server_refuses_numbers_that_make_no_sense(arguments: tuple[str, str]) -> None:
    result = run_program(SERVER, *arguments, status=2)
    assert f"error: argument {arguments[0]}: " in result.stderr


def test_a_server_that_cannot_have_its_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run_program(SERVER, "--port", port, status=1)
    assert result.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"
