"""What may happen to a POST, and what is made of it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from tests.network.stage import KEY, Act, Data, Part, Scene, created, drip, say, turns
from tests.network.table import REFUSED, REJECTED, SUCCEEDED, UNCONFIRMED, Case, Code, Group, Verdict, posts
from tests.raw_server import BOMB, Peer, envelope, http

Codes = Code | tuple[Code, ...]

LOST: Codes = ("disconnected", "network")
"""A close with unread bytes is a reset, and which of the two a process sees is the kernel's."""


def good(scene: Scene) -> bytes:
    return json.dumps(scene.task()).encode()


def ok(change: Callable[[bytes], bytes], then: str = "close") -> Act:
    """The right answer, changed."""
    return say(lambda scene: change(http(200, scene.task())), then)


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines]).encode() + b"\r\n\r\n"


def chunked(body: bytes, end: bytes = b"0\r\n\r\n", status: int = 200) -> bytes:
    return head(status, "Transfer-Encoding: chunked") + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end


def answer(status: int, body: Any = b"", *headers: tuple[str, str]) -> Act:
    return say(http(status, body, *headers))


def close(data: Data = b"") -> Act:
    return say(data, "close")


def moved(status: int) -> Act:
    """A redirect to the very endpoint: whoever follows it sends a second POST."""
    return say(lambda s: http(status, b"", ("Location", f"{s.url}{s.head.target}")))


def early(data: bytes, then: str) -> Act:
    """Answer, or end the connection, before the body of the request is read."""

    async def act(peer: Peer, scene: Scene) -> None:
        await peer.send(data)
        if then == "reset":
            peer.reset()
        elif then == "close":
            peer.writer.close()
        else:
            await peer.until_gone()

    return act


async def endless(peer: Peer, scene: Scene) -> None:
    await peer.body(scene.head)
    await peer.send(head(200))
    while True:  # until the client, which reads a megabyte, has gone
        await peer.send(b" " * 65536)


DEEP = b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
GZIP = ("Content-Encoding", "gzip")
PAGE = "<!doctype html><html><body>Bad gateway</body></html>"

TAKEN: dict[str, Act] = {
    "200, the documented answer": created,
    "201": say(lambda s: http(201, s.task())),
    "202": say(lambda s: http(202, s.task())),
    "299": say(lambda s: http(299, s.task())),
    "200, the id called task_id": say(lambda s: http(200, {"task_id": s.task_id})),
    "200, the id in data[0].task_id": say(lambda s: http(200, {"data": [{"task_id": s.task_id}]})),
    "200, the same id three times": say(
        lambda s: http(200, {"id": s.task_id, "task_id": s.task_id, "data": [{"task_id": s.task_id}]})
    ),
    "200 as text/html": say(lambda s: http(200, s.task(), ("Content-Type", "text/html"))),
    "200 with two Content-Types": say(
        lambda s: http(200, s.task(), ("Content-Type", "text/plain"), ("Content-Type", "image/png"))
    ),
    "200 in gzip, unasked": say(lambda s: http(200, gzip.compress(good(s)), GZIP)),
    "200 in deflate, unasked": say(lambda s: http(200, zlib.compress(good(s)), ("Content-Encoding", "deflate"))),
    "200 in chunks": say(lambda s: chunked(good(s))),
    "200 in chunks without an end": close(lambda s: chunked(good(s), end=b"")),
    "200, Content-Length 10 bytes too large": close(lambda s: http(200, s.task(), length=len(good(s)) + 10)),
    "200 without a length": close(lambda s: head(200) + good(s)),
    "HTTP/1.0": close(lambda s: b"HTTP/1.0 200 OK\r\n\r\n" + good(s)),
    "100 Continue first": say(lambda s: head(100) + http(200, s.task())),
    "103 Early Hints twice first": say(lambda s: head(103, "Link: x") * 2 + http(200, s.task())),
    "200 and a second answer behind it": say(lambda s: http(200, s.task()) + http(500, "x"), "close"),
    "200 byte by byte": drip(lambda s: http(200, s.task())),
    "200, then a reset": ok(lambda data: data, "reset"),
    "200 with headers of 8,000 bytes": say(lambda s: http(200, s.task(), ("X-Long", "a" * 8000))),
    "200 that says failed": say(lambda s: http(200, s.task("failed", error={"code": 80006, "message": "x"}))),
}

