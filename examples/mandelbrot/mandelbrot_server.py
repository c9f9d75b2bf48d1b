"""Serve a map of the Mandelbrot set over HTTP, whose tiles are rendered on a dromon pool.

    python mandelbrot_server.py [--host NAME] [--port N] [--workers N]

``/`` is a page that shows the map, ``/tiles/{zoom}/{x}/{y}.png`` a tile of it, and ``/statistics``
what the pool has done, as JSON. Ctrl-C (or SIGTERM) stops the server, with status 0.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mandelbrot_tiles import MAX_ZOOM, render_png
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import dromon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from hypercorn.typing import Framework
    from starlette.requests import Request

PAGE = Path(__file__).with_name("page")


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve a map of the Mandelbrot set over HTTP.")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1")
    parser.add_argument("--port", metavar="N", type=int, default=0, help="default: any free one")
    parser.add_argument("--workers", metavar="N", type=int, help="default: one per usable CPU")
    args = parser.parse_args()
    if not 0 <= args.port < 1 << 16:
        parser.error(f"argument --port: must be from 0 to {(1 << 16) - 1}")
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    try:
        listener = socket.create_server((args.host, args.port), family=family)
    except OSError as error:
        print(f"cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
        return 1
    trio.run(serve_until_interrupted, listener, opening)
    return 0


async def serve_until_interrupted(
    listener: socket.socket, opening: AbstractAsyncContextManager[dromon.Pool]
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as watch:
            async with opening as pool, trio.open_nursery() as nursery:
                stop = trio.Event()
                urls = await nursery.start(serve_map, pool, listener, stop)
                print("listening on", *urls, flush=True)
                await anext(signals)
                stop.set()
                watch.start_soon(cancel_on_signal, signals, nursery.cancel_scope)
            watch.cancel_scope.cancel()


async def cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """Do not wait for the connections any longer if the user is in a hurry."""
    async for _ in signals:
        scope.cancel()


async def serve_map(
    pool: dromon.Pool,
    listener: socket.socket,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set; what is under way then has a second more."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    app = cast("Framework", make_app(pool))
    await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)


class TileNumber(IntegerConvertor):
    """A number in a URL, written in one way only and never long."""

    regex = "0|[1-9][0-9]{0,12}"


register_url_convertor("tile_number", TileNumber())


def make_app(pool: dromon.Pool) -> Starlette:
    async def tile(request: Request) -> Response:
        zoom, x, y = (request.path_params[name] for name in ("zoom", "x", "y"))
        if zoom > MAX_ZOOM or max(x, y) >= 1 << zoom:
            return PlainTextResponse("There is no such tile.", status_code=404)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, request, nursery.cancel_scope)
            png = await pool.run_sync(render_png, zoom, x, y)
            nursery.cancel_scope.cancel()
            return Response(
                png, media_type="image/png", headers={"Cache-Control": "public, max-age=3600"}
            )
        return Response(status_code=499)  # Nobody will see it.

    async def statistics(request: Request) -> Response:
        now = pool.statistics()
        counts = {
            name: getattr(now, name) for name in ("queued", "running", "completed", "cancelled")
        }
        return JSONResponse({"workers": len(now.workers), **counts})

    numbers = "{zoom:tile_number}/{x:tile_number}/{y:tile_number}"
    return Starlette(
        routes=[
            Route(f"/tiles/{numbers}.png", tile),
            Route("/statistics", statistics),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
    )


async def cancel_when_gone(request: Request, scope: trio.CancelScope) -> None:
    """Cancel what is done for a request when its client has ended the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
