"""Polls and the balance against a server that does its worst."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchrunner.core.events import (
    Completed,
    Missing,
    PollAnswer,
    PollFailed,
    Refusal,
    Refused,
    StillRunning,
    TaskFailed,
    Throttled,
)
from batchrunner.core.job import Problem
from batchrunner.providers.base import Balance, Unavailable
from batchrunner.providers.reapi import ReApi, ReApiSettings
from tests.raw_server import BOMB, Peer, RawServer, Request, Script, envelope, http, keep, once

KEY = "rk_live_canary_0123456789"
ID = "task_ab12"
URL = "https://cdn.reapi.ai/media/tasks/task_ab12/0.mp4"


@contextlib.asynccontextmanager
async def api(url: str, **settings: Any) -> AsyncIterator[ReApi]:
    provider = ReApi(ReApiSettings(url, KEY, **settings), clock=lambda: 0.0)
    try:
        yield provider
    finally:
        await provider.aclose()


async def poll(script: Script, **settings: Any) -> tuple[PollAnswer, RawServer]:
    async with RawServer(script) as server, api(server.url, **settings) as provider:
        answer = await provider.poll(ID)
        assert KEY not in repr(answer)
        assert len(server.requests) <= 1, "a poll was sent again"
        return answer, server


def task(status: object = "processing", **more: Any) -> dict[str, Any]:
    return {"id": ID, "model": "m", "status": status, **more}


def done(**output: Any) -> dict[str, Any]:
    return task("completed", output=output)


ANSWERS: dict[str, tuple[bytes, PollAnswer]] = {
    "processing": (http(200, task()), StillRunning()),
    "unknown status": (http(200, task("queued")), StillRunning("queued", known=False)),
    "long status": (http(200, task("q" * 200)), StillRunning("q" * 64, known=False)),
    "status with the key": (http(200, task(f"x {KEY}")), StillRunning("x (the key)", known=False)),
    "completed": (http(200, done(video_urls=[URL])), Completed((URL,))),
    "images": (http(200, done(image_urls=[URL, URL + "?1"])), Completed((URL, URL + "?1"))),
    "audio": (http(200, done(audio_urls=[URL])), Completed((URL,))),
    "last frame": (http(200, done(video_urls=[URL], last_frame_url="u")), Completed((URL,), None, "u")),
    "credits": (http(200, {**done(video_urls=[URL]), "usage": {"credits": 630}}), Completed((URL,), 630)),
    "credits true": (http(200, {**done(video_urls=[URL]), "usage": {"credits": True}}), Completed((URL,))),
    "credits negative": (http(200, {**done(video_urls=[URL]), "usage": {"credits": -1}}), Completed((URL,))),
    "credits huge": (http(200, {**done(video_urls=[URL]), "usage": {"credits": 10**30}}), Completed((URL,))),
    "usage a list": (http(200, {**done(video_urls=[URL]), "usage": [1]}), Completed((URL,))),
    "some urls unusable": (http(200, done(video_urls=[None, 7, "", URL, f"https://x/?{KEY}"])), Completed((URL,))),
    "urls twice": (http(200, done(video_urls=[URL, URL])), Completed((URL,))),
    "id as task_id": (http(200, {"task_id": ID, "status": "processing"}), StillRunning()),
    "moderated": (
        http(200, task("failed", output=None, error={"code": 80006, "message": "policy"})),
        TaskFailed(Problem("policy", 80006, 200), moderated=True),
    ),
    "failed": (
        http(200, task("failed", error={"code": 80001, "message": "oops", "request_id": "r"})),
        TaskFailed(Problem("oops", 80001, 200, "r")),
    ),
    "failed, code as text": (
        http(200, task("failed", error={"code": "80006", "message": "policy"})),
        TaskFailed(Problem("policy", 80006, 200), moderated=True),
    ),
    "failed without reason": (
        http(200, task("failed", error=None)),
        TaskFailed(Problem("the task failed; the provider gave no reason", None, 200)),
    ),
    "failed, error a string": (http(200, task("failed", error="bad")), TaskFailed(Problem("bad", None, 200))),
    "404": (http(404, envelope(20404, "gone")), Missing(Problem("gone", 20404, 404, "req_1"))),
    "429": (
        http(429, envelope(50001, "slow"), ("Retry-After", "3")),
        Throttled(Problem("slow", 50001, 429, "req_1"), 3.0),
    ),
    "429, a date": (
        http(429, envelope(50001, "slow"), ("Retry-After", "Thu, 01 Jan 1970 00:01:00 GMT")),
        Throttled(Problem("slow", 50001, 429, "req_1"), 60.0),
    ),
    "401": (
        http(401, envelope(10003, "bad key")),
        Refused(Refusal.CREDENTIALS, Problem("bad key", 10003, 401, "req_1")),
    ),
    "403": (http(403, envelope(10004, "no")), Refused(Refusal.CREDENTIALS, Problem("no", 10004, 403, "req_1"))),
    "402": (http(402, envelope(None, "pay")), Refused(Refusal.CREDIT, Problem("pay", None, 402, "req_1"))),
}


@pytest.mark.parametrize(("data", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_poll(data: bytes, expected: PollAnswer) -> None:
    answer, server = await poll(once(data))
    assert answer == expected
    assert server.requests[0].target == f"/api/v1/tasks/{ID}"
    assert server.requests[0].method == "GET"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


CLASSES: dict[str, tuple[bytes, type[PollAnswer]]] = {
    "403, HTML": (http(403, "<html>"), Refused),
    "429, HTML": (http(429, "<html>"), Throttled),
    "404, HTML": (http(404, "<html>"), PollFailed),
    "404, no error": (http(404, {"message": "x"}), PollFailed),
    "400": (http(400, envelope()), PollFailed),
    "500": (http(500, envelope(60099)), PollFailed),
    "502": (http(502, "bad gateway"), PollFailed),
    "301": (http(301, "", ("Location", "/x")), PollFailed),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", PollFailed),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", PollFailed),
    "empty": (http(200), PollFailed),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", PollFailed),
    "HTML": (http(200, "<html>"), PollFailed),
    "half": (http(200, json.dumps(task()).encode()[:-1]), PollFailed),
    "cut": (http(200, task(), length=9999), PollFailed),
    "list": (http(200, [task()]), PollFailed),
    "deep": (http(200, b"[" * 100_000), PollFailed),
    "huge": (http(200, b'{"a": "' + b"a" * (2 << 20) + b'"}'), PollFailed),
    "bomb": (http(200, BOMB, ("Content-Encoding", "gzip")), PollFailed),
    "another task": (http(200, {**task(), "id": "task_other"}), PollFailed),
    "no id": (http(200, {"status": "processing"}), PollFailed),
    "two ids": (http(200, {**task(), "task_id": "task_other"}), PollFailed),
    "id a number": (http(200, {**task(), "id": 3}), PollFailed),
    "no status": (http(200, {"id": ID}), PollFailed),
    "status a number": (http(200, task(3)), PollFailed),
    "completed without output": (http(200, task("completed")), PollFailed),
    "completed, output a list": (http(200, task("completed", output=[URL])), PollFailed),
    "completed, urls a string": (http(200, done(video_urls=URL)), PollFailed),
    "completed, urls empty": (http(200, done(video_urls=[])), PollFailed),
    "completed, url too long": (http(200, done(video_urls=["https://x/" + "a" * 9000])), PollFailed),
    "nothing": (b"", PollFailed),
    "garbage": (b"\x16\x03\x01 hello\r\n\r\n", PollFailed),
    "bad chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n", PollFailed),
    "the key": (http(500, f"no such header: Bearer {KEY}"), PollFailed),
    "the key in the envelope": (http(404, envelope(1, KEY, KEY)), Missing),
}


@pytest.mark.parametrize(("data", "kind"), CLASSES.values(), ids=CLASSES.keys())
async def test_poll_that_says_little(data: bytes, kind: type[PollAnswer]) -> None:
    answer, _ = await poll(once(data))
    assert type(answer) is kind, answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """Where it leads, the key would go along, and whatever answers there would be believed."""

    def answer(request: Request) -> bytes:
        if request.target == "/elsewhere":
            return http(200, done(video_urls=[URL]))
        return http(status, "", ("Location", "/elsewhere"))

    found, server = await poll(keep(answer))
    assert isinstance(found, PollFailed)
    assert found.problem.http_status == status
    assert [r.target for r in server.requests] == [f"/api/v1/tasks/{ID}"]


async def test_a_poll_cut_at_any_byte() -> None:
    data = http(200, done(video_urls=[URL]))
    for cut in range(len(data)):
        answer, _ = await poll(once(data[:cut]))
        assert isinstance(answer, PollFailed), (cut, answer)


async def test_a_poll_that_is_never_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    answer, _ = await poll(script, poll_timeout=0.05)
    assert isinstance(answer, PollFailed)
    assert answer.problem.code == "timeout"


async def test_a_poll_without_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 X\r\n\r\n")
        while True:
            await peer.send(b" " * 65536)

    answer, _ = await poll(script)
    assert isinstance(answer, PollFailed)
    assert answer.problem.http_status == 200


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "é", "a" * 129, "a\n"])
async def test_what_is_no_task_id_is_not_asked_for(bad: str) -> None:
    async with RawServer(once(http(200, task()))) as server, api(server.url) as provider:
        answer = await provider.poll(bad)
        assert isinstance(answer, PollFailed)
        assert not server.peers


async def test_polls_keep_their_connection_and_no_cookies() -> None:
    def answer(request: Request) -> bytes:
        assert "cookie" not in request.headers
        return http(200, {**task(), "id": request.target.rpartition("/")[2]}, ("Set-Cookie", "a=b; Path=/"))

    async with RawServer(keep(answer)) as server, api(server.url) as provider:
        for n in range(5):
            assert await provider.poll(f"task_{n}") == StillRunning()
        assert len(server.peers) == 1


async def test_an_answer_to_a_question_nobody_asked_is_not_taken_for_another_tasks() -> None:
    """aiohttp gives bytes that arrive on an idle connection to the next request: the id must be echoed."""
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(200, task()))
        await idle.wait()
        await peer.send(http(200, {**task("failed"), "id": ID}))
        await peer.request()
        await peer.send(http(200, {**task(), "id": "task_2"}))
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url) as provider:
        assert await provider.poll(ID) == StillRunning()
        idle.set()
        answer = await provider.poll("task_2")
        assert isinstance(answer, PollFailed | StillRunning)


async def test_a_dead_kept_connection_is_a_failed_poll_and_no_second_get() -> None:
    first = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if first.is_set():
            return
        first.set()
        await peer.send(http(200, task()))
        await peer.request()  # and hang up on it

    async with RawServer(script) as server, api(server.url) as provider:
        assert await provider.poll(ID) == StillRunning()
        assert isinstance(await provider.poll(ID), PollFailed)
        assert len(server.requests) == 2
        assert len(server.peers) == 1


async def test_cancelling_a_poll_cancels_it() -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.until_gone()

    async with RawServer(script) as server, api(server.url) as provider:
        poll = asyncio.create_task(provider.poll(ID))
        await asked.wait()
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (http(200, {"balance": 12500}), Balance),
        (http(200, {"balance": 12500.9}), Balance),
        (http(200, {"balance": "12500"}), Unavailable),
        (http(200, {"balance": True}), Unavailable),
        (http(200, {"balance": 10**40}), Unavailable),
        (http(200, {}), Unavailable),
        (http(500, envelope(60099)), Unavailable),
        (http(404, "<html>"), Unavailable),
        (b"", Unavailable),
        (http(401, envelope(10001)), Refused),
        (http(429, envelope(50001)), Throttled),
    ],
)
async def test_balance(data: bytes, kind: type[object]) -> None:
    async with RawServer(once(data)) as server, api(server.url) as provider:
        answer = await provider.balance()
        assert type(answer) is kind
        assert server.requests[0].target == "/api/v1/balance"
        if isinstance(answer, Balance):
            assert answer.credits == 12500
