"""A POST against a server that does its worst: what is answered, and that it was sent at most once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from batchrunner.core.events import (
    Accepted,
    Ambiguous,
    NotSent,
    Refusal,
    Refused,
    Rejected,
    SubmitAnswer,
    Throttled,
)
from batchrunner.providers.http import _Post
from batchrunner.providers.reapi import ReApi, ReApiSettings
from batchrunner.providers.wire import read_into
from tests.raw_server import BOMB, Peer, RawServer, Script, envelope, http, once

KEY = "rk_live_canary_0123456789"
MODEL = "kling-3-0-turbo"
REQUEST = {"model": MODEL, "prompt": "ein Corgi läuft"}
CREATED = {"id": "task_ab12", "model": MODEL, "status": "processing", "created_at": 1}


@dataclass
class Hook:
    """A `before_send` that counts, and raises or waits where told."""

    error: BaseException | None = None
    entered: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event | None = None

    async def __call__(self) -> None:
        self.entered += 1
        self.started.set()
        if self.go_on is not None:
            await self.go_on.wait()
        if self.error is not None:
            raise self.error


@contextlib.asynccontextmanager
async def api(url: str, **settings: Any) -> AsyncIterator[ReApi]:
    provider = ReApi(ReApiSettings(url, KEY, **settings))
    try:
        yield provider
    finally:
        await provider.aclose()


async def submit(script: Script, **settings: Any) -> tuple[SubmitAnswer, RawServer, Hook]:
    hook = Hook()
    async with RawServer(script) as server, api(server.url, **settings) as provider:
        answer = await provider.submit(MODEL, REQUEST, hook)
        assert hook.entered == 1
        assert len([r for r in server.requests if r.body]) <= 1, "a POST was sent again"
        assert len(server.requests) <= 1
        assert KEY not in repr(answer)
        return answer, server, hook


def chunked(body: bytes, *, end: bytes = b"0\r\n\r\n", status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end


GOOD = json.dumps(CREATED).encode()
DEEP = b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
GZIP = ("Content-Encoding", "gzip")

ACCEPTED: dict[str, bytes] = {
    "200": http(200, CREATED),
    "201": http(201, CREATED),
    "202": http(202, CREATED),
    "299": http(299, CREATED),
    "task_id": http(200, {"task_id": "task_ab12"}),
    "data[0].task_id": http(200, {"code": 200, "data": [{"task_id": "task_ab12", "status": "submitted"}]}),
    "all three agree": http(200, {"id": "task_ab12", "task_id": "task_ab12", "data": [{"task_id": "task_ab12"}]}),
    "id null, task_id given": http(200, {"id": None, "task_id": "task_ab12"}),
    "status failed": http(200, {**CREATED, "status": "failed", "error": {"code": 80006, "message": "x"}}),
    "a byte order mark": http(200, b"\xef\xbb\xbf" + GOOD),
    "content type html": http(200, GOOD, ("Content-Type", "text/html")),
    "gzip, unasked": http(200, gzip.compress(GOOD), GZIP),
    "deflate, unasked": http(200, zlib.compress(GOOD), ("Content-Encoding", "deflate")),
    "chunked": chunked(GOOD),
    "chunked without end": chunked(GOOD, end=b""),
    "length too large": http(200, CREATED, length=len(GOOD) + 10),
    "no length at all": b"HTTP/1.1 200 OK\r\n\r\n" + GOOD,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, CREATED),
    "103 twice first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 2 + http(200, CREATED),
    "a cookie": http(200, CREATED, ("Set-Cookie", "a=b")),
    "something behind it": http(200, CREATED) + http(500, "x"),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_an_id_that_was_read_is_taken(data: bytes) -> None:
    answer, server, _ = await submit(once(data))
    assert isinstance(answer, Accepted), answer
    assert answer.task_id == "task_ab12"
    assert server.requests[0].method == "POST"


PROVEN: dict[str, tuple[bytes, type[SubmitAnswer], object]] = {
    "400": (http(400, envelope(20002)), Rejected, 20002),
    "400, another code": (http(400, envelope(80006, "policy")), Rejected, 80006),
    "400, code as text": (http(400, {"error": {"code": "20003", "message": "x"}}), Rejected, 20003),
    "404": (http(404, envelope(20404)), Rejected, 20404),
    "413": (http(413, envelope(None, "too large")), Rejected, None),
    "422": (http(422, envelope(20003)), Rejected, 20003),
    "401": (http(401, envelope(10003)), Refused, Refusal.CREDENTIALS),
    "403": (http(403, envelope(10004)), Refused, Refusal.CREDENTIALS),
    "402 without code": (http(402, envelope(None, "insufficient credits")), Refused, Refusal.CREDIT),
    "429": (http(429, envelope(50001)), Throttled, None),
    "429, seconds": (http(429, envelope(50001), ("Retry-After", "17")), Throttled, 17.0),
    "429, 0": (http(429, envelope(50001), ("Retry-After", "0")), Throttled, 0.0),
    "429, nonsense": (http(429, envelope(50001), ("Retry-After", "soon")), Throttled, None),
    "429, negative": (http(429, envelope(50001), ("Retry-After", "-5")), Throttled, None),
    "429, a date": (
        http(
            429,
            envelope(50001),
            ("Retry-After", "Wed, 21 Oct 2026 07:28:30 GMT"),
            ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ),
        Throttled,
        30.0,
    ),
    "400, chunked": (chunked(json.dumps(envelope()).encode(), status=400), Rejected, 20002),
}


@pytest.mark.parametrize(("data", "kind", "detail"), PROVEN.values(), ids=PROVEN.keys())
async def test_the_providers_own_words_prove_that_nothing_was_created(
    data: bytes, kind: type[SubmitAnswer], detail: object
) -> None:
    answer, _, _ = await submit(once(data))
    assert type(answer) is kind, answer
    match answer:
        case Rejected(problem=problem):
            assert problem.code == detail
        case Refused(reason=reason):
            assert reason is detail
        case Throttled(retry_after=after):
            assert after == detail


AMBIGUOUS: dict[str, bytes] = {
    "200, empty": http(200),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "200, no id": http(200, {"status": "processing"}),
    "200, id empty": http(200, {"id": ""}),
    "200, id a number": http(200, {"id": 17}),
    "200, id a list": http(200, {"id": ["task_1"]}),
    "200, id with a slash": http(200, {"id": "a/../b"}),
    "200, id ..": http(200, {"id": ".."}),
    "200, id with a newline": http(200, {"id": "task_1\n"}),
    "200, id not ASCII": http(200, {"id": "tésk"}),
    "200, id of 129": http(200, {"id": "a" * 129}),
    "200, id is the key": http(200, {"id": KEY}),
    "200, two ids": http(200, {"id": "task_1", "task_id": "task_2"}),
    "200, two tasks": http(200, {"data": [{"task_id": "task_1"}, {"task_id": "task_2"}]}),
    "200, id and a number": http(200, {"id": 17, "task_id": "task_2"}),
    "200, only an error": http(200, envelope()),
    "200, a list": http(200, [CREATED]),
    "200, a string": http(200, b'"task_ab12"'),
    "200, HTML": http(200, "<html>task_ab12</html>"),
    "200, half a JSON": http(200, GOOD[:-1]),
    "200, bad UTF-8": http(200, b'{"id": "\xff\xfe"}'),
    "200, NaN": http(200, b'{"id": "task_1", "x": NaN}'),
    "200, deep": http(200, DEEP),
    "200, huge": http(200, b'{"x": "' + b"a" * (2 << 20) + b'"}'),
    "200, gzip bomb": http(200, BOMB, GZIP),
    "200, not gzip": http(200, GOOD, GZIP),
    "200, brotli": http(200, GOOD, ("Content-Encoding", "br")),
    "200, gzip cut": http(200, gzip.compress(GOOD)[:-9], GZIP),
    "200, chunked, cut": chunked(GOOD[:-3], end=b""),
    # All in one segment: aiohttp throws the head away with the rest.
    "200, chunked, bad end": chunked(GOOD, end=b"zz\r\n\r\n"),
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "408": http(408, envelope()),
    "409": http(409, envelope()),
    "418": http(418, envelope()),
    "400, no envelope": http(400, {"message": "no"}),
    "400, error a string": http(400, {"error": "no"}),
    "400, error empty": http(400, {"error": {}}),
    "400, HTML": http(400, "<html>400 Bad Request</html>"),
    "400, cut": http(400, envelope(), length=10_000),
    "400, but an id": http(400, {**envelope(), "id": "task_ab12"}),
    "400, code unexpected": http(400, envelope(60099)),
    "401, no envelope": http(401, "Unauthorized"),
    "402, no envelope": http(402, "Payment Required"),
    "403, HTML": http(403, "<html>blocked</html>"),
    "404, HTML": http(404, "<html>nginx</html>"),
    "429, no envelope": http(429, "slow down", ("Retry-After", "5")),
    "500": http(500, envelope(60099)),
    "500, HTML": http(500, "oops"),
    "502": http(502, "<html>bad gateway</html>"),
    "503": http(503, envelope(50001), ("Retry-After", "5")),
    "504": http(504),
    "599": http(599, envelope()),
    "status 999": http(999, envelope()),
    "garbage": b"\x16\x03\x01\x00\x00 what is this\r\n\r\n",
    "garbage status": b"HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/0.9": GOOD,
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD,
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + GOOD,
    "length a word": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + GOOD,
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n" + GOOD,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000 + b"\r\n" + GOOD,
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + GOOD,
    "only 100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    "the key, echoed": http(500, envelope(60099, f"bad header: Bearer {KEY}", f"req-{KEY}")),
    "the key in the page": http(500, f"<html>{KEY}</html>"),
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_everything_else_is_ambiguous(data: bytes) -> None:
    answer, _, _ = await submit(once(data))
    assert isinstance(answer, Ambiguous), answer
    assert answer.problem.message
    assert answer.problem.code is not None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["{url}/api/v1/videos/generations", "http://127.0.0.1:9/x", "/elsewhere", ""])
async def test_no_redirect_is_followed(status: int, place: str) -> None:
    server_url = ""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(status, "", ("Location", place.format(url=server_url))))

    hook = Hook()
    async with RawServer(script) as server, api(server.url) as provider:
        server_url = server.url
        answer = await provider.submit(MODEL, REQUEST, hook)
        assert isinstance(answer, Ambiguous)
        assert answer.problem.http_status == status
        assert len(server.peers) == 1
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_cut_at_any_byte(status: int) -> None:
    """Whatever the byte at which the server dies, the verdict is the one that the bytes prove."""
    body = json.dumps(CREATED if status == 200 else envelope()).encode()
    data = http(status, body)
    for cut in range(len(data) + 1):
        answer, _, _ = await submit(once(data[:cut]))
        if cut < len(data):
            assert isinstance(answer, Ambiguous), (cut, answer)
        else:
            assert isinstance(answer, Accepted if status == 200 else Rejected)


async def test_a_cut_answer_names_the_id_that_was_seen() -> None:
    answer, _, _ = await submit(once(http(200, GOOD)[:-20]))
    assert isinstance(answer, Ambiguous)
    assert "task_ab12" in answer.problem.message


@pytest.mark.parametrize("when", ["before reading", "after reading", "in the answer"])
async def test_a_reset(when: str) -> None:
    async def script(peer: Peer) -> None:
        if when == "before reading":
            await peer.reader.read(1)
        else:
            await peer.request()
        if when == "in the answer":
            await peer.send(http(200, GOOD)[:-5])
        peer.reset()

    answer, _, _ = await submit(script)
    assert isinstance(answer, Ambiguous)


async def test_a_server_that_never_answers() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    answer, _, _ = await submit(script, submit_timeout=0.05)
    assert isinstance(answer, Ambiguous)
    assert answer.problem.code == "timeout"


async def test_a_server_that_stops_within_its_answer() -> None:
    answer, _, _ = await submit(once(http(200, GOOD)[:-5], then="wait"), submit_timeout=0.05)
    assert isinstance(answer, Ambiguous)
    assert answer.problem.http_status == 200
    assert "allowed" in answer.problem.message


async def test_an_id_that_was_read_before_the_timeout_is_taken() -> None:
    answer, _, _ = await submit(once(http(200, GOOD, length=10_000), then="wait"), submit_timeout=0.05)
    assert answer == Accepted("task_ab12")


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_answer_without_end(status: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 {status} X\r\n\r\n".encode())
        while True:
            await peer.send(b" " * 65536)

    answer, _, _ = await submit(script)
    assert isinstance(answer, Ambiguous)
    assert answer.problem.http_status == status
    assert "longer than" in answer.problem.message


async def test_a_dripping_server() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in http(200, GOOD):
            await peer.send(bytes([byte]))

    answer, _, _ = await submit(script)
    assert answer == Accepted("task_ab12")


async def test_an_answer_before_the_request_was_read() -> None:
    """Early, but after the first byte of the request: it is an answer to it."""

    async def script(peer: Peer) -> None:
        await peer.reader.readexactly(4)
        await peer.send(http(400, envelope()))
        await peer.until_gone()

    answer, _, _ = await submit(script)
    assert isinstance(answer, Rejected)


# --- Nothing was sent ------------------------------------------------------------------------------------


async def silent(peer: Peer) -> None:
    await peer.until_gone()


class Custom(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        Custom("no commit"),
        OSError(28, "No space left on device"),
        TimeoutError("late"),
        ConnectionResetError("x"),
        aiohttp.ServerDisconnectedError("x"),
        aiohttp.ClientOSError(1, "x"),
        KeyError("x"),
        asyncio.CancelledError("x"),
    ],
    ids=lambda e: type(e).__name__,
)
async def test_what_the_hook_raises_comes_out_unchanged_and_nothing_is_sent(error: BaseException) -> None:
    hook = Hook(error)
    async with RawServer(silent) as server, api(server.url) as provider:
        with pytest.raises(type(error)) as caught:
            await provider.submit(MODEL, REQUEST, hook)
        assert caught.value is error
        assert hook.entered == 1
        await server.peers[0].gone.wait()
        assert len(server.peers) == 1
        assert bytes(server.peers[0].received) == b""


async def test_the_hook_is_awaited_before_the_first_byte() -> None:
    hook = Hook(go_on=asyncio.Event())
    got = asyncio.Event()

    async def script(peer: Peer) -> None:
        first = asyncio.create_task(peer.reader.read(1))
        await hook.started.wait()
        done, _ = await asyncio.wait({first}, timeout=0.1)
        assert not done
        got.set()
        assert hook.go_on is not None
        hook.go_on.set()
        await first
        await peer.send(http(200, CREATED))

    async with RawServer(script) as server, api(server.url) as provider:
        assert await provider.submit(MODEL, REQUEST, hook) == Accepted("task_ab12")
        assert got.is_set()


@pytest.mark.parametrize("spoken", [http(200, CREATED), http(400, envelope()), b"220 mail ready\r\n", b""])
async def test_a_server_that_speaks_or_leaves_before_it_is_asked(spoken: bytes) -> None:
    """Bytes that came before ours are no answer to us; a closed connection can't have carried a request."""
    hook = Hook(go_on=asyncio.Event())

    async def script(peer: Peer) -> None:
        await hook.started.wait()
        await peer.send(spoken)
        if not spoken:
            peer.writer.close()
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url) as provider:
        task = asyncio.create_task(provider.submit(MODEL, REQUEST, hook))
        await hook.started.wait()
        connection = None
        while connection is None or not (connection.should_close or not connection.is_connected()):
            await asyncio.sleep(0)
            connector = provider._submit_session().connector
            assert connector is not None
            connection = next(iter(connector._acquired))
        assert hook.go_on is not None
        hook.go_on.set()
        answer = await task
        assert isinstance(answer, NotSent), answer
        await server.peers[0].gone.wait()
        assert bytes(server.peers[0].received) == b""


