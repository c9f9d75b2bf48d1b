"""The page of examples/mandelbrot in a real browser, with real input."""

from __future__ import annotations

import re
import shutil
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from programs import EXAMPLES, held_worker, load_example, started_server
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.wait import WebDriverWait

import dromon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium or its chromedriver is not installed"
)

OPTIONS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1280,800",
    "force-device-scale-factor=1",
)

# The middle of the heart is black: this is how many pixels it is right of the middle of the map.
HEART = "SIDE * 2 ** view.zoom * (0.75 - 0.1) / 8"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(DRIVER))
    yield browser
    browser.quit()


class Page:
    """The page in the browser, as one sees and handles it."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        browser.get("about:blank")  # where no earlier page asks a server that has ended
        browser.get_log("browser")
        browser.get(url)

    def evaluate(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def wait_until(self, holds: Callable[[], object]) -> None:
        WebDriverWait(self.browser, 60, poll_frequency=0.05).until(lambda _: holds())

    def wait_until_drawn(self) -> None:
        """Until two frames after the last input no tile of what is in sight is missing."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )
        self.wait_until(lambda: self.text("view").endswith(", 0 tiles to come"))

    def text(self, element: str) -> str:
        return self.browser.find_element("id", element).text

    def tiles_drawn(self) -> set[str]:
        return set(self.evaluate("[...tiles].filter(([, tile]) => tile.image).map(([key]) => key)"))

    def tiles_rendered(self) -> int:
        """How many the server says it has rendered; 0 until it has said anything."""
        count = re.search(r"(\d+) tiles rendered", self.text("server"))
        return 0 if count is None else int(count[1])

    def pixel(self, right: float, down: float = 0) -> tuple[int, ...]:
        """The red, green, blue and alpha of a point, seen from the middle of the canvas."""
        x, y = f"canvas.width / 2 + {right}", f"canvas.height / 2 + {down}"
        return tuple(self.evaluate(f"[...context.getImageData({x}, {y}, 1, 1).data]"))

    def colours(self) -> int:
        """How many colours the canvas has. Where nothing is drawn it has none."""
        return self.evaluate(
            "new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height)"
            ".data.buffer)).size"
        )

    def fully_drawn(self) -> bool:
        return self.evaluate(
            "context.getImageData(0, 0, canvas.width, canvas.height)"
            ".data.every((value, index) => index % 4 !== 3 || value === 255)"
        )

    def drag(self, right: int, down: int) -> None:
        canvas = self.browser.find_element("id", "map")
        actions = ActionChains(self.browser).move_to_element(canvas).click_and_hold()
        actions.move_by_offset(right, down).release().perform()

    def turn_wheel(self, right: int, down: int, by: int) -> None:
        canvas = self.browser.find_element("id", "map")
        origin = ScrollOrigin.from_element(canvas, right, down)
        ActionChains(self.browser).scroll_from_origin(origin, 0, by).perform()

    def errors(self) -> list[Any]:
        """What the console says, but for warnings (that a test reads the canvas often)."""
        return [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


BLACK = (0, 0, 0, 255)


def test_the_page_shows_the_map_and_more_of_it_when_it_is_dragged_and_zoomed(
    browser: Chrome,
) -> None:
    with started_server(EXAMPLES / "mandelbrot" / "mandelbrot_server.py") as url:
        page = Page(browser, url)
        page.wait_until_drawn()
        first = page.tiles_drawn()
        heart = round(page.evaluate(HEART))
        assert first
        assert page.fully_drawn()
        assert page.pixel(heart) == BLACK
        assert page.pixel(-600, -300) != BLACK

        page.drag(-250, 100)
        page.wait_until_drawn()
        second = page.tiles_drawn()
        assert second > first
        assert page.fully_drawn()
        assert page.pixel(heart - 250, 100) == BLACK
        assert page.pixel(heart) != BLACK

        # Into the dent of the heart, which is rich in detail at any zoom.
        dent = page.evaluate("SIDE * 2 ** view.zoom * (0.75 + 0.25) / 8")
        page.turn_wheel(round(dent) - 250, 100, by=-1000)
        page.wait_until_drawn()
        assert "zoom 6.9, " in page.text("view")
        third = page.tiles_drawn() - second
        assert {tile.partition("/")[0] for tile in third} == {"7"}
        assert page.fully_drawn()
        assert page.colours() > 1000

        # The server may have rendered more, as the page's icon, and what was aborted too late.
        page.wait_until(lambda: page.tiles_rendered() >= len(second | third))
        assert page.errors() == []


async def test_tiles_that_go_out_of_sight_before_they_are_rendered_are_withdrawn(
    browser: Chrome,
) -> None:
    stop = trio.Event()
    server = load_example("mandelbrot/mandelbrot_server.py")
    in_thread = trio.to_thread.run_sync
    async with dromon.open_pool(workers=1) as pool, trio.open_nursery() as nursery:
        listener = socket.create_server(("127.0.0.1", 0))
        url = "http://{}:{}".format(*listener.getsockname())
        await nursery.start(server.serve_map, pool, listener, stop)
        async with held_worker(pool):
            page = await in_thread(Page, browser, url)
            await in_thread(page.wait_until, lambda: pool.statistics().queued > 1)
            before = await in_thread(page.evaluate, "[...tiles.keys()]")
            await in_thread(partial(page.turn_wheel, 0, 0, by=-2000))
            # With the frame after the last turn, which a busy machine draws late.
            await in_thread(
                page.wait_until, lambda: not {*before} & {*page.evaluate("[...tiles.keys()]")}
            )
        await in_thread(page.wait_until_drawn)
        assert await in_thread(page.fully_drawn)
        assert await in_thread(page.errors) == []
        statistics = pool.statistics()
        assert statistics.cancelled > 0
        stop.set()
