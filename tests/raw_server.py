"""A server of raw sockets that does exactly what a test says: any bytes, any cut, any silence, any reset."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Peer:
    """One connection that a client has made."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[Request]
    received: bytearray = field(default_factory=bytearray)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        self.received += line
        return line

    async def head(self) -> Request | None:
        """Read a request up to its body, which stays on the wire; None where the client closed without one."""
        first = await self._line()
        if not first:
            return None
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := await self._line()) not in {b"\r\n", b""}:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return Request(method, target, headers, b"")

    async def body(self, head: Request) -> Request:
        """Read the body of the request whose head was read."""
        body = await self.reader.readexactly(int(head.headers.get("content-length", "0")))
        self.received += body
        request = replace(head, body=body)
        self.requests.append(request)
        return request

    async def request(self) -> Request | None:
        """Read one whole request; None where the client closed without one."""
        head = await self.head()
        return None if head is None else await self.body(head)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Read until the client closes."""
        try:
            while data := await self.reader.read(65536):
                self.received += data
        except ConnectionError:
            pass
        finally:
            self.gone.set()

    def reset(self) -> None:
        """Close with a TCP reset."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Listens on a free port of 127.0.0.1 and plays `script` to every connection; closes it afterwards."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.requests: list[Request] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, self.requests)
        self.peers.append(peer)
        try:
            await self.script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            if not writer.is_closing():
                writer.close()

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
        await self._server.wait_closed()


def http(
    status: int,
    body: bytes | dict[str, Any] | list[Any] | str = b"",
    *headers: tuple[str, str],
    length: int | None = None,
    reason: str = "X",
) -> bytes:
    """One HTTP/1.1 answer; `length` lies about the body's."""
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


BOMB = gzip.compress(b'{"id": "task_1", "x": "' + b"a" * (64 << 20) + b'"}', compresslevel=1)
"""Of 64 MiB, a few hundred KiB on the wire: what comes with `Content-Encoding: gzip` and is not to be unpacked."""


def envelope(code: int | None = 20002, message: str = "no", request_id: str | None = "req_1") -> dict[str, Any]:
    """An error body as the provider sends it."""
    error: dict[str, Any] = {"message": message}
    if code is not None:
        error["code"] = code
    if request_id is not None:
        error["request_id"] = request_id
    return {"error": error}


def once(data: bytes, *, then: str = "close") -> Script:
    """Read a request, send `data`, then `close`, `reset` or `wait` for the client to go. For every request."""

    async def script(peer: Peer) -> None:
        if await peer.request() is None:
            peer.gone.set()
            return
        await peer.send(data)
        if then == "reset":
            peer.reset()
        elif then == "wait":
            await peer.until_gone()

    return script


def keep(answer: Callable[[Request], bytes]) -> Script:
    """Answer request after request on a kept connection."""

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(answer(request))
        peer.gone.set()

    return script
