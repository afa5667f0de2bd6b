"""A provider over HTTP: everything that is the same whichever service it is. How a service words its calls and answers
stands in a module of its own beside this one.

A POST costs money and often can't be looked up afterwards, so for each the one question is: may it have been sent?
`TraceConfig.on_request_headers_sent` is awaited before the first byte, and an exception raised in it aborts the
request with nothing on the wire (a contract test holds both). The intent is committed there; so a POST whose hook
did not return was certainly not sent, and every other one is ambiguous unless a real answer proves more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from ..catalogue import Model, models
from ..core.events import Ambiguous, NotSent, PollAnswer, PollFailed, SubmitAnswer
from ..core.job import Problem
from .base import DEFAULT_USER_AGENT, BalanceAnswer, BeforeSend, CancelAnswer, Unavailable
from .replies import Reply, usable_task_id
from .wire import MAX_ANSWER, Base, Key, explain, parse_base, read_into

TOO_LONG = f"longer than {MAX_ANSWER} bytes"


@dataclass(frozen=True)
class HttpSettings:
    """Where and how to call.

    Attributes:
        base_url: with or without `PREFIX`; https, unless the host is loopback.
        key: the API key; a `str` is wrapped so that it can't be printed.
        user_agent: the User-Agent header (a service may refuse unknown ones).
        submit_timeout: seconds from the first byte of a POST to the last of its answer, >= 120 (FAILURES.md)
            unless the host is loopback.
        connect_timeout: seconds to get a connection: waiting for a free one, DNS, TCP and TLS.
        poll_timeout: seconds for a whole poll or balance call, connection included.
        max_posts: most POSTs at once: what a crash can leave in doubt.
        max_polls: most polls at once (64 is where throughput is best, PERFORMANCE.md).

    Raises:
        ValueError: a value can't be used; the message says how to mend it, without the key.
    """

    PREFIX: ClassVar[str] = ""
    """The API's path, such as `/api/v1`."""

    base_url: str = ""
    key: Key | str = field(default="", repr=False)
    user_agent: str = DEFAULT_USER_AGENT
    submit_timeout: float = 180.0
    connect_timeout: float = 30.0
    poll_timeout: float = 30.0
    max_posts: int = 64
    max_polls: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.key, str):
            object.__setattr__(self, "key", Key(self.key))
        base = self.base
        if not self.user_agent.isascii() or not self.user_agent.isprintable() or not self.user_agent.strip():
            raise ValueError("the User-Agent must be one line of printable ASCII")
        if self.submit_timeout < 120 and not base.loopback:
            raise ValueError("submit_timeout must be at least 120 seconds: a shorter one makes paid doubts")
        if min(self.submit_timeout, self.connect_timeout, self.poll_timeout, self.max_posts, self.max_polls) <= 0:
            raise ValueError("timeouts and limits must be more than 0")

    @property
    def base(self) -> Base:
        """Where the API lives. Raises ValueError as the class does."""
        return parse_base(self.base_url, self.PREFIX)

    @property
    def secret(self) -> Key:
        """The key, wrapped."""
        return self.key if isinstance(self.key, Key) else Key(self.key)


class _Unsent(Exception):
    """Raised in the hook: the connection is no good any more, and nothing was written to it."""


_CONNECTION: ContextVar[Connection | None] = ContextVar("batchrunner_connection", default=None)