async def test_refused_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hook = Hook()
        async with api(f"http://127.0.0.1:{free.getsockname()[1]}") as provider:
            answer = await provider.submit(MODEL, REQUEST, hook)
    assert isinstance(answer, NotSent)
    assert answer.problem.code == "connect"
    assert hook.entered == 0


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    hook = Hook()
    async with api("https://reapi.invalid") as provider:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
        answer = await provider.submit(MODEL, REQUEST, hook)
    assert isinstance(answer, NotSent)
    assert answer.problem.code == "dns"
    assert hook.entered == 0


async def test_a_server_without_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    hook = Hook()
    async with RawServer(script) as server, api(server.url.replace("http:", "https:")) as provider:
        answer = await provider.submit(MODEL, REQUEST, hook)
    assert isinstance(answer, NotSent)
    assert answer.problem.code == "tls"
    assert hook.entered == 0


async def test_a_tls_handshake_that_never_ends() -> None:
    hook = Hook()
    async with (
        RawServer(silent) as server,
        api(server.url.replace("http:", "https:"), connect_timeout=0.05) as provider,
    ):
        answer = await provider.submit(MODEL, REQUEST, hook)
    assert isinstance(answer, NotSent)
    assert answer.problem.code == "connect_timeout"
    assert hook.entered == 0