ENVELOPE = {
    "400, code 20002": (20002, answer(400, envelope(20002))),
    "400, the code as text": (20003, answer(400, {"error": {"code": "20003", "message": "no"}})),
    "400 in chunks": (20002, say(chunked(json.dumps(envelope()).encode(), status=400))),
    "400 byte by byte": (20002, drip(http(400, envelope()))),
    "400 before the body of the request was read": (20002, early(http(400, envelope()), "wait")),
    "404": (20404, answer(404, envelope(20404))),
    "413 without a code": (None, answer(413, envelope(None, "too large"))),
    "422": (20003, answer(422, envelope(20003))),
}

CUT: dict[str, tuple[Codes, Act]] = {
    "a close after the head of the request": (LOST, early(b"", "close")),
    "a reset after the head of the request": (LOST, early(b"", "reset")),
    "a close after the whole request": ("disconnected", close()),
    "a reset after the whole request": (LOST, say(b"", "reset")),
    "a close within the status line": ("disconnected", ok(lambda data: data[:11])),
    "a close after the status line": ("disconnected", ok(lambda data: data[:16])),
    "a close within a header": ("disconnected", ok(lambda data: data[:25])),
    "a close before the empty line": ("disconnected", ok(lambda data: data[: data.index(b"\r\n\r\n") + 2])),
    "a close after the headers": ("not_json", ok(lambda data: data[: data.index(b"\r\n\r\n") + 4])),
    "a reset after the headers": ("not_json", ok(lambda data: data[: data.index(b"\r\n\r\n") + 4], "reset")),
    "a close within the body": ("not_json", ok(lambda data: data[:-20])),
    "a close before the last byte": ("not_json", ok(lambda data: data[:-1])),
    "a reset before the last byte": ("not_json", ok(lambda data: data[:-1], "reset")),
    "Content-Length 10 bytes too small": (
        ("bad_response", "not_json"),
        close(lambda s: http(200, s.task(), length=len(good(s)) - 10)),
    ),
    "a chunk that breaks off": ("not_json", close(lambda s: chunked(good(s))[:-20])),
    "a size of a chunk that is no number": (
        "bad_response",
        close(head(200, "Transfer-Encoding: chunked") + b"xyz\r\n"),
    ),
    "400 in the envelope, cut": ("contradiction", close(http(400, envelope(None), length=10_000))),
}

NOT_HTTP: dict[str, tuple[Codes, Act]] = {
    "garbage": ("bad_response", close(b"\x16\x03\x01\x00\x00 what is this\r\n\r\n")),
    "HTTP/0.9": ("bad_response", close(good)),
    "a status that is a word": ("bad_response", close(b"HTTP/1.1 abc OK\r\n\r\n")),
    "two Content-Lengths": ("bad_response", close(head(200, "Content-Length: 5", "Content-Length: 6") + b"hello!")),
    "a negative Content-Length": ("bad_response", close(head(200, "Content-Length: -5"))),
    "a Content-Length that is a word": ("bad_response", close(head(200, "Content-Length: many"))),
    "a header of 200,000 bytes": ("bad_response", close(head(200, "X: " + "a" * 200_000))),
    "20,000 headers": ("bad_response", close(head(200, *["X: a"] * 20_000))),
    "nothing but 100 Continue": ("disconnected", close(head(100) * 20)),
    "101 Switching Protocols": ("no_envelope", close(head(101, "Upgrade: x", "Connection: upgrade"))),
    "an answer without end": ("not_json", endless),
}

