"""Facts about aiohttp that carry the promise (FAILURES.md). An upgrade that breaks one must fail here."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest

from tests.raw_server import Peer, RawServer, http, keep, once


async def _drop(peer: Peer) -> None:
    """Answer the first request of a connection and hang up on the second."""
    if len(peer.requests) == 0:
        await peer.request()
        await peer.send(http(200, "ok"))
    await peer.request()


def _trace(hook: object) -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(hook)  # type: ignore[arg-type]
    return trace


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_hook_is_awaited_before_the_first_byte(method: str) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hook(_session: aiohttp.ClientSession, _context: SimpleNamespace, _params: object) -> None:
        entered.set()
        await go_on.wait()

    async def script(peer: Peer) -> None:
        await entered.wait()
        first = asyncio.create_task(peer.reader.read(1))
        done, _ = await asyncio.wait({first}, timeout=0.1)
        assert not done
        go_on.set()
        await first
        await peer.send(http(200, "ok"))

    async with RawServer(script) as server, aiohttp.ClientSession(trace_configs=[_trace(hook)]) as session:
        response = await session.request(method, server.url, data=b"x" if method == "POST" else None)
        assert response.status == 200
        response.close()


@pytest.mark.parametrize("error", [ValueError("x"), OSError(28, "x"), asyncio.CancelledError()])
async def test_an_exception_in_the_hook_aborts_with_nothing_on_the_wire(error: BaseException) -> None:
    async def hook(_session: aiohttp.ClientSession, _context: SimpleNamespace, _params: object) -> None:
        raise error

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with RawServer(script) as server, aiohttp.ClientSession(trace_configs=[_trace(hook)]) as session:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - an OSError comes out as ClientOSError
            await session.post(server.url, data=b"x")
        assert caught.value is error or caught.value.__cause__ is error
        await server.peers[0].gone.wait()
        assert len(server.peers) == 1
        assert bytes(server.peers[0].received) == b""


async def test_a_hook_runs_for_every_send() -> None:
    """So a second send of one POST, should aiohttp ever learn to do that, would be seen and stopped."""
    calls: list[str] = []

    async def hook(_session: aiohttp.ClientSession, _context: SimpleNamespace, params: object) -> None:
        assert isinstance(params, aiohttp.TraceRequestHeadersSentParams)
        calls.append(params.method)

    async with (
        RawServer(keep(lambda _: http(307, "", ("Location", "/again")))) as server,
        aiohttp.ClientSession(trace_configs=[_trace(hook)]) as session,
    ):
        with pytest.raises(aiohttp.TooManyRedirects):
            await session.post(server.url, data=b"x", max_redirects=3)
        assert calls == ["POST"] * 3, "a 307 sends a POST again: allow_redirects=False is not a habit but a need"
        assert [r.body for r in server.requests] == [b"x"] * 3


async def test_a_post_is_not_sent_again_on_a_dead_connection() -> None:
    async with RawServer(_drop) as server, aiohttp.ClientSession() as session:
        async with session.get(server.url) as response:
            await response.read()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(server.url, data=b"x")
        assert [r.method for r in server.requests] == ["GET", "POST"]


async def test_a_get_is_sent_again_unless_told_otherwise() -> None:
    for again in (True, False):
        async with RawServer(_drop) as server, aiohttp.ClientSession() as session:
            assert session._retry_connection is True
            session._retry_connection = again
            async with session.get(server.url) as response:
                await response.read()
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(server.url)
            assert len(server.requests) == (3 if again else 2)


async def test_a_malformed_answer_looks_like_a_status() -> None:
    """Which is why no status is ever read from an exception."""
    async with RawServer(once(b"nonsense\r\n\r\n")) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.post(server.url, data=b"x", headers={"Authorization": "Bearer canary"})
        assert caught.value.status == 400
        assert "canary" in repr(caught.value), "and why no exception's text is kept"


async def test_unsolicited_bytes_are_seen_as_should_close() -> None:
    """What `_Post.release` looks at before it lets a request go."""

    class Seen(Exception):
        pass

    seen: list[bool] = []
    connections: list[aiohttp.connector.Connection] = []

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *args: object, **kwargs: object) -> aiohttp.connector.Connection:
            connection = await super().connect(*args, **kwargs)  # type: ignore[arg-type]
            connections.append(connection)
            return connection

    async def hook(_session: aiohttp.ClientSession, _context: SimpleNamespace, _params: object) -> None:
        protocol = connections[-1].protocol
        assert protocol is not None
        seen.append(protocol.should_close)
        ready.set()
        while not protocol.should_close:
            await asyncio.sleep(0)
        seen.append(protocol.should_close)
        raise Seen

    ready = asyncio.Event()

    async def script(peer: Peer) -> None:
        await ready.wait()
        await peer.send(http(200, "unasked"))
        await peer.until_gone()

    async with (
        RawServer(script) as server,
        aiohttp.ClientSession(connector=Connector(force_close=True), trace_configs=[_trace(hook)]) as session,
    ):
        with pytest.raises(Seen):
            await session.post(server.url, data=b"x")
    assert seen == [False, True]


async def test_an_answer_to_a_post_is_not_taken_apart_by_its_encoding() -> None:
    """auto_decompress=False: a bomb is never inflated by aiohttp."""
    async with (
        RawServer(once(http(200, b"\x1f\x8bnot gzip", ("Content-Encoding", "gzip")))) as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(server.url, data=b"x") as response,
    ):
        assert await response.read() == b"\x1f\x8bnot gzip"
