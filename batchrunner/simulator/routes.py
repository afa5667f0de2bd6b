"""The simulator's HTTP: routes, envelopes, and connections that break on demand."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from ..core.text import visible
from . import api
from .dialects import FAL, REAPI, REPLICATE, Dialect
from .faults import FAULTS, parse_fault
from .media import CONTENT_TYPES, MediaShelf, byte_range
from .store import Task
from .world import World

LABEL_HEADER = "X-Batchrunner-Job"
"""Request header in which the runner tells the simulator, and nobody else, which job a POST is for."""

_BEFORE = ("error500_before", "html", "unauthorized", "throttle", "reject", "no_credit")
_AFTER = ("drop_after", "error500_after", "html_after", "no_id", "redirect", "slow")
_POLL = ("poll_drop", "poll500", "poll_html", "poll_throttle", "poll404")
_MEDIA = ("media500", "truncated_file", "truncated")

_PAGE = (
    "<!DOCTYPE html><html><head><title>{status}</title></head><body><center><h1>{status} {word}</h1></center><hr>"
    "<center>simulated proxy</center></body></html>\n"
)

DIALECT = web.RequestKey("dialect", Dialect)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Reset(Exception):
    """Answer by resetting the connection."""


def _json(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(payload), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def _page(status: int) -> web.Response:
    word = {200: "OK", 502: "Bad Gateway"}.get(status, "Error")
    return web.Response(text=_PAGE.format(status=status, word=word), status=status, content_type="text/html")


def _reset(request: web.Request) -> web.Response:
    """Close the connection with RST, so that the client sees a reset and not an orderly end."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()  # goes nowhere


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine and cannot mean another."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Routes:
    """Every route of one running simulator.

    Attributes:
        url: where it listens, without a path; output URLs begin with it.
    """

    def __init__(self, world: World, shelf: MediaShelf) -> None:
        self.url = ""
        self._world = world
        self._store = world.store
        self._faults = world.faults
        self._shelf = shelf

    def table(self) -> list[web.RouteDef]:
        """The routes, for `Application.add_routes`."""
        return [
            web.get("/api/v1/tasks/{id}", self._guard(self._poll), allow_head=False),
            web.post("/api/v1/{endpoint:(?:videos|images|audio)/generations}", self._guard(self._submit)),
            web.get("/api/v1/balance", self._guard(self._balance), allow_head=False),
            web.get("/media/tasks/{id}/{name}", self._guard(self._media)),
            web.post("/v1/{endpoint:models/[^/]+/[^/]+/predictions}", self._guard(self._submit, REPLICATE)),
            web.get("/v1/predictions/{id}", self._guard(self._prediction, REPLICATE), allow_head=False),
            web.get("/_simulator/account", self._guard(self._show_account)),
            web.get("/_simulator/faults", self._guard(self._show_faults)),
            web.post("/_simulator/faults", self._guard(self._change_faults)),
            web.post("/v1/predictions/{id}/cancel", self._guard(self._cancel_prediction, REPLICATE)),
            web.put("/{owner}/{app}/requests/{id}/cancel", self._guard(self._cancel_request, FAL)),
            web.get("/{owner}/{app}/requests/{id}/status", self._guard(self._status, FAL), allow_head=False),
            web.get("/{owner}/{app}/requests/{id}", self._guard(self._result, FAL), allow_head=False),
            web.post("/{endpoint:(?!api/|v1/|_)[^/]+/.+}", self._guard(self._submit_fal, FAL)),
            web.route("*", "/{rest:.*}", self._guard(self._nothing)),
        ]

    def _guard(self, handler: Handler, dialect: Dialect = REAPI) -> Handler:
        """Turn what the handlers raise into answers, in the service's words."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            request[DIALECT] = dialect
            try:
                return await handler(request)
            except api.ApiError as error:
                self._store.count(error.counter)
                body = dialect.error(error, self._world.request_id())
                headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
                return _json(body, error.status, headers)
            except _Reset:
                return _reset(request)

        return guarded

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        raise api.ApiError(404, 40002, f"No such endpoint: {request.method} {request.path[:100]}")

    # --- The service -------------------------------------------------------------------------------------

    async def _submit_fal(self, request: web.Request) -> web.StreamResponse:
        if self._world.models.at("fal", "/" + request.match_info["endpoint"]) is None:
            return await self._nothing(request)
        return await self._submit(request)

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise api.invalid("Request body is too large", code=20002, status=413) from None
        post = self._store.count("posts")
        if self._faults.fires("drop_before", post):
            raise _Reset
        dialect = request[DIALECT]
        user = self._world.enter(request.headers.get("Authorization"), submit=True, scheme=dialect.scheme)
        fault = self._faults.first(_BEFORE, post)
        if fault is not None:
            return self._fail_before(fault, self._faults.value(fault))
        endpoint = "/" + request.match_info["endpoint"]
        body = dialect.request(body, endpoint, self._world.models)
        label = visible(request.headers.get(LABEL_HEADER, ""), 500)
        task = self._world.submit(user, endpoint, body, label, self.url)
        told = {"id": task.id, "model": task.model, "status": "processing", "created_at": int(task.created_at)}
        status, answer = dialect.accepted(told, endpoint, self.url)
        fault = self._faults.first(_AFTER, task.number)
        if fault is not None:
            return await self._fail_after(fault, self._faults.value(fault), request, status, answer)
        return _json(answer, status)

    @staticmethod
    def _fail_before(fault: str, value: float) -> web.StreamResponse:
        match fault:
            case "html":
                return _page(int(value))
            case "unauthorized":
                raise api.unauthorized(10004, "API key has been revoked")
            case "throttle":
                raise api.throttled(value)
            case "reject":
                raise api.invalid("request: rejected by the simulator on demand", status=int(value))
            case "no_credit":
                raise api.no_credit()
            case _:
                raise api.broken(int(value))

    @staticmethod
    async def _fail_after(
        fault: str, value: float, request: web.Request, status: int, answer: dict[str, Any]
    ) -> web.StreamResponse:
        match fault:
            case "slow":
                await asyncio.sleep(value)
                return _json(answer, status)
            case "no_id":
                return _json({key: word for key, word in answer.items() if key != request[DIALECT].id_field})
            case "redirect":
                return web.Response(status=int(value), headers={"Location": request.path_qs})
            case "html_after":
                return _page(int(value))
            case "error500_after":
                raise api.broken(int(value))
            case _:
                raise _Reset

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        found = self._asked_for(request)
        return found if isinstance(found, web.StreamResponse) else _json(self._world.poll(found, self.url))

    async def _prediction(self, request: web.Request) -> web.StreamResponse:
        found = self._asked_for(request)
        if isinstance(found, web.StreamResponse):
            return found
        return _json(REPLICATE.prediction(self._world.poll(found, self.url), self.url))

    async def _status(self, request: web.Request) -> web.StreamResponse:
        found = self._asked_for(request)
        if isinstance(found, web.StreamResponse):
            return found
        told = FAL.status(self._world.poll(found, self.url))
        return _json(told.body, told.status)

    async def _result(self, request: web.Request) -> web.StreamResponse:
        """What the model answered. Faults of polls are those of the status, which is asked for first."""
        user = self._world.enter(request.headers.get("Authorization"), submit=False, scheme=FAL.scheme)
        task = self._store.task(request.match_info["id"]) if request.path.isascii() else None
        if task is None or task.user != user:
            raise api.unknown_task()
        told = FAL.result(self._world.poll(task, self.url), self._world.models[task.model].output)
        return _json(told.body, told.status)

    async def _cancel_prediction(self, request: web.Request) -> web.StreamResponse:
        task, _ = self._cancelled(request)
        return _json(REPLICATE.prediction(self._world.poll(task, self.url), self.url))

    async def _cancel_request(self, request: web.Request) -> web.StreamResponse:
        _, in_time = self._cancelled(request)
        if in_time:
            return _json({"status": "CANCELLATION_REQUESTED"}, 202)
        return _json({"status": "ALREADY_COMPLETED"}, 400)

    def _cancelled(self, request: web.Request) -> tuple[Task, bool]:
        """The task that is to be cancelled, as it is then, and whether it was in time."""
        scheme = request[DIALECT].scheme
        user = self._world.enter(request.headers.get("Authorization"), submit=False, scheme=scheme)
        task = self._store.task(request.match_info["id"]) if request.path.isascii() else None
        if task is None or task.user != user:
            raise api.unknown_task()
        now = self._world.clock()
        in_time = task.status(now) == "processing"
        self._store.cancel(task.number, api.CANCELLED, now)
        return self._store.task(task.id) or task, in_time

    def _asked_for(self, request: web.Request) -> Task | web.StreamResponse:
        """The task that is polled, or what its poll meets instead."""
        scheme = request[DIALECT].scheme
        user = self._world.enter(request.headers.get("Authorization"), submit=False, scheme=scheme)
        task_id = request.match_info["id"]
        task = self._store.polled(task_id, user) if task_id.isascii() else None
        if task is None:
            self._store.count("lost_polls")
            raise api.unknown_task()
        fault = self._faults.first(_POLL, task.number, task.polls)
        if fault is not None:
            return self._fail_poll(fault, self._faults.value(fault))
        return task

    @staticmethod
    def _fail_poll(fault: str, value: float) -> web.StreamResponse:
        match fault:
            case "poll_html":
                return _page(int(value))
            case "poll_throttle":
                raise api.throttled(value)
            case "poll404":
                raise api.unknown_task()
            case "poll500":
                raise api.broken(int(value))
            case _:
                raise _Reset

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        user = self._world.enter(request.headers.get("Authorization"), submit=False)
        return _json({"balance": self._store.balance(user)})

    # --- Media -------------------------------------------------------------------------------------------

    async def _media(self, request: web.Request) -> web.StreamResponse:
        task = self._store.task(request.match_info["id"]) if request.path.isascii() else None
        if task is None or not self._world.has_output(task, request.path):
            raise api.ApiError(404, 40003, "No such file")
        expires, signature = (request.query.get(name, "") for name in ("expires", "signature"))
        if not self._world.may_fetch(request.path, expires, signature):
            status = self._world.settings.expired_status
            return web.Response(text="AccessDenied: the URL has expired or is not signed\n", status=status)
        file = await self._shelf.file(task, request.match_info["name"], self._world.given(task))
        kind = CONTENT_TYPES[request.path.rpartition(".")[2]]  # of the name, whatever is in the file
        headers = {"ETag": file.etag, "Accept-Ranges": "bytes", "Content-Type": kind}
        if request.headers.get("If-None-Match") == file.etag:
            return web.Response(status=304, headers=headers)
        fault = None
        if request.method == "GET":
            fault = self._faults.first(_MEDIA, task.number, self._store.downloaded(task.number))
        if fault is not None and fault != "truncated":
            return self._fail_media(fault, file.data, headers)
        asked = request.headers.get("Range") if request.headers.get("If-Range", file.etag) == file.etag else None
        try:
            part = byte_range(asked, len(file.data))
        except ValueError:
            return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{len(file.data)}"})
        status, data = 200, file.data
        if part is not None:
            status, data = 206, file.data[part[0] : part[1]]
            headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{len(file.data)}"
        if fault == "truncated":
            return await self._break_off(request, status, data, headers)
        return web.Response(body=data, status=status, headers=headers)

    def _fail_media(self, fault: str, data: bytes, headers: dict[str, str]) -> web.StreamResponse:
        if fault == "media500":
            return web.Response(status=int(self._faults.value(fault)), text="Service Unavailable\n")
        return web.Response(body=data[: len(data) * 2 // 3], headers=headers | {"ETag": '"cut"'})

    @staticmethod
    async def _break_off(request: web.Request, status: int, data: bytes, headers: dict[str, str]) -> web.StreamResponse:
        """Promise all of `data`, send half of it, and end the connection in an orderly way."""
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    # --- The simulator's own -----------------------------------------------------------------------------

    @staticmethod
    def _own(request: web.Request) -> None:
        """Refuse a browser page that was tricked into asking (DNS rebinding): the Host must be loopback too."""
        if not is_loopback(request.url.host or ""):
            raise api.ApiError(403, 40301, "Only from this machine")

    async def _show_account(self, request: web.Request) -> web.StreamResponse:
        self._own(request)
        return _json(self._world.account())

    async def _show_faults(self, request: web.Request) -> web.StreamResponse:
        self._own(request)
        known = {name: kind.text + (f" (:{kind.unit})" if kind.unit else "") for name, kind in FAULTS.items()}
        return _json({"faults": self._faults.describe(), "known": known})

    async def _change_faults(self, request: web.Request) -> web.StreamResponse:
        """`{"faults": ["moderate=next:3", ...]}`: these and no others from now on."""
        self._own(request)
        try:
            wanted = orjson.loads(await request.read())["faults"]
            faults = tuple(parse_fault(str(text)) for text in wanted)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise api.invalid('write {"faults": ["NAME=CHANCE", ...]}', code=20002) from error
        except ValueError as error:
            raise api.invalid(str(error)) from error
        self._faults.replace(faults)
        return _json({"faults": self._faults.describe()})