UNPROVEN: dict[str, tuple[Codes, Act]] = {
    **{f"{status} to the same endpoint": ("no_envelope", moved(status)) for status in (300, 301, 302, 303, 307, 308)},
    "304": ("no_envelope", say(head(304))),
    **{f"{status}, an HTML page": ("no_envelope", answer(status, PAGE)) for status in (400, 401, 402, 403, 404)},
    **{f"{status}, plain text": ("no_envelope", answer(status, "no")) for status in (408, 409, 413, 422, 429)},
    "429 with Retry-After, but no envelope": ("no_envelope", answer(429, "slow down", ("Retry-After", "5"))),
    "408 in the envelope": (20002, answer(408, envelope())),
    "409 in the envelope": (20002, answer(409, envelope())),
    "418 in the envelope": (20002, answer(418, envelope())),
    "400, error a string": ("no_envelope", answer(400, {"error": "no"})),
    "400, error empty": ("no_envelope", answer(400, {"error": {}})),
    "400 in the envelope, but with an id": (20002, answer(400, {**envelope(), "id": "task_1"})),
    "400 with the code of an unexpected error": (60099, answer(400, envelope(60099))),
    "500 in the envelope": (60099, answer(500, envelope(60099))),
    "500, an HTML page": ("no_envelope", answer(500, PAGE)),
    "502, an HTML page": ("no_envelope", answer(502, PAGE)),
    "503 with Retry-After": (50001, answer(503, envelope(50001), ("Retry-After", "5"))),
    "504, empty": ("no_envelope", answer(504)),
    "599": (20002, answer(599, envelope())),
    "999": (20002, answer(999, envelope())),
    "500 that echoes the key": (60099, answer(500, envelope(60099, f"bad header: Bearer {KEY}", KEY))),
}

NO_ID: dict[str, tuple[Codes, Act]] = {
    "200, empty": ("not_json", answer(200)),
    "204": ("not_json", say(head(204))),
    "200, an HTML page": ("not_json", answer(200, PAGE)),
    "200, a list": ("not_json", say(lambda s: http(200, [s.task()]))),
    "200, a string": ("not_json", say(lambda s: http(200, json.dumps(s.task_id)))),
    "200, half of the JSON": ("not_json", say(lambda s: http(200, good(s)[:-1]))),
    "200, bad UTF-8": ("not_json", answer(200, b'{"id": "\xff\xfe"}')),
    "200, NaN in the JSON": ("not_json", answer(200, b'{"id": "task_1", "x": NaN}')),
    "200, JSON 100,000 deep": ("not_json", answer(200, DEEP)),
    "200, JSON of 2 MiB": ("not_json", answer(200, b'{"id": "task_1", "x": "' + b"a" * (2 << 20) + b'"}')),
    "200, a gzip bomb of 64 MiB": ("not_json", answer(200, BOMB, GZIP)),
    "200, gzip that is none": ("not_json", answer(200, b'{"id": "task_1"}', GZIP)),
    "200, gzip cut": ("not_json", say(lambda s: http(200, gzip.compress(good(s))[:-9], GZIP))),
    "200, brotli": ("not_json", answer(200, b"\x0b\x02\x80{}\x03", ("Content-Encoding", "br"))),
    "200, no id": ("no_task_id", answer(200, {"status": "processing"})),
    "200, an empty id": ("no_task_id", answer(200, {"id": ""})),
    "200, a number for an id": ("no_task_id", answer(200, {"id": 17})),
    "200, a list for an id": ("no_task_id", answer(200, {"id": ["task_1"]})),
    "200, an id with a path": ("no_task_id", answer(200, {"id": "../../balance"})),
    "200, an id of two dots": ("no_task_id", answer(200, {"id": ".."})),
    "200, an id with a newline": ("no_task_id", answer(200, {"id": "task_1\n"})),
    "200, an id with an escape sequence": ("no_task_id", answer(200, {"id": "task_\x1b[2J"})),
    "200, an id that is not ASCII": ("no_task_id", answer(200, {"id": "tésk"})),
    "200, an id of 129 characters": ("no_task_id", answer(200, {"id": "a" * 129})),
    "200, the key for an id": ("no_task_id", answer(200, {"id": KEY})),
    "200, two ids": ("conflicting_ids", answer(200, {"id": "task_1", "task_id": "task_2"})),
    "200, two tasks": ("conflicting_ids", answer(200, {"data": [{"task_id": "task_1"}, {"task_id": "task_2"}]})),
    "200, only an error": (20002, answer(200, envelope())),
}


async def silence(peer: Peer, scene: Scene) -> None:
    await peer.body(scene.head)
    await peer.until_gone()


