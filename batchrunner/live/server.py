"""The live page's server: three files, the facts as server-sent events, clips, metrics, and words to the run."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from importlib import resources
from typing import Any, BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ..core.hosts import is_loopback_host
from ..engine.clock import Clock, SystemClock
from ..exits import UsageError
from ..ledger.address import Address
from ..ledger.errors import LedgerUnusable
from ..remote.client import NoRun, ask
from ..remote.protocol import BadRequest, Request, parse
from .guard import add_headers, check_token, guard
from .looker import LAST_PAGE, Looker
from .stills import Stills, path_of

EVERY = 1.0
"""Seconds between two looks into the ledger, while somebody watches."""

MAX_WATCHERS = 16
"""Pages that are kept up to date at once."""

QUIET = 15.0
"""Seconds after which a watcher hears that we are still here."""

PATIENCE = 30.0
"""Seconds for a watcher to take what it is sent."""

MAX_BODY = 16 * 1024

STATIC = {
    "/": ("index.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""path -> (file of this package, media type)."""


class Feed:
    """The newest snapshot, for any number of watchers; looks only while there are any."""

    def __init__(self, look: Callable[[], Awaitable[dict[str, Any]]], clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._news = asyncio.Condition()
        self._text = ""
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self.watchers = 0
        self.closed = False

    async def watch(self) -> AsyncGenerator[str | None, None]:
        """Each new snapshot as JSON; None where nothing was new for `QUIET` seconds."""
        self.watchers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="feed")
        seen = 0
        try:
            while not self.closed:
                async with self._news:
                    if self._number == seen:
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._news.wait(), QUIET)
                    seen, before = self._number, seen
                if not self.closed:
                    yield self._text if seen != before else None
        finally:
            self.watchers -= 1

    async def _run(self) -> None:
        try:
            while self.watchers and not self.closed:
                text = json.dumps(await self._look(), separators=(",", ":"))
                if text != self._text:
                    await self._publish(text)
                await self._clock.sleep(EVERY)
        finally:
            self._task = None

    async def _publish(self, text: str) -> None:
        async with self._news:
            self._text = text
            self._number += 1
            self._news.notify_all()

    async def close(self) -> None:
        """Let every watcher go."""
        self.closed = True
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task])
        async with self._news:
            self._news.notify_all()


class _Clip(web.FileResponse):
    """A file that is open already: nobody can put another one in its place between our look and the answer."""

    def __init__(self, file: BinaryIO, path: str, kind: str) -> None:
        super().__init__(path, headers={"Content-Type": kind, "Content-Security-Policy": "default-src 'none'; sandbox"})
        self._file = file

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            return await super().prepare(request)
        finally:
            self._file.close()


class LiveServer:
    """Made for one ledger, started once."""

    def __init__(
        self,
        ledger: Address,
        *,
        batch: str | None = None,
        token: str | None = None,
        words: str = "",
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            ledger: its path; it need not be there yet.
            batch: show only this one.
            token: who knows it may pause, continue, limit and cancel; None for a page that changes nothing.
            words: what a command line needs in order to mean this ledger, such as ` --db nights.db`.
            clock: the clock that looks are spaced by.
        """
        self._ledger = ledger
        self._looker = Looker(ledger, batch)
        self._stills = Stills(self._looker)
        self._token = token
        self._words = words
        self._feed = Feed(self._looker.snapshot, clock or SystemClock())
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the address of the page. Port 0: a free one.

        Raises:
            UsageError: the host is not this machine alone, or the port is taken.
        """
        if not is_loopback_host(host):
            raise UsageError(f"the live page is for this machine only: --host takes a loopback address, not {host!r}")
        hosts: set[str] = set()
        app = web.Application(client_max_size=MAX_BODY, middlewares=[guard(hosts)])
        app.on_response_prepare.append(add_headers)
        for path in STATIC:
            app.router.add_get(path, self._static)
        app.router.add_get("/events", self._events)
        app.router.add_get("/clips", self._clips)
        app.router.add_get(r"/clip/{id:[0-9]{1,18}}", self._clip)
        app.router.add_get(r"/still/{id:[0-9]{1,18}}", self._still)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/control", self._control)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=_silence()
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise UsageError(f"can't serve on {host}:{port}: {error.strerror or error}") from None
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        hosts |= {f"{name}:{bound}" for name in ("localhost", "127.0.0.1", "[::1]", shown.lower())}
        hosts |= {host.removesuffix(":80") for host in hosts}
        self.url = f"http://{shown}:{bound}/"
        return self.url

    async def stop(self) -> None:
        """Say goodbye to the watchers, and close."""
        await self._feed.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._stills.close()
        await self._looker.close()

    # --- What is read ------------------------------------------------------------------------------------

    async def _static(self, request: web.Request) -> web.Response:
        name, kind = STATIC[request.path]
        text = (resources.files("batchrunner.live") / "static" / name).read_text("utf-8")
        return web.Response(text=text, content_type=kind)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._feed.watchers >= MAX_WATCHERS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        hello = json.dumps({"ledger": str(self._ledger), "control": self._token is not None, "words": self._words})
        await response.write(f"retry: 2000\nevent: hello\ndata: {hello}\n\n".encode())
        async with aclosing(self._feed.watch()) as snapshots:
            with suppress(OSError, TimeoutError):  # who watched has gone, or takes nothing any more
                await self._tell(response, snapshots)
        return response

    @staticmethod
    async def _tell(response: web.StreamResponse, snapshots: AsyncGenerator[str | None, None]) -> None:
        async for text in snapshots:
            async with asyncio.timeout(PATIENCE):
                await response.write(b": still here\n\n" if text is None else f"data: {text}\n\n".encode())

    async def _clips(self, request: web.Request) -> web.Response:
        page = request.query.get("page", "0")
        if not page.isascii() or not page.isdigit() or int(page) > LAST_PAGE:
            raise web.HTTPBadRequest(text=f"page must be a number from 0 to {LAST_PAGE}\n")
        try:
            return web.json_response(await self._looker.grid(request.query.get("batch") or None, int(page)))
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        try:
            found = await self._looker.output(int(request.match_info["id"]))
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        if found is None:
            raise web.HTTPNotFound(text="there is no such output\n")
        file, kind = found
        return _Clip(file, str(path_of(file)), kind)

    async def _still(self, request: web.Request) -> web.Response:
        """204 where there is none: a page falls back to the clip itself."""
        try:
            still = await self._stills.of(int(request.match_info["id"]))
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        if still is None:
            return web.Response(status=204)
        return web.Response(body=still, content_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        from .metrics import CONTENT_TYPE, Missing, exposition

        try:
            text = exposition(await self._looker.statuses(), await self._looker.workers())
        except Missing as missing:
            raise web.HTTPNotImplemented(text=f"{missing}\n") from None
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    # --- What changes something --------------------------------------------------------------------------

    async def _control(self, request: web.Request) -> web.Response:
        check_token(request, self._token)
        try:
            answer = await asyncio.to_thread(ask, self._ledger, await _asked(request))
        except NoRun as nobody:
            return web.json_response({"ok": False, "error": str(nobody)}, status=409)
        except (UsageError, BadRequest) as refused:
            return web.json_response({"ok": False, "error": str(refused)}, status=400)
        return web.json_response(answer)


def _silence() -> logging.Logger:
    """aiohttp tells of every browser that hangs up, with a traceback."""
    logger = logging.getLogger("batchrunner.live")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger


async def _asked(request: web.Request) -> Request:
    """The body, which is a request as the run's socket takes it."""
    return parse(await request.read())
