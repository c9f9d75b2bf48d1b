"""examples/mandelbrot: its tiles, and its server in the tests' own process and as a program."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from PIL import Image
from programs import EXAMPLES, held_worker, load_example, run_program, started_server
from trio.testing import wait_all_tasks_blocked

import dromon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SERVER = EXAMPLES / "mandelbrot" / "mandelbrot_server.py"

mandelbrot_tiles = load_example("mandelbrot/mandelbrot_tiles.py")
mandelbrot_server = load_example("mandelbrot/mandelbrot_server.py")


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(png)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))
        return np.asarray(image)


def test_a_tile_is_black_in_the_set_and_dark_blue_far_from_it() -> None:
    pixels = pixels_of(mandelbrot_tiles.render_png(0, 0, 0))
    # A pixel is 1/32 wide, and the middle of the tile is -0.75.
    in_the_heart, in_the_disc, around_i, far = (128, 144), (128, 120), (96, 152), (0, 0)
    assert tuple(pixels[in_the_heart]) == (0, 0, 0)
    assert tuple(pixels[in_the_disc]) == (0, 0, 0)
    assert tuple(pixels[around_i]) != (0, 0, 0)
    red, green, blue = pixels[far].astype(int)
    assert red < 10
    assert green < 40
    assert 100 <= blue < 130


def test_tiles_below_the_real_axis_mirror_those_above() -> None:
    above, below = (pixels_of(mandelbrot_tiles.render_png(3, 3, y)) for y in (3, 4))
    assert np.array_equal(above, below[::-1])


def test_a_tile_shows_what_the_four_below_it_show() -> None:
    points = mandelbrot_tiles.points
    finer = np.vstack(
        [np.hstack([points(6, 2 * 17 + x, 2 * 30 + y) for x in (0, 1)]) for y in (0, 1)]
    )
    # Four pixels around each of the coarser one's.
    middles = (finer[::2, ::2] + finer[1::2, ::2] + finer[::2, 1::2] + finer[1::2, 1::2]) / 4
    assert np.array_equal(middles, points(5, 17, 30))


def test_escape_times_are_those_of_the_definition() -> None:
    points = mandelbrot_tiles.points(4, 6, 6)[::32, ::32]
    times = mandelbrot_tiles.escape_times(points, 300)
    for point, time in zip(points.ravel(), times.ravel(), strict=True):
        z, steps = 0, 0
        while abs(z) <= 256 and steps < 300:
            z = z * z + point
            steps += 1
        assert time == 0 if steps == 300 else steps - 1.1 < time <= steps


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with started_server(SERVER, "--workers", "2") as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


@pytest.fixture
def connection(address: tuple[str, int]) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(*address, timeout=60)
    yield connection
    connection.close()


def get(connection: HTTPConnection, path: str) -> tuple[int, str | None, bytes]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.getheader("Content-Type"), response.read()


@pytest.mark.parametrize("tile", [(0, 0, 0), (5, 17, 30), (40, 1 << 39, (1 << 40) - 1)])
def test_the_server_sends_tiles_as_they_are_rendered(
    connection: HTTPConnection, tile: tuple[int, int, int]
) -> None:
    status, content_type, content = get(connection, "/tiles/{}/{}/{}.png".format(*tile))
    assert (status, content_type) == (200, "image/png")
    assert np.array_equal(pixels_of(content), pixels_of(mandelbrot_tiles.render_png(*tile)))


@pytest.mark.parametrize(
    "path",
    [
        "/tiles/0/1/0.png",
        "/tiles/3/0/8.png",
        "/tiles/41/0/0.png",
        "/tiles/-1/0/0.png",
        "/tiles/1/01/0.png",
        "/tiles/1/x/0.png",
        "/tiles/1/0/0.jpg",
        "/tiles/1/0.5/0.png",
        f"/tiles/1/{'1' * 5000}/0.png",
        "/no-such-page",
        "/../mandelbrot_server.py",
        "/%2e%2e/mandelbrot_server.py",
    ],
)
def test_what_is_no_tile_is_not_found(connection: HTTPConnection, path: str) -> None:
    assert get(connection, path)[0] == 404


def test_statistics_count_tiles(connection: HTTPConnection) -> None:
    get(connection, "/tiles/1/0/0.png")
    status, content_type, content = get(connection, "/statistics")
    assert (status, content_type) == (200, "application/json")
    statistics = json.loads(content)
    assert list(statistics) == ["workers", "queued", "running", "completed", "cancelled"]
    assert statistics["workers"] == 2
    assert statistics["completed"] >= 1


def test_the_page_comes_with_its_script(connection: HTTPConnection) -> None:
    status, content_type, content = get(connection, "/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    assert b'<script src="map.js">' in content
    assert get(connection, "/map.js")[0] == 200


async def test_tiles_whose_client_has_gone_are_withdrawn(nursery: trio.Nursery) -> None:
    stop = trio.Event()
    async with dromon.open_pool(workers=1) as pool:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        await nursery.start(mandelbrot_server.serve_map, pool, listener, stop)
        async with held_worker(pool):
            client = await trio.open_tcp_stream(*address)
            await client.send_all(b"GET /tiles/0/0/0.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await wait_all_tasks_blocked()
            assert pool.statistics().queued == 1
            await client.aclose()
            await wait_all_tasks_blocked()
        await pool.run_sync(int)
        statistics = pool.statistics()
        assert (statistics.cancelled, statistics.queued) == (1, 0)
        stop.set()


def test_an_interrupted_server_withdraws_what_is_queued_and_ends_quietly() -> None:
    with started_server(SERVER, "--workers", "1") as url:
        address = url.removeprefix("http://").split(":")
        clients = [HTTPConnection(*address, timeout=60) for _ in range(20)]
        for number, client in enumerate(clients):
            # In a bud of the heart, where no point escapes: they take many seconds together.
            client.request("GET", f"/tiles/40/{635985013296 + number}/447377537446.png")
        idle = HTTPConnection(*address, timeout=60)
        while json.loads(get(idle, "/statistics")[2])["queued"] == 0:
            pass
    for client in (*clients, idle):
        client.close()


def test_a_server_that_cannot_have_its_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run_program(SERVER, "--port", port, status=1)
    assert result.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("arguments", [("--port", "65536"), ("--workers", "0")])
def test_the_server_refuses_numbers_that_make_no_sense(arguments: tuple[str, str]) -> None:
    result = run_program(SERVER, *arguments, status=2)
    assert f"error: argument {arguments[0]}: " in result.stderr
