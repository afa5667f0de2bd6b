"""Bringing one output home: HTTP GET into a `.part` file, hashed, checked and synced. Nobody's key is sent.

There is no resuming with Range: whether the service supports it is not known, clips are small, and a file that is
always fetched in one piece can't be a mixture of two. A download that breaks starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from ..core.job import Problem
from . import media
from .disk import Disk, Steps, at_once
from .folders import UnsafePath, ensure_folder
from .netguard import ForbiddenAddress, ForbiddenUrl, Guard
from .part import Fetched, Part, itself
from .replies import retry_after_seconds
from .wire import explain

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
BATCH = 1 << 20
"""Bytes that are gathered before they are handed to a thread: one hop a megabyte costs little (a small file is
written, checked, synced and placed in one), and the loop never waits for the disk."""

SMALL = 1 << 16
"""Bytes of a file that may wait in memory until the disk has time for it: many wait at once. More is written before."""

_T = TypeVar("_T")


class FetchError(Exception):
    """A download did not succeed; the class says what the caller may do. `problem` is what was seen."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class LinkDead(FetchError):
    """This URL will not give the file (403, 404, 410, or a URL that is refused): ask for a fresh one."""


class Transient(FetchError):
    """The network or the server failed (5xx, 429, a body that broke off): the same URL may be tried again.

    `retry_after` is in seconds where the server said so.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class BadContent(FetchError):
    """All of it came, and it is not a valid file (HTML, a truncated MP4, too large)."""


@dataclass(frozen=True, slots=True)
class _Came:
    """All of a file: what is not written of it yet, and whether the transport vouched for its length."""

    part: Part
    rest: list[bytes]
    whole: bool


class Fetcher:
    """Fetches outputs, many at once. Use it on one event loop, and close it."""

    def __init__(
        self,
        *,
        loopback: bool = False,
        max_bytes: int = 4 << 30,
        stall_timeout: float = 60.0,
        connect_timeout: float = 30.0,
        connections: int = 32,
        user_agent: str = "batchrunner",
        resolver: AbstractResolver | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Args:
        loopback: whether the API is on this machine (`ReApi.loopback`); see `netguard.Guard`.
        max_bytes: largest file that is accepted.
        stall_timeout: seconds without a byte after which a download is given up. There is no total timeout:
            a large file over a thin line is not an error.
        connect_timeout: seconds to get a connection.
        connections: most connections at once.
        user_agent: the User-Agent header.
        resolver: for tests; the system's otherwise.
        clock: unix seconds, for a Retry-After date in an answer without a Date of its own.
        """
        self._guard = Guard(loopback)
        self._max_bytes = max_bytes
        self._stall_timeout = stall_timeout
        self._connect_timeout = connect_timeout
        self._connections = connections
        self._user_agent = user_agent
        self._resolver = resolver
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="fetch")
        self._disk = Disk()

    @overload
    async def fetch(self, url: str, part: Path, *, root: Path, kind: str) -> Fetched: ...

    @overload
    async def fetch(
        self,
        url: str,
        part: Path,
        *,
        root: Path,
        kind: str,
        then: Callable[[Fetched], Steps[_T]],
        apart: bool = False,
        room: AbstractAsyncContextManager[object] | None = None,
    ) -> _T: ...

    async def fetch(
        self,
        url: str,
        part: Path,
        *,
        root: Path,
        kind: str,
        then: Callable[[Fetched], Steps[Any]] = itself,
        apart: bool = False,
        room: AbstractAsyncContextManager[object] | None = None,
    ) -> Any:
        """GET `url` into `part`, which is then complete, of the right kind, and durable but for its name.

        An old `part` is removed; after any exception there is none. Folders are made as needed.

        Args:
            url: from the provider; not trusted.
            part: where to, inside `root`, in the target's own folder.
            root: the batch's output folder.
            kind: `video`, `image` or `audio`.
            then: what is done with the part in the same thread; what it returns is returned, what it raises raised,
                and the part stays then.
            apart: it waits for more than the disk: nobody else is to wait for it.
            room: is entered while bytes come, and left before the disk is waited for.

        Raises:
            LinkDead, Transient, BadContent: see there.
            UnsafePath: `part` is not inside `root`.
            OSError: the disk failed or is full.
        """
        try:
            async with room or contextlib.nullcontext():
                came = await self._receive(url, Part(part, root))
            return await self._finish(came, kind, then, apart)
        except FetchError:
            await self._run(partial(_remove, part, root))
            raise

    async def look(self, url: str) -> None:
        """See whether `url` can be fetched: ask for its first byte, and read no more than the head of the answer.

        Raises:
            LinkDead, Transient: see there; `LinkDead` also where no redirect or address may be followed.
        """
        try:
            where = self._guard.check(url)
            for _ in range(MAX_REDIRECTS + 1):
                with contextlib.closing(await self._get(where, {"Range": "bytes=0-0"})) as response:
                    location = response.headers.get("Location")
                    if response.status in _REDIRECTS and location is not None:
                        where = self._guard.follow(where, location)
                        continue
                    if response.status != 206:
                        self._check_status(response)
                    return
        except ForbiddenUrl as refused:
            raise LinkDead(Problem(str(refused), "forbidden_url")) from None
        raise LinkDead(Problem(f"the URL redirects more than {MAX_REDIRECTS} times", "redirects"))

    async def _get(self, url: URL, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """The caller closes it: not read to its end it is worth nothing. Raises Transient, LinkDead."""
        try:
            return await self._open_session().get(url, allow_redirects=False, headers=headers)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                problem = Problem(f"the output's host {url.host} is not on the public internet", "forbidden_address")
                raise LinkDead(problem) from None
            raise Transient(explain(error)) from None
        except Exception as error:  # noqa: BLE001 - aiohttp lets parser errors through that are no ClientError
            raise Transient(explain(error)) from None

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if status == 200:
            if encoding not in {"", "identity"}:
                raise BadContent(Problem("the file came encoded, which was not asked for", "encoded", 200))
            if response.content_length is not None and response.content_length > self._max_bytes:
                raise BadContent(Problem(f"the file is larger than {self._max_bytes} bytes", "too_large", 200))
            return
        problem = Problem(f"the output's server answered HTTP {status}", "http_error", status)
        if status == 429 or status == 503:
            headers = response.headers
            now = self._clock() if self._clock is not None else None
            raise Transient(problem, retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), now))
        if status in {408, 425} or status >= 500 or status < 300:
            raise Transient(problem)
        # 403, 404, 410; and the rest of 3xx and 4xx: stores say "expired" with 400 and 401 too.
        raise LinkDead(problem)

    async def _receive(self, url: str, file: Part) -> _Came:
        """GET `url`, and redirects, into a part. Raises as `fetch`."""
        try:
            where = self._guard.check(url)
            for _ in range(MAX_REDIRECTS + 1):
                with contextlib.closing(await self._get(where)) as response:
                    location = response.headers.get("Location")
                    if response.status in _REDIRECTS and location is not None:
                        where = self._guard.follow(where, location)
                        continue
                    self._check_status(response)
                    return await self._read(response, file)
        except ForbiddenUrl as refused:
            raise LinkDead(Problem(f"the output can't be fetched: {refused}", "forbidden_url")) from None
        raise LinkDead(Problem(f"the output's URL redirects more than {MAX_REDIRECTS} times", "redirects"))

    async def _read(self, response: aiohttp.ClientResponse, file: Part) -> _Came:
        """The body, each byte once, written a megabyte or so at a time. Raises Transient, BadContent, OSError."""
        length = response.content_length
        whole = length is not None or response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        work: asyncio.Future[None] | None = None
        held: list[bytes] = []
        size = total = 0
        try:
            while chunk := await self._chunk(response, total):
                held.append(chunk)
                size += len(chunk)
                total += len(chunk)
                if size >= BATCH:
                    if work is not None:
                        await work
                    # Written and hashed in a thread while the next batch is on its way.
                    work, held, size = self._run(partial(file.write, held)), [], 0
            if work is not None:
                await work
            if size > SMALL:
                work, held = self._run(partial(file.write, held)), []
                await work
        except BaseException:
            if work is not None:
                work.add_done_callback(_noticed)
            file.discard()
            raise
        return _Came(file, held, whole)

    async def _chunk(self, response: aiohttp.ClientResponse, came: int) -> bytes:
        """What follows the first `came` bytes of a body; nothing at its end. Raises Transient, BadContent."""
        try:
            chunk = await response.content.readany()
        except Exception as error:  # noqa: BLE001 - see _get
            raise Transient(explain(error)) from None
        came += len(chunk)
        if came > self._max_bytes:
            raise BadContent(Problem(f"the file is larger than {self._max_bytes} bytes", "too_large", 200))
        if not chunk and response.content_length is not None and came != response.content_length:
            raise Transient(Problem("the file is shorter than the server said", "cut_off", 200))
        return chunk

    async def _finish(self, came: _Came, kind: str, then: Callable[[Fetched], Steps[_T]], apart: bool) -> _T:
        """Check, sync, and do what the caller does with it. Raises as `fetch`."""
        steps = came.part.finish(came.rest, kind, came.whole, then)
        try:
            return await (self._run(partial(at_once, steps)) if apart else self._disk.run(steps))
        except BaseException as error:
            came.part.discard()
            if isinstance(error, media.Truncated) and not came.whole:
                raise Transient(Problem(str(error), error.code, 200)) from None
            if isinstance(error, media.NotMedia):
                raise BadContent(Problem(str(error), error.code, 200)) from None
            raise

    def _run(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections, socket_factory=self._guard.socket, resolver=self._resolver
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout, sock_read=self._stall_timeout),
                headers={"User-Agent": self._user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=1 << 18,
            )
            # As in `reapi.py`: aiohttp would send a GET whose connection broke a second time by itself, at once and
            # unseen; repeating, and how long to wait before it, is for the caller to say.
            self._session._retry_connection = False
        return self._session

    async def aclose(self) -> None:
        """Close every connection and end the threads."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._pool.shutdown(wait=False)
        self._disk.close()


def _remove(part: Path, root: Path) -> None:
    """Remove what an earlier process left of a download that it died in, where this one comes to nothing."""
    if os.path.lexists(part):
        with contextlib.suppress(OSError, UnsafePath):
            os.unlink(ensure_folder(part.parent, root) / part.name)


def _noticed(done: asyncio.Future[None]) -> None:
    """An error that another one has overtaken counts as seen."""
    if not done.cancelled():
        done.exception()