async def test_no_free_connection() -> None:
    """The pool is a limit too: who waits for it in vain has sent nothing."""
    hook = Hook()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url, max_posts=1, connect_timeout=1.0) as provider:
        first_hook = Hook()
        first = asyncio.create_task(provider.submit(MODEL, REQUEST, first_hook))
        await first_hook.started.wait()
        answer = await provider.submit(MODEL, REQUEST, hook)
        assert isinstance(answer, NotSent)
        assert hook.entered == 0
        first.cancel()
        assert isinstance(await first, Ambiguous)


async def test_an_unknown_model_is_not_sent() -> None:
    hook = Hook()
    async with RawServer(silent) as server, api(server.url) as provider:
        answer = await provider.submit("no-such-model", {"model": "no-such-model"}, hook)
        assert isinstance(answer, NotSent)
        assert hook.entered == 0
        assert not server.peers


# --- Cancellation ----------------------------------------------------------------------------------------


async def test_cancelled_while_connecting() -> None:
    hook = Hook()
    connected = asyncio.Event()

    async def script(peer: Peer) -> None:
        connected.set()
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url.replace("http:", "https:")) as provider:
        task = asyncio.create_task(provider.submit(MODEL, REQUEST, hook))
        await connected.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hook.entered == 0


async def test_cancelled_in_the_hook() -> None:
    hook = Hook(go_on=asyncio.Event())
    async with RawServer(silent) as server, api(server.url) as provider:
        task = asyncio.create_task(provider.submit(MODEL, REQUEST, hook))
        await hook.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.peers[0].gone.wait()
        assert bytes(server.peers[0].received) == b""


