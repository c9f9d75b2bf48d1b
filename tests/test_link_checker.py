"""examples/link_checker: in the tests' own process, and as a program."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from programs import EXAMPLES, load_example, run_program
from trio.testing import wait_all_tasks_blocked

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = EXAMPLES / "link_checker" / "check_links.py"

check_links = load_example("link_checker/check_links.py")


def answer(text: str, status: int = 200, *headers: str) -> bytes:
    lines = [f"HTTP/1.0 {status} so", "Content-Type: text/html; charset=utf-8", *headers, "", text]
    return "\r\n".join(lines).encode()


def page(*links: str) -> bytes:
    return answer("".join(f'<a class="link" href="{link}">' for link in links))


@attrs.define
class Server:
    """Answers by what stands in `answers`, or not before `gate` is open."""

    url: str
    answers: dict[str, bytes] = attrs.field(factory=dict)
    gate: trio.Event | None = None
    asked: list[str] = attrs.field(factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        request = b""
        async with stream:
            while b"\r\n\r\n" not in request:
                received = await stream.receive_some()
                if not received:
                    return  # it was cancelled before it had asked
                request += received
            path = request.split()[1].decode()
            self.asked.append(path)
            if self.gate is not None and path != "/":
                await self.gate.wait()
            await stream.send_all(self.answers.get(path, answer("", 404)))


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = Server(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    nursery.start_soon(trio.serve_listeners, server.serve, [listener])
    return server


@pytest.fixture
async def pool() -> AsyncIterator[dromon.Pool]:
    async with dromon.open_pool(workers=2) as pool:
        yield pool


def site_of(server: Server, connections: int = 4, timeout: float = 60) -> check_links.Site:
    web = check_links.Web(trio.CapacityLimiter(connections), timeout)
    return check_links.Site(f"{server.url}/", web)


def problems(site: check_links.Site) -> dict[str, str]:
    """What is wrong with links, by the path that they lead to."""
    return {
        url.removeprefix(site.start): link.problem
        for url, link in site.links.items()
        if link.problem is not None
    }


async def test_all_pages_of_a_site_are_read_once_and_no_other_site(
    server: Server, pool: dromon.Pool
) -> None:
    server.answers = {
        "/": page("a", "/b", "#here", "b#there", "http://other.invalid/", "mailto:me@invalid"),
        "/a": page("b", "deep/c", "/"),
        "/b": page(),
        "/deep/c": page("../a", ".?q=a b"),
        "/deep/?q=a%20b": page(),
    }
    site = site_of(server)
    await pool.run_sync(site.check)
    assert problems(site) == {}
    assert sorted(server.asked) == ["/", "/a", "/b", "/deep/?q=a%20b", "/deep/c"]


async def test_a_broken_link_is_told_with_a_page_that_it_is_on(
    server: Server, pool: dromon.Pool
) -> None:
    server.answers = {"/": page("a"), "/a": page("gone")}
    site = site_of(server)
    await pool.run_sync(site.check)
    link = site.links[f"{server.url}/gone"]
    assert (link.page, link.problem) == (f"{server.url}/a", "status 404")


async def test_redirections_are_followed(server: Server, pool: dromon.Pool) -> None:
    server.answers = {
        "/": answer("", 302, "Location: start"),
        "/start": answer("", 301, "Location: gone"),
    }
    site = site_of(server)
    await pool.run_sync(site.check)
    assert problems(site) == {"gone": "status 404"}


@pytest.mark.parametrize(
    ("wrong", "problem"), [(b"", "no answer in HTTP"), (b"HTTP/1.0 ?\r\n\r\n", "invalid literal")]
)
async def test_an_answer_that_makes_no_sense_is_a_problem_of_its_link(
    server: Server, pool: dromon.Pool, wrong: bytes, problem: str
) -> None:
    server.answers = {"/": page("wrong"), "/wrong": wrong}
    site = site_of(server)
    await pool.run_sync(site.check)
    assert problems(site)["wrong"].startswith(problem)


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    server: Server, pool: dromon.Pool
) -> None:
    server.answers = {"/": page("slow")}
    server.gate = trio.Event()
    site = site_of(server, timeout=0.5)
    await pool.run_sync(site.check)
    assert problems(site) == {"slow": "no answer"}


async def test_all_pages_are_looked_at_at_a_time_on_two_workers_by_few_connections(
    server: Server, pool: dromon.Pool
) -> None:
    links = [f"{number}" for number in range(1000)]
    server.answers = {"/": page(*links), **{f"/{link}": page("/") for link in links}}
    server.gate = trio.Event()
    site = site_of(server, connections=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, site.check)
        while site.web.connections.statistics().tasks_waiting < len(links) - 4:
            await trio.sleep(0.01)
        await pool.run_sync(str)  # the workers are free for others
        server.gate.set()
    assert (len(site.links), problems(site)) == (1 + len(links), {})


async def test_cancellation_ends_all_that_waits(server: Server, pool: dromon.Pool) -> None:
    links = [f"{number}" for number in range(20)]
    server.answers = {"/": page(*links)}
    server.gate = trio.Event()
    site = site_of(server, connections=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, site.check)
        while site.web.connections.statistics().tasks_waiting < len(links) - 4:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    assert site.web.connections.borrowed_tokens == 0


async def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return await trio.to_thread.run_sync(partial(run_program, PROGRAM, *arguments, status=status))


async def test_the_program_prints_broken_links_and_fails_if_there_are_any(server: Server) -> None:
    server.answers = {"/": page("gone", "good"), "/good": page()}
    result = await run(f"{server.url}/", status=1)
    assert result.stdout == f"{server.url}/gone on {server.url}/: status 404\n"
    assert result.stderr == "3 links, 1 broken\n"


async def test_the_program_ends_well_if_no_link_is_broken(server: Server) -> None:
    server.answers = {"/": page("good"), "/good": page()}
    result = await run(f"{server.url}/")
    assert (result.stdout, result.stderr) == ("", "2 links, 0 broken\n")


async def test_the_program_ends_quietly_when_interrupted(server: Server) -> None:
    server.answers = {"/": page("slow", "slower")}
    server.gate = trio.Event()
    command = [sys.executable, str(PROGRAM), f"{server.url}/"]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    async with process.stderr:
        while len(server.asked) < 3:
            await trio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            assert await process.stderr.receive_some() == b""
            assert await process.wait() == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ["--connections", "0", "http://localhost/"],
        ["--timeout", "0", "http://localhost/"],
        ["--workers", "0", "http://localhost/"],
        ["localhost"],
    ],
)
def test_it_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    result = run_program(PROGRAM, *arguments, status=2)
    assert "error: argument " in result.stderr