class _SubmitConnector(aiohttp.TCPConnector):
    """A connector that tells the hook which connection its request holds."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _CONNECTION.set(connection)
        return connection


@dataclass(slots=True)
class _Post:
    """What became of one POST."""

    before_send: BeforeSend
    allowed: float
    """Seconds from the first byte to the end of the answer."""
    deadline: asyncio.Timeout | None = None
    open: bool = False
    """The hook has returned: bytes may be on the wire."""
    refused: BaseException | None = None
    """What was raised in the hook while nothing had been sent."""
    reply: Reply | None = None

    async def release(self) -> None:
        """Let the request go: the body of the hook."""
        if self.open:
            raise _Unsent("a second send of one POST")
        await self.before_send()
        # Between connecting and the commit the server may have hung up or spoken unasked; an answer that came
        # before the question is none. Nothing is written yet, so this is still a proven "not sent".
        connection = _CONNECTION.get()
        protocol = connection.protocol if connection is not None else None
        if protocol is None or protocol.should_close or not protocol.is_connected():
            raise _Unsent("the server closed the connection, or spoke, before the request was sent")
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time() + self.allowed)
        self.open = True


async def _hook(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    post: _Post = context.trace_request_ctx
    try:
        await post.release()
    except BaseException as error:
        if not post.open:
            post.refused = error
        raise
    finally:
        _CONNECTION.set(None)


def _reply(response: aiohttp.ClientResponse, body: bytes, request_id: str, cut: str = "") -> Reply:
    headers = response.headers
    return Reply(
        response.status,
        body,
        ", ".join(headers.getall("Content-Encoding", ())),
        headers.get("Retry-After"),
        headers.get("Date"),
        headers.get(request_id),
        cut,
    )


class HttpProvider:
    """One account at a service over HTTP: `Provider`, but for the words. Use it on one event loop, and close it.

    A cancelled `submit` raises CancelledError as long as nothing can have been sent. After that it returns its
    verdict instead (the id if it was read, else `Ambiguous`): what may have been paid for is never lost in an
    exception. The caller sees the request to cancel in `asyncio.current_task().cancelling()`.
    """

    name: str = ""
    scheme: ClassVar[str] = "Bearer"
    """The word before the key in the Authorization header."""
    request_id_header: ClassVar[str] = "X-Request-Id"
    """Header in which the service names its id of a call."""

    def __init__(
        self,
        settings: HttpSettings,
        clock: Callable[[], float] | None = None,
        catalogue: Mapping[str, Model] | None = None,
    ) -> None:
        """Args:
        settings: see there.
        clock: unix seconds, for a Retry-After date in an answer without a Date of its own.
        catalogue: the models there are, for their endpoints; None for the shipped ones.
        """
        self._models = models() if catalogue is None else catalogue
        self._settings = settings
        self._key = settings.secret
        self._base: Base = settings.base
        self.origin = self._base.origin
        self._clock = clock
        self._submits: aiohttp.ClientSession | None = None
        self._polls: aiohttp.ClientSession | None = None

    @property
    def loopback(self) -> bool:
        """See `Provider.loopback`."""
        return self._base.loopback

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base.url!r})"

    # --- What a service words its own way ----------------------------------------------------------------

    def _body(self, model: Model, request: Mapping[str, Any]) -> bytes:
        """The body of a POST. Raises ValueError, TypeError: the request is not JSON."""
        raise NotImplementedError

    def _marks(self, token: str) -> Mapping[str, str]:
        """Headers that carry the token of a submission, where the service has a lookup; see `Traceable`."""
        del token
        return {}

    def _submitted(self, reply: Reply) -> SubmitAnswer:
        """What the answer to a POST proves; see `replies.submit_verdict`."""
        raise NotImplementedError

    async def _task(self, task_id: str, model: Model | None) -> PollAnswer:
        """`poll`, of a usable id."""
        raise NotImplementedError

    async def _cancel(self, task_id: str, model: Model | None) -> CancelAnswer:
        """`cancel`, of a usable id."""
        del task_id, model
        return Unavailable(Problem(f"{self.name} has no way to cancel a task", "no_cancel_call"))

    async def balance(self) -> BalanceAnswer:
        """See `Provider.balance`."""
        return Unavailable(Problem(f"{self.name} has no call that tells the balance", "no_balance_call"))

    # --- Submitting --------------------------------------------------------------------------------------

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = "", token: str = ""
    ) -> SubmitAnswer:
        """See `Provider.submit` and `Traceable.submit`.

        Raises:
            BaseException: what `before_send` raised, unchanged; CancelledError where nothing was sent.
            ValueError, TypeError: `request` is not JSON.
        """
        known = self._models.get(model)
        if known is None or known.provider != self.name:
            return NotSent(Problem(f"no endpoint is known for the model {model!r}", "unknown_model"))
        post = _Post(before_send, self._settings.submit_timeout)
        failure = await self._post(known.endpoint, self._body(known, request), post, label, token)
        return self._verdict(post, failure)

    def _verdict(self, post: _Post, failure: BaseException | None) -> SubmitAnswer:
        if isinstance(post.refused, _Unsent):
            return NotSent(Problem(str(post.refused), "connection_lost"))
        if post.refused is not None:
            raise post.refused
        if not post.open:
            if failure is not None and not isinstance(failure, Exception):
                raise failure
            return NotSent(explain(failure) if failure is not None else Problem("not sent", "error"))
        if post.reply is not None:
            return self._submitted(post.reply)
        return Ambiguous(explain(failure) if failure is not None else Problem("no answer", "error"))

    async def _post(self, endpoint: str, body: bytes, post: _Post, label: str, token: str = "") -> BaseException | None:
        """Send once. Returns what went wrong instead of raising it, so that no verdict hangs on an exception.

        Only the end of the process (KeyboardInterrupt, SystemExit) is let through: the next start finds the
        intent and lists the job as unconfirmed.
        """
        headers = {"Content-Type": "application/json", **(self._marks(token) if token else {})}
        if label and self._base.loopback and label.isascii() and label.isprintable():
            headers["X-Batchrunner-Job"] = label
        read = bytearray()
        response: aiohttp.ClientResponse | None = None
        try:
            async with (
                asyncio.timeout(None) as post.deadline,
                self._submit_session().post(
                    URL(self._base.url + endpoint, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=post,
                ) as response,
            ):
                whole = await read_into(response.content, read)
                post.reply = _reply(
                    response, bytes(read), self.request_id_header, "" if whole else f"longer than {MAX_ANSWER} bytes"
                )
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the verdict is ours to give, whatever was raised
            if response is not None and post.reply is None:
                post.reply = _reply(response, bytes(read), self.request_id_header, explain(error).message)
            return error
        return None

    # --- Free calls --------------------------------------------------------------------------------------

    async def poll(self, task_id: str, model: str = "") -> PollAnswer:
        """See `Provider.poll`."""
        if not usable_task_id(task_id):
            return PollFailed(Problem("this is not a task id", "bad_task_id"))
        return await self._task(task_id, self._models.get(model))

    async def cancel(self, task_id: str, model: str = "") -> CancelAnswer:
        """See `Provider.cancel`."""
        if usable_task_id(task_id):
            return await self._cancel(task_id, self._models.get(model))
        return Unavailable(Problem("this is not a task id", "bad_task_id"))

    async def _get(self, path: str) -> Reply | Problem:
        return await self._call("GET", path)

    async def _call(self, method: str, path: str) -> Reply | Problem:
        """A call without a body that is free and safe to repeat."""
        read = bytearray()
        try:
            async with self._poll_session().request(
                method, URL(self._base.url + path, encoded=True), allow_redirects=False
            ) as response:
                whole = await read_into(response.content, read)
                if not whole:
                    response.close()
                return _reply(
                    response, bytes(read), self.request_id_header, "" if whole else f"longer than {MAX_ANSWER} bytes"
                )
        except Exception as error:  # noqa: BLE001 - aiohttp lets parser errors through that are no ClientError
            return explain(error)

    # --- Connections -------------------------------------------------------------------------------------

    def _now(self) -> float | None:
        return self._clock() if self._clock is not None else None

    def _session(
        self, connector: aiohttp.TCPConnector, timeout: aiohttp.ClientTimeout, traces: list[aiohttp.TraceConfig]
    ) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trace_configs=traces,
            headers={
                "Authorization": f"{self.scheme} {self._key.reveal()}",
                "User-Agent": self._settings.user_agent,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        # aiohttp sends a GET again by itself when a kept connection turns out dead, past our limiter and our
        # count of failures. There is no public switch; a contract test holds this one.
        session._retry_connection = False
        return session

    def _submit_session(self) -> aiohttp.ClientSession:
        """A connection for each POST: a reused one that the server has meanwhile closed breeds false doubts."""
        if self._submits is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_hook)
            # No total: it would also cut off the commit in the hook. `submit` sets a deadline once that is done.
            timeout = aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout)
            connector = _SubmitConnector(force_close=True, limit=self._settings.max_posts)
            self._submits = self._session(connector, timeout, [trace])
        return self._submits

    def _poll_session(self) -> aiohttp.ClientSession:
        if self._polls is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.poll_timeout)
            connector = aiohttp.TCPConnector(limit=self._settings.max_polls, keepalive_timeout=15)
            self._polls = self._session(connector, timeout, [])
        return self._polls

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        for session in (self._submits, self._polls):
            if session is not None:
                await session.close()
        self._submits = self._polls = None
