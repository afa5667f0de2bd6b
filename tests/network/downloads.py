"""What may happen to a download, and what is made of it."""

from __future__ import annotations

import gzip

from tests.network.polls import Ways
from tests.network.posts import GZIP, PAGE, answer, chunked, close, early, head
from tests.network.stage import Act, Part, Scene, drip, say, served, turns
from tests.network.table import EXPIRED, SUCCEEDED, Case, Code, Group, Verdict
from tests.raw_server import Peer, http


def to(location: str) -> Act:
    """A redirect; `{url}` is the server's own, `{path}` the output's path."""
    return say(lambda s: http(302, b"", ("Location", location.format(url=s.url, path=s.head.target))))


def clip(change: str) -> Act:
    """The file, changed."""
    changes = {
        "cut": lambda s: http(200, s.clip)[:-1],
        "half": lambda s: http(200, s.clip)[: -len(s.clip) // 2],
        "nothing": lambda s: http(200, s.clip)[: -len(s.clip)],
        "long": lambda s: http(200, s.clip, length=len(s.clip) + 1),
        "endless chunks": lambda s: chunked(s.clip, end=b""),
        "bad chunk": lambda s: head(200, "Transfer-Encoding: chunked") + b"xyz\r\n" + s.clip,
        "cut without a length": lambda s: head(200) + s.clip[:-1],
    }
    return close(changes[change])


def small(change: str) -> Act:
    """A whole answer whose file is not whole."""
    changes = {
        "half": lambda s: http(200, s.clip[: len(s.clip) // 2]),
        "a byte": lambda s: http(200, s.clip[:-1]),
        "gzip": lambda s: http(200, gzip.compress(s.clip), GZIP),
        "chunks": lambda s: chunked(s.clip[:-1]),
    }
    return say(changes[change])


async def stalled(peer: Peer, scene: Scene) -> None:
    await peer.body(scene.head)
    await peer.send(http(200, scene.clip)[:-100])
    await peer.until_gone()


async def silent(peer: Peer, scene: Scene) -> None:
    await peer.until_gone()


FINE: dict[str, Act] = {
    "200": served,
    "200, byte by byte": drip(lambda s: http(200, s.clip)),
    "200 as text/html": say(lambda s: http(200, s.clip, ("Content-Type", "text/html"))),
    "200 in chunks": say(lambda s: chunked(s.clip)),
    "200 without a length": close(lambda s: head(200) + s.clip),
    "HTTP/1.0": close(lambda s: b"HTTP/1.0 200 OK\r\n\r\n" + s.clip),
    "200, and a cookie": say(lambda s: http(200, s.clip, ("Set-Cookie", "a=b"))),
    "one redirect": turns(to("{path}?1"), served),
    "three redirects, relative and absolute": turns(to("{url}{path}?1"), to("{path}?2"), to("?3"), served),
    "403 once, then a fresh URL": turns(answer(403, PAGE), served),
    "404 once, then a fresh URL": turns(answer(404, PAGE), served),
    "410 once, then a fresh URL": turns(answer(410, PAGE), served),
    "a redirect to a private address once": turns(to("http://10.0.0.1/"), served),
}

PASSING: dict[str, tuple[str | Ways, Act]] = {
    **{f"{status}, then the file": ("http_error", answer(status, PAGE)) for status in (201, 206, 408, 425, 429, 500)},
    "204, then the file": ("http_error", say(head(204))),
    "503 with Retry-After: 1, then the file": ("http_error", answer(503, PAGE, ("Retry-After", "1"))),
    "a close without an answer": ("disconnected", close()),
    "a reset without an answer": (("disconnected", "network"), early(b"", "reset")),
    "a close after the headers": ("cut_off", clip("nothing")),
    "a close within the file": ("cut_off", clip("half")),
    "a close before the last byte": ("cut_off", clip("cut")),
    "a reset within the file": (
        ("cut_off", "network"),
        say(lambda s: http(200, s.clip)[: -len(s.clip) // 2], "reset"),
    ),
    "Content-Length a byte too large": ("cut_off", clip("long")),
    "chunks without an end": ("cut_off", clip("endless chunks")),
    "a chunk's size that is no number": (("bad_response", "cut_off"), clip("bad chunk")),
    "no length, and a byte missing": ("truncated", clip("cut without a length")),
    "garbage": ("bad_response", close(b"\x16\x03\x01 hello\r\n\r\n")),
    "an HTML page": ("not_media", answer(200, PAGE)),
    "empty": ("not_media", answer(200)),
    "half of the file, its length right": ("truncated", small("half")),
    "a byte missing, its length right": ("truncated", small("a byte")),
    "a byte missing, in chunks": ("truncated", small("chunks")),
    "gzip": ("encoded", small("gzip")),
}

DEAD: dict[str, tuple[Code, Act]] = {
    **{f"{status}, always": ("http_error", answer(status, PAGE)) for status in (400, 401, 403, 404, 410, 451)},
    "four redirects": ("redirects", turns(*[to(f"{{path}}?{n}") for n in range(8)])),
    "a redirect loop": ("redirects", to("{path}")),
    "a redirect without Location": ("http_error", answer(302)),
    "a redirect to nowhere": ("forbidden_url", answer(302, b"", ("Location", ""))),
    "a redirect to a private address": ("forbidden_url", to("https://10.0.0.1/0.mp4")),
    "a redirect to the metadata address": ("forbidden_url", to("http://169.254.169.254/latest/meta-data/")),
    "a redirect to file:": ("forbidden_url", to("file:///etc/passwd")),
    "a redirect to a user": ("forbidden_url", to("http://user@127.0.0.1/0.mp4")),
    "a redirect to http elsewhere": ("forbidden_url", to("http://example.com/0.mp4")),
}

UNUSABLE: dict[str, tuple[Code, Act]] = {
    "an HTML page, always": ("not_media", answer(200, PAGE)),
    "empty, always": ("not_media", answer(200)),
    "a byte missing, its length right, always": ("truncated", small("a byte")),
    "gzip, always": ("encoded", small("gzip")),
    "5 GiB announced": ("too_large", close(lambda s: http(200, s.clip, length=5 << 30))),
    "more than the largest file, unannounced": (
        "too_large",
        close(lambda s: head(200) + s.clip + bytes(200_000)),
    ),
}

ENDLESS: dict[str, Act] = {
    "500, always": answer(500, PAGE),
    "429 with Retry-After: 0, always": answer(429, PAGE, ("Retry-After", "0")),
    "a close before the last byte, always": clip("cut"),
    "silence instead of an answer, always": silent,
    "silence within the file, always": stalled,
}

GROUPS = [
    Group(
        "A download that comes home",
        "At most three redirects are followed, each checked. For a dead URL a fresh one is asked for once.",
        SUCCEEDED,
        [Case(f"download: {what}", Part(media=act)) for what, act in FINE.items()],
        again=0,
    ),
    Group(
        "A download that fails once",
        "It starts over. Nothing stands under the final name before it is whole.",
        SUCCEEDED,
        [
            Case(f"download: {what}", Part(media=turns(act, served)), seen=code if isinstance(code, tuple) else (code,))
            for what, (code, act) in PASSING.items()
        ],
        again=0,
    ),
    Group(
        "A download whose URL is dead",
        "A fresh URL is asked for once, and is dead too. What was paid stays counted, and nothing is sent again.",
        EXPIRED,
        [Case(f"download: {what}", Part(media=act), code) for what, (code, act) in DEAD.items()],
        polls=2,
        again=1,
    ),
    Group(
        "A download that is never a usable file",
        "Three tries from each of two URLs; the test waits less between them, and the largest file is 100,000 bytes "
        "instead of 4 GiB.",
        EXPIRED,
        [Case(f"download: {what}", Part(media=act), code) for what, (code, act) in UNUSABLE.items()],
        patience={"largest": 100_000},
        polls=2,
        again=1,
    ),
    Group(
        "A download that never ends well",
        "After 15 minutes (less in the test) it is left to the next run, which goes on with it.",
        Verdict("downloading", None, ("spent",), 4),
        [Case(f"download: {what}", Part(media=act)) for what, act in ENDLESS.items()],
        patience={"download": 0.2, "stall": 0.5},
        again=4,
    ),
]
