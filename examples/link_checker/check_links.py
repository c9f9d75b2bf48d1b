"""Find the broken links of a web site, by a green thread for each of its pages.

    python check_links.py [--connections N] [--timeout SECONDS] [--workers N] URL

Follows the links of all pages of the site that URL is of, and prints each one that leads nowhere,
with a page that it is on. The exit status is then 1. Links to other sites are left alone.
"""

from __future__ import annotations

import argparse
import http.client
import io
import ssl
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import attrs
import trio

import dromon
from dromon import green

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

MOST = 1 << 20  # bytes of a page that are read
SAFE = "%/?:@!$&'()*+,;=~"  # characters of a URL that mean what they are
LINKS = {"a": "href", "area": "href", "img": "src", "link": "href", "script": "src"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Find the broken links of a web site.")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--connections", metavar="N", type=int, default=20, help="at a time")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=30, help="for a page")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    if urlsplit(args.url).scheme not in ("http", "https"):
        parser.error("argument URL: must begin with http:// or https://")
    if args.connections < 1:
        parser.error("argument --connections: must be 1 at least")
    if not args.timeout > 0:
        parser.error("argument --timeout: must be positive")
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    status = 130
    try:
        status = trio.run(check_links, args.url, args.connections, args.timeout, opening)
    except* KeyboardInterrupt:
        pass
    return status


async def check_links(
    url: str,
    connections: int,
    timeout: float,
    opening: AbstractAsyncContextManager[dromon.Pool],
) -> int:
    web = Web(trio.CapacityLimiter(connections), timeout)
    site = Site(url, web)
    async with opening as pool:
        await pool.run_sync(site.check)
    broken = [(leads_to, link) for leads_to, link in site.links.items() if link.problem]
    for leads_to, link in sorted(broken):
        print(f"{leads_to} on {link.page}: {link.problem}")
    print(f"{len(site.links)} links, {len(broken)} broken", file=sys.stderr)
    return 1 if broken else 0


# ---- On workers: nothing here is async -----------------------------------------------------------


@attrs.define
class Link:
    """A link that is followed."""

    page: str  # that has it, of all such the first that was read
    problem: str | None = None


class Site:
    """The pages of a site, each of which is looked at by a green thread of its own."""

    def __init__(self, start: str, web: Web) -> None:
        self.start = start
        self.web = web
        self.links: dict[str, Link] = {}  # by what they lead to

    def check(self) -> None:
        """Look at all pages."""
        with green.open_scope() as self.scope:
            self.follow(self.start, "the command line")

    def follow(self, url: str, page: str) -> None:
        """Begin to look at what a link leads to, unless that is done or it is of another site."""
        url, _ = urldefrag(url)
        if urlsplit(url)[:2] != urlsplit(self.start)[:2]:
            return
        link = Link(page)
        # One step: another worker may be at this very place.
        if self.links.setdefault(url, link) is link:
            self.scope.spawn(self._look_at, url, link)

    def _look_at(self, url: str, link: Link) -> None:
        try:
            # Here it parks, and its worker looks at other pages meanwhile.
            answer = dromon.from_thread.run(self.web.get, url)
        except (OSError, ValueError, http.client.HTTPException) as error:
            link.problem = str(error) or type(error).__name__
        except (trio.BrokenResourceError, trio.TooSlowError):
            link.problem = "no answer"
        else:
            if answer.status >= 400:
                link.problem = f"status {answer.status}"
            elif answer.status >= 300 and answer.location is not None:
                self.follow(urljoin(url, answer.location), url)
            else:
                LinkReader(self, url).feed(answer.html)


class LinkReader(HTMLParser):
    """Follows links while it reads the page: a callback of the standard library's parser."""

    def __init__(self, site: Site, url: str) -> None:
        super().__init__()
        self.site = site
        self.url = url

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get(LINKS.get(tag, ""))
        if link:
            self.site.follow(urljoin(self.url, link), self.url)


# ---- In trio -------------------------------------------------------------------------------------


@attrs.frozen
class Answer:
    """What a server has answered."""

    status: int
    location: str | None
    html: str


@attrs.frozen
class Web:
    """Asks servers, by so many connections at a time."""

    connections: trio.CapacityLimiter
    timeout: float

    async def get(self, url: str) -> Answer:
        """Raises: OSError, ValueError, HTTPException, BrokenResourceError, TooSlowError."""
        async with self.connections:
            with trio.fail_after(self.timeout):
                return parse_answer(await self._exchange(url))

    async def _exchange(self, url: str) -> bytes:
        parts = urlsplit(url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        tcp = await trio.open_tcp_stream(parts.hostname, parts.port or (443 if secure else 80))
        stream: trio.abc.Stream = tcp
        if secure:
            stream = trio.SSLStream(
                tcp,
                ssl.create_default_context(),
                server_hostname=parts.hostname,
                https_compatible=True,
            )
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=SAFE)
        async with stream:
            request = f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
            await stream.send_all(request.encode())
            answer = bytearray()
            async for part in stream:
                answer += part
                if len(answer) >= MOST:
                    break
        return bytes(answer)


def parse_answer(answer: bytes) -> Answer:
    received = io.BytesIO(answer)
    version, status, *_ = *received.readline().split(), b"", b""
    if not version.startswith(b"HTTP/1."):
        raise http.client.BadStatusLine("no answer in HTTP")
    headers = http.client.parse_headers(received)
    is_html = headers.get_content_type() == "text/html"
    return Answer(
        status=int(status),
        location=headers["Location"],
        html=received.read().decode(errors="replace") if is_html else "",
    )


if __name__ == "__main__":
    sys.exit(main())