STALLED: dict[str, tuple[Codes, Act]] = {
    "no answer at all": ("timeout", silence),
    "silence within the status line": ("timeout", ok(lambda data: data[:11], "wait")),
    "silence within the headers": ("timeout", ok(lambda data: data[:25], "wait")),
    "silence within the body": ("not_json", ok(lambda data: data[:-5], "wait")),
}


def throttled(*headers: tuple[str, str]) -> Act:
    """429 first, then the right answer."""
    return turns(answer(429, envelope(50001), *headers), created)


SOON = (("Retry-After", "Wed, 21 Oct 2026 07:28:01 GMT"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"))
PAST = (("Retry-After", "Wed, 21 Oct 2026 07:27:00 GMT"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"))
FAR = (("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT"))
HELD: dict[str, Act] = {
    "429 without Retry-After": throttled(),
    **{
        f"429, Retry-After: {value}": throttled(("Retry-After", value))
        for value in ("0", "0.5", "1", "-5", "NaN", "soon")
    },
    "429, Retry-After of 400 digits": throttled(("Retry-After", "9" * 400)),
    "429, Retry-After a date": throttled(*SOON),
    "429, Retry-After a date that is past": throttled(*PAST),
    "429, two Retry-Afters": throttled(("Retry-After", "1"), ("Retry-After", "3600")),
}

HOUR: dict[str, Act] = {
    "429, Retry-After: 86400": answer(429, envelope(50001), ("Retry-After", "86400")),
    "429, Retry-After a date in another century": answer(429, envelope(50001), *FAR),
}

GROUPS = [
    Group(
        "A POST whose answer names its task",
        "The id is durable before anything else happens; the job is followed to its end.",
        SUCCEEDED,
        [Case(what, Part(post=act)) for what, act in TAKEN.items()],
        again=0,
    ),
    Group(
        "A POST that was refused in the provider's own words",
        "Nothing was created and nothing charged; the job is not sent again by itself.",
        REJECTED,
        posts(dict(ENVELOPE)),
        again=1,
    ),
    Group(
        "A POST that broke off",
        "It may have been accepted: a person decides. The other jobs of the run go on.",
        UNCONFIRMED,
        posts(CUT),
        again=3,
    ),
    Group("A POST whose answer is not HTTP", "As above.", UNCONFIRMED, posts(NOT_HTTP), again=3),
    Group(
        "A POST whose answer proves nothing",
        "Redirects are never followed. An error counts as proof only in the provider's envelope, with a status that "
        "says so, and without a task in it.",
        UNCONFIRMED,
        posts(UNPROVEN),
        again=3,
    ),
    Group(
        "A POST that was accepted, with no usable id in the answer",
        "A task exists, most likely, and nobody knows which.",
        UNCONFIRMED,
        posts(NO_ID),
        again=3,
    ),
    Group(
        "A POST that is not answered in time",
        "180 seconds; the test allows less.",
        UNCONFIRMED,
        posts(STALLED),
        patience={"submit": 4.0},
        again=3,
    ),
    Group(
        "A POST that came too early",
        "429 in the envelope created nothing: every call is held for as long as it says (a second or two where it "
        "does not, or says nonsense), then the job is sent again.",
        Verdict("succeeded", None, ("none", "spent"), 0),
        [Case(what, Part(post=act)) for what, act in HELD.items()],
        again=0,
    ),
    Group(
        "A POST that came much too early",
        "The hold is cut to an hour and outlives the run; `--for` ends the run before.",
        Verdict("pending", None, ("none",), 4),
        [Case(what, Part(post=act)) for what, act in HOUR.items()],
        alone=True,
        arguments=("--for", "4s"),
        hold=3600.0,
        again=4,
    ),
    Group(
        "A POST whose key is refused",
        "The run stops at once; the job stays as it was.",
        REFUSED,
        [Case(f"{s} in the envelope", Part(post=answer(s, envelope(c)))) for s, c in ((401, 10003), (403, 10004))],
        alone=True,
    ),
    Group(
        "A POST without credit",
        "Submitting stops; what runs comes home.",
        Verdict("pending", None, ("none",), 4),
        [Case("402 in the envelope", Part(post=answer(402, envelope(None, "insufficient credits"))))],
        alone=True,
    ),
]
