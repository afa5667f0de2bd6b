"""What may happen to a poll, and what is made of it."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.network.posts import (
    DEEP,
    GZIP,
    PAGE,
    answer,
    chunked,
    close,
    early,
    endless,
    head,
    moved,
    ok,
    silence,
)
from tests.network.stage import KEY, Act, Data, Part, Scene, completed, drip, say, turns
from tests.network.table import EXPIRED, SUCCEEDED, Case, Code, Group, Verdict
from tests.raw_server import BOMB, Peer, envelope, http

Ways = tuple[str, ...]
"""Codes, where the kernel decides which of several errors a process sees."""


def passing(acts: dict[str, tuple[str | int | Ways, Act]], *, then: Act = completed) -> list[Case]:
    """Cases of polls that fail once: what -> (code, act)."""
    return [
        Case(what, Part(poll=turns(act, then)), seen=code if isinstance(code, tuple) else (str(code),))
        for what, (code, act) in acts.items()
    ]


def ending(acts: dict[str, tuple[Code, Act]]) -> list[Case]:
    """Cases of polls that end the job: what -> (code, act)."""
    return [Case(what, Part(poll=act), code) for what, (code, act) in acts.items()]


def task(status: object, **more: Any) -> Act:
    return say(lambda s: http(200, {**s.task(), "status": status, **more}))


def failed(error: object) -> Act:
    return task("failed", output=None, error=error)


def linked(*urls: object) -> Act:
    return say(lambda s: http(200, s.done(*urls)))


async def unasked(peer: Peer, scene: Scene) -> None:
    """A right answer, and behind it, on the idle connection, what somebody else was to be told."""
    await peer.body(scene.head)
    await peer.send(http(200, scene.task()))
    await peer.send(http(200, {**scene.task("failed"), "id": "task_of_another"}))


def late(data: Data) -> Act:
    """Answer, and close the kept connection without a word."""
    return say(data, "close")


FAILING: dict[str, tuple[str | int | Ways, Act]] = {
    "the id of another task": ("wrong_task", say(lambda s: http(200, {**s.done(), "id": "task_of_another"}))),
    "the failure of another task": ("wrong_task", say(lambda s: http(200, {**s.task("failed"), "id": "task_x"}))),
    "no id": ("wrong_task", answer(200, {"status": "completed"})),
    "two ids": ("wrong_task", say(lambda s: http(200, {**s.done(), "task_id": "task_of_another"}))),
    "no status": ("no_status", say(lambda s: http(200, {"id": s.task_id}))),
    "a number for a status": ("no_status", task(7)),
    "completed, without output": ("no_output", task("completed")),
    "completed, output null": ("no_output", task("completed", output=None)),
    "completed, no URL": ("no_output", task("completed", output={"video_urls": []})),
    "completed, a number for a URL": ("no_output", linked(17)),
    "completed, a URL of 9,000 characters": ("no_output", linked("https://a.example/" + "a" * 9000)),
    "completed, a URL with the key in it": ("no_output", linked(f"https://a.example/?k={KEY}")),
    "completed, the URL not in a list": ("no_output", say(lambda s: http(200, s.task("completed", output=s.media)))),
    **{f"{n}, an HTML page": ("http_error", answer(n, PAGE)) for n in (400, 404, 500, 502, 503)},
    **{f"{n} in the envelope": (60099, answer(n, envelope(60099))) for n in (400, 408, 409, 422, 500, 504)},
    **{f"{n} to the same task": ("http_error", moved(n)) for n in (301, 302, 303, 307, 308)},
    "304": ("http_error", say(head(304))),
    "204": ("not_json", say(head(204))),
    "empty": ("not_json", answer(200)),
    "an HTML page": ("not_json", answer(200, PAGE)),
    "a list": ("not_json", say(lambda s: http(200, [s.done()]))),
    "bad UTF-8": ("not_json", answer(200, b'{"id": "\xff"}')),
    "JSON 100,000 deep": ("not_json", answer(200, DEEP)),
    "JSON of 2 MiB": ("not_json", answer(200, b'{"x": "' + b"a" * (2 << 20) + b'"}')),
    "a gzip bomb of 64 MiB": ("not_json", answer(200, BOMB, GZIP)),
    "an answer without end": ("not_json", endless),
    "a close without an answer": ("disconnected", close()),
    "a reset without an answer": (("disconnected", "network"), early(b"", "reset")),
    "a close within the status line": ("disconnected", ok(lambda data: data[:11])),
    "a close within the body": ("cut_off", ok(lambda data: data[:-5])),
    "a reset within the body": (("cut_off", "network"), ok(lambda data: data[:-5], "reset")),
    "garbage": ("bad_response", close(b"\x16\x03\x01 hello\r\n\r\n")),
    "HTTP/0.9": ("bad_response", close(lambda s: json.dumps(s.done()).encode())),
    "two Content-Lengths": ("bad_response", close(head(200, "Content-Length: 5", "Content-Length: 6") + b"hello!")),
    "a header of 200,000 bytes": ("bad_response", close(head(200, "X: " + "a" * 200_000))),
}

FINE: dict[str, Act] = {
    "completed at once": completed,
    "completed, byte by byte": drip(lambda s: http(200, s.done())),
    "completed, in gzip": say(lambda s: http(200, gzip.compress(json.dumps(s.done()).encode()), GZIP)),
    "completed, in chunks": say(lambda s: chunked(json.dumps(s.done()).encode())),
    "completed as text/html": say(lambda s: http(200, s.done(), ("Content-Type", "text/html"))),
    "processing, then completed": turns(task("processing"), completed),
    "a status that is not documented": turns(task("queued"), completed),
    "a status with an escape sequence": turns(task("\x1b[2Jdone"), completed),
    "404 in the envelope for a while": turns(answer(404, envelope(20404)), completed),
    "429 with Retry-After: 1": turns(answer(429, envelope(50001), ("Retry-After", "1")), completed),
    "429, an HTML page": turns(answer(429, PAGE), completed),
    "402 in the envelope": turns(answer(402, envelope(None, "insufficient credits")), completed),
    "processing, and another's answer behind it": turns(unasked, completed),
    "processing, then a close of the kept connection": turns(late(lambda s: http(200, s.task())), completed),
}

FAILURES: dict[str, tuple[Code, Act]] = {
    "failed, code 80001": (80001, failed({"code": 80001, "message": "no"})),
    "failed, a code as text": ("E7", failed({"code": "E7", "message": "no"})),
    "failed, no error": (None, failed(None)),
    "failed, the error a string": (None, failed("no")),
    "failed, a code of 30 digits": (None, failed({"code": 10**29, "message": "no"})),
}
MODERATED: dict[str, tuple[Code, Act]] = {
    "failed, code 80006": (80006, failed({"code": 80006, "message": "policy"})),
    "failed, code 80006 as text": (80006, failed({"code": "80006", "message": "policy"})),
}

URLS = {
    "http": "http://example.com/0.mp4",
    "a port": "https://example.com:8443/0.mp4",
    "a user": "https://user@example.com/0.mp4",
    "a user and a password": "https://user:word@example.com/0.mp4",
    "file:": "file:///etc/passwd",
    "ftp:": "ftp://example.com/0.mp4",
    "data:": "data:video/mp4;base64,AAAA",
    "no scheme": "//example.com/0.mp4",
    "a path": "/media/0.mp4",
    "a private address": "https://10.0.0.1/0.mp4",
    "the metadata address": "https://169.254.169.254/latest/meta-data/",
    "a private IPv6 address": "https://[fd00::1]/0.mp4",
    "a mapped private address": "https://[::ffff:10.0.0.1]/0.mp4",
    "an address as a number": "https://2130706433/0.mp4",
    "an address in hex": "https://0x7f000001/0.mp4",
    "a space": "https://example.com/a b.mp4",
    "a newline": "https://example.com/a\nb.mp4",
    "a backslash": "https://example.com\\@10.0.0.1/0.mp4",
}

GROUPS = [
    Group(
        "A poll that fails once",
        "It says nothing about the task: it is reported, and repeated. Never does it cause a POST.",
        SUCCEEDED,
        passing(FAILING),
        again=0,
    ),
    Group(
        "A poll that is answered in an unusual way",
        "Nothing is wrong with it, or nothing that lasts.",
        SUCCEEDED,
        [Case(what, Part(poll=act)) for what, act in FINE.items()],
        again=0,
    ),
    Group(
        "A poll that is not answered in time",
        "30 seconds; the test allows less.",
        SUCCEEDED,
        passing(
            {
                "no answer": ("timeout", silence),
                "silence within the headers": ("timeout", ok(lambda data: data[:25], "wait")),
                "silence within the body": ("timeout", ok(lambda data: data[:-5], "wait")),
            }
        ),
        patience={"poll": 1.0},
        again=0,
    ),
    Group(
        "A task that failed",
        "It was refunded. Within the manifest's retry budget it would be sent again.",
        Verdict("failed", "provider", ("none",), 1),
        ending(FAILURES),
        again=1,
    ),
    Group(
        "A task that the content policy stopped",
        "Refunded; the same prompt is not sent again.",
        Verdict("failed", "moderated", ("none",), 1),
        ending(MODERATED),
        more="retry: {provider: 3}",
        again=1,
    ),
    Group(
        "A task that failed once, with `retry: {provider: 1}`",
        "The second submission counts against the budget, the refunded one does not.",
        Verdict("succeeded", None, ("none", "spent"), 0),
        [
            Case(
                "failed, then completed",
                Part(poll=turns(failed({"code": 80001, "message": "no"}), completed)),
            )
        ],
        more="retry: {provider: 1}",
        again=0,
    ),
    Group(
        "A task that the provider does not know",
        "For 15 minutes, less in the test. It is shown, and never submitted again; its price stays counted.",
        Verdict("failed", "lost", ("spent",), 1),
        ending({"404 in the envelope, always": (20404, answer(404, envelope(20404)))}),
        patience={"lost": 0.2},
        again=1,
    ),
    Group(
        "A task about which nothing sensible is ever said",
        "For an hour, less in the test: a run ends. The task goes on, and so does the next run with it.",
        Verdict("running", None, ("reserved",), 4),
        [
            Case("404 without the envelope, always", Part(poll=answer(404, PAGE))),
            Case("500, always", Part(poll=answer(500, PAGE))),
            Case("completed without an output, always", Part(poll=say(lambda s: http(200, s.task("completed"))))),
        ],
        patience={"nonsense": 0.3},
    ),
    Group(
        "A poll whose key is refused",
        "The run stops at once; the task goes on and is found by the next run.",
        Verdict("running", None, ("reserved",), 6),
        ending(
            {
                "401 in the envelope": (None, answer(401, envelope(10003))),
                "403 in the envelope": (None, answer(403, envelope(10004))),
                "401, an HTML page": (None, answer(401, PAGE)),
            }
        ),
        alone=True,
        again=6,
    ),
    Group(
        "A task that is complete, with a URL that is not gone to",
        "A fresh URL is asked for once; then the job is given up. No request is made, nothing is sent again.",
        EXPIRED,
        [Case(f"a URL with {what}", Part(poll=linked(url)), "forbidden_url") for what, url in URLS.items()],
        polls=2,
        again=1,
    ),
]