@pytest.mark.parametrize("sent", [b"", http(200, GOOD)[:-5], http(200, GOOD, length=999)])
async def test_cancelled_when_it_may_have_been_sent(sent: bytes) -> None:
    """The verdict is returned, not lost; the request to cancel can still be seen."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        asked.set()
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url) as provider:
        read = asyncio.Event()

        async def spy(content: aiohttp.StreamReader, into: bytearray) -> bool:
            read.set()
            return await read_into(content, into)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("batchrunner.providers.http.read_into", spy)
            task = asyncio.create_task(provider.submit(MODEL, REQUEST, Hook()))
            await asked.wait()
            if sent:
                await read.wait()
                await asyncio.sleep(0)
            task.cancel()
            answer = await task
        assert task.cancelling() == 1
        if b"999" in sent:
            assert answer == Accepted("task_ab12")
        else:
            assert isinstance(answer, Ambiguous)


async def test_what_is_no_exception_comes_out_of_the_hook_too() -> None:
    class End(BaseException):
        pass

    async with RawServer(once(http(200, CREATED))) as server, api(server.url) as provider:
        with pytest.raises(End):
            await provider.submit(MODEL, REQUEST, Hook(End()))


def test_the_end_of_the_process_is_let_through() -> None:
    """The next start finds the intent and lists the job; no verdict is made up for a dying process."""
    verdicts: list[SubmitAnswer] = []

    async def dying(*_: object) -> bool:
        raise SystemExit(7)

    async def run() -> None:
        async with RawServer(once(http(200, CREATED))) as server, api(server.url) as provider:
            verdicts.append(await provider.submit(MODEL, REQUEST, Hook()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchrunner.providers.http.read_into", dying)
        with pytest.raises(SystemExit):
            asyncio.run(run())
    assert not verdicts


async def test_a_second_send_of_one_post_is_refused() -> None:
    """aiohttp does not do it; should it learn to, the hook stops it, and the first send stays in doubt."""
    hook = Hook()
    twice: list[BaseException] = []

    async def again(post: _Post) -> None:
        await release(post)
        try:
            await release(post)
        except BaseException as error:
            twice.append(error)
            raise

    release = _Post.release
    async with RawServer(silent) as server, api(server.url) as provider:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Post, "release", again)
            answer = await provider.submit(MODEL, REQUEST, hook)
        assert isinstance(answer, Ambiguous)
        assert len(twice) == 1
        assert hook.entered == 1
        await server.peers[0].gone.wait()
        assert bytes(server.peers[0].received) == b""


# --- What is sent ----------------------------------------------------------------------------------------


async def test_the_request_itself() -> None:
    async with RawServer(once(http(200, CREATED, ("X-Request-Id", "req_9")))) as server, api(server.url) as provider:
        answer = await provider.submit(MODEL, REQUEST, Hook(), label="corgi@place=beach-1")
        assert answer == Accepted("task_ab12", "req_9")
        sent = server.requests[0]
    assert (sent.method, sent.target) == ("POST", "/api/v1/videos/generations")
    assert json.loads(sent.body) == REQUEST
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["connection"] == "close"
    assert sent.headers["x-batchrunner-job"] == "corgi@place=beach-1"
    assert "cookie" not in sent.headers


async def test_every_post_has_a_connection_of_its_own() -> None:
    """A kept connection that the server has meanwhile closed would breed doubts that need not be."""
    async with RawServer(once(http(200, CREATED), then="wait")) as server, api(server.url) as provider:
        for _ in range(5):
            assert await provider.submit(MODEL, REQUEST, Hook()) == Accepted("task_ab12")
        assert len(server.peers) == len(server.requests) == 5


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answer, _, _ = await submit(once(http(200, CREATED)))
    assert answer == Accepted("task_ab12")


async def test_the_clock_of_a_post_starts_when_the_intent_is_durable() -> None:
    """A slow commit must neither be cut off nor eat up the answer's time."""
    hook = Hook(go_on=asyncio.Event())
    async with RawServer(once(http(200, CREATED))) as server, api(server.url, submit_timeout=5.0) as provider:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(provider.submit(MODEL, REQUEST, hook))
        await hook.started.wait()
        real = loop.time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "time", lambda: real() + 1000.0)
            await asyncio.sleep(0)
            assert not task.done()
            assert hook.go_on is not None
            hook.go_on.set()
            assert await task == Accepted("task_ab12")
