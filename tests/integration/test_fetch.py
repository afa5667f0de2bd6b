"""Downloads over real sockets: what comes home is whole, and what does not leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp.abc
import pytest

from batchrunner.providers.fetch import BATCH, BadContent, Fetcher, FetchError, LinkDead, Transient
from batchrunner.providers.folders import UnsafePath
from batchrunner.providers.part import Fetched
from tests.raw_server import Peer, RawServer, Request, Script, http, keep, once


def box(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2")
CLIP = FTYP + box(b"moov", box(b"mvhd", bytes(100))) + box(b"mdat", b"x" * 1000)
DIGEST = hashlib.sha256(CLIP).hexdigest()


@contextlib.asynccontextmanager
async def fetcher(**settings: Any) -> AsyncIterator[Fetcher]:
    settings.setdefault("loopback", True)
    made = Fetcher(**settings)
    try:
        yield made
    finally:
        await made.aclose()


async def fetch(root: Path, script: Script, **settings: Any) -> Fetched:
    async with RawServer(script) as server, fetcher(**settings) as one:
        try:
            found = await one.fetch(f"{server.url}/0.mp4", root / "a/x.mp4.part", root=root, kind="video")
        except BaseException:
            assert not [f for f in root.rglob("*") if f.is_file()], "nothing is left behind"
            raise
        for request in server.requests:
            assert "authorization" not in request.headers
            assert "cookie" not in request.headers
        return found


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + end


@pytest.mark.parametrize(
    "data",
    [
        http(200, CLIP),
        http(200, CLIP, ("Content-Type", "text/html")),
        http(200, CLIP, ("Set-Cookie", "a=b")),
        http(200, CLIP, ("Content-Encoding", "identity")),
        chunked(CLIP[:100], CLIP[100:]),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CLIP,
        b"HTTP/1.0 200 OK\r\n\r\n" + CLIP,
    ],
)
async def test_a_file_comes_home(tmp_path: Path, data: bytes) -> None:
    found = await fetch(tmp_path, once(data))
    assert found == Fetched(len(CLIP), DIGEST, ".mp4", "MP4")
    part = tmp_path / "a/x.mp4.part"
    assert part.read_bytes() == CLIP
    assert part.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


async def test_what_came_home_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is synced before anybody may give it its final name."""
    synced: dict[int, int] = {}

    def watched(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            real(descriptor)
            about = os.fstat(descriptor)
            synced[about.st_ino] = about.st_size

        return sync

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    found = await fetch(tmp_path, once(http(200, CLIP)))
    part = tmp_path / "a/x.mp4.part"
    assert synced[part.stat().st_ino] == found.size == part.stat().st_size


async def test_a_large_file_in_many_pieces(tmp_path: Path) -> None:
    clip = FTYP + box(b"mdat", os.urandom(7_000_001)) + box(b"moov")
    found = await fetch(tmp_path, once(http(200, clip)))
    assert (found.size, found.sha256) == (len(clip), hashlib.sha256(clip).hexdigest())
    assert (tmp_path / "a/x.mp4.part").read_bytes() == clip


async def test_an_old_part_is_started_over(tmp_path: Path) -> None:
    part = tmp_path / "a/x.mp4.part"
    part.parent.mkdir()
    part.write_bytes(b"y" * 5000)
    await fetch(tmp_path, once(http(200, CLIP)))
    assert part.read_bytes() == CLIP


async def test_a_link_in_place_of_the_part_is_not_written_through(tmp_path: Path) -> None:
    part, other = tmp_path / "out/a/x.mp4.part", tmp_path / "other"
    part.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    part.symlink_to(other)
    await fetch(tmp_path / "out", once(http(200, CLIP)))
    assert other.read_bytes() == b"mine"
    assert not part.is_symlink()


async def test_not_even_one_that_appears_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    (tmp_path / "x.part").symlink_to(other)
    async with RawServer(once(http(200, CLIP))) as server, fetcher() as one:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", lambda _: None)
            with pytest.raises(FileExistsError):
                await one.fetch(f"{server.url}/", tmp_path / "x.part", root=tmp_path, kind="video")
    assert other.read_bytes() == b"mine"


async def test_no_folder_outside_is_written_to(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "a").symlink_to("../elsewhere")
    with pytest.raises(UnsafePath):
        await fetch(root, once(http(200, CLIP)))
    assert not list((tmp_path / "elsewhere").iterdir())


ERRORS: dict[str, tuple[bytes, type[FetchError], str]] = {
    **{str(n): (http(n, "x"), LinkDead, "http_error") for n in (400, 401, 402, 403, 404, 405, 410, 416, 451)},
    **{str(n): (http(n, "x"), Transient, "http_error") for n in (408, 425, 429, 500, 502, 503, 504)},
    "201": (http(201, CLIP), Transient, "http_error"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Transient, "http_error"),
    "206": (http(206, CLIP, ("Content-Range", "bytes 0-9/10")), Transient, "http_error"),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", LinkDead, "http_error"),
    "302 to nowhere": (http(302, "x"), LinkDead, "http_error"),
    "302 empty": (http(302, "x", ("Location", "")), LinkDead, "forbidden_url"),
    "302 to the metadata": (http(302, "", ("Location", "http://169.254.169.254/")), LinkDead, "forbidden_url"),
    "307 to a file": (http(307, "", ("Location", "file:///etc/passwd")), LinkDead, "forbidden_url"),
    "301 to userinfo": (http(301, "", ("Location", "http://a@127.0.0.1/")), LinkDead, "forbidden_url"),
    "303 to http elsewhere": (http(303, "", ("Location", "http://example.com/")), LinkDead, "forbidden_url"),
    "308 in circles": (http(308, "", ("Location", "/0.mp4")), LinkDead, "redirects"),
    "empty": (http(200), BadContent, "not_media"),
    "HTML": (http(200, "<html>expired</html>"), BadContent, "not_media"),
    "JSON": (http(200, '{"error": 1}'), BadContent, "not_media"),
    "a picture": (http(200, b"\x89PNG\r\n\x1a\n" + bytes(99)), BadContent, "truncated"),
    "truncated, its length right": (http(200, CLIP[:-1]), BadContent, "truncated"),
    "truncated, chunked": (chunked(CLIP[:-1]), BadContent, "truncated"),
    "half": (http(200, CLIP[: len(CLIP) // 2]), BadContent, "truncated"),
    "no length, cut": (b"HTTP/1.1 200 OK\r\n\r\n" + CLIP[:-1], Transient, "truncated"),
    "no length, nothing": (b"HTTP/1.1 200 OK\r\n\r\n", BadContent, "not_media"),
    "cut": (http(200, CLIP)[:-1], Transient, "cut_off"),
    "cut at once": (http(200, CLIP)[: -len(CLIP)], Transient, "cut_off"),
    "chunks without end": (chunked(CLIP, end=b""), Transient, "cut_off"),
    "too long a length": (http(200, CLIP, length=len(CLIP) + 1), Transient, "cut_off"),
    "gzip": (http(200, gzip.compress(CLIP), ("Content-Encoding", "gzip")), BadContent, "encoded"),
    "too large": (http(200, CLIP, length=10_000_000), BadContent, "too_large"),
    "too large, unsaid": (b"HTTP/1.1 200 OK\r\n\r\n" + FTYP + box(b"mdat", bytes(2_000_000)), BadContent, "too_large"),
    "garbage": (b"\x16\x03\x01 hello\r\n\r\n", Transient, "bad_response"),
    "nothing": (b"", Transient, "disconnected"),
    "bad chunks": (chunked(CLIP, end=b"zz\r\n"), Transient, "bad_response"),
}


@pytest.mark.parametrize(("data", "kind", "code"), ERRORS.values(), ids=ERRORS.keys())
async def test_errors_by_what_the_caller_may_do(tmp_path: Path, data: bytes, kind: type[FetchError], code: str) -> None:
    with pytest.raises(FetchError) as caught:
        await fetch(tmp_path, keep(lambda _: data) if code == "redirects" else once(data), max_bytes=1_000_000)
    assert type(caught.value) is kind, caught.value
    assert caught.value.problem.code == code


async def test_every_cut_is_noticed(tmp_path: Path) -> None:
    clip = FTYP + box(b"moov") + box(b"mdat", b"x" * 20)
    for data in (http(200, clip), chunked(clip), b"HTTP/1.1 200 OK\r\n\r\n" + clip):
        for cut in range(len(data)):
            with pytest.raises((Transient, BadContent)):
                await fetch(tmp_path, once(data[:cut]))


@pytest.mark.parametrize(("status", "after"), [(429, 7.0), (503, 7.0), (500, None)])
async def test_retry_after(tmp_path: Path, status: int, after: float | None) -> None:
    with pytest.raises(Transient) as caught:
        await fetch(tmp_path, once(http(status, "x", ("Retry-After", "7"))))
    assert caught.value.retry_after == after


async def test_a_reset(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(200, CLIP)[:-5])
        peer.reset()

    with pytest.raises(Transient):
        await fetch(tmp_path, script)


async def test_a_stall(tmp_path: Path) -> None:
    with pytest.raises(Transient) as caught:
        await fetch(tmp_path, once(http(200, CLIP)[:-5], then="wait"), stall_timeout=0.05)
    assert caught.value.problem.code == "timeout"


async def test_a_refused_connection(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with fetcher() as one:
            with pytest.raises(Transient) as caught:
                await one.fetch(
                    f"http://127.0.0.1:{free.getsockname()[1]}/", tmp_path / "x", root=tmp_path, kind="video"
                )
    assert caught.value.problem.code == "connect"


# --- Redirects and addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(("hops", "good"), [(1, True), (3, True), (4, False)])
async def test_redirects_are_counted(tmp_path: Path, hops: int, good: bool) -> None:
    def answer(request: Request) -> bytes:
        number = int(request.target.rpartition("/")[2].partition(".")[0])
        return http(200, CLIP) if number == hops else http(302, "", ("Location", f"/{number + 1}.mp4"))

    if good:
        assert (await fetch(tmp_path, keep(answer))).sha256 == DIGEST
    else:
        with pytest.raises(LinkDead) as caught:
            await fetch(tmp_path, keep(answer))
        assert caught.value.problem.code == "redirects"


class Resolver(aiohttp.abc.AbstractResolver):
    """Says that every name lives at these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1"],
        ["0.0.0.0"],
        ["10.0.0.1", "127.0.0.1"],
        ["::1", "127.0.0.1", "192.168.0.1"],
    ],
)
async def test_a_name_that_leads_into_a_private_network(
    tmp_path: Path, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[object] = []

    async def connect(_: object, address: object) -> None:
        connected.append(address)
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    async with fetcher(loopback=False, resolver=Resolver(*addresses)) as one:
        with pytest.raises(LinkDead) as caught:
            await one.fetch("https://cdn.example/0.mp4", tmp_path / "x.part", root=tmp_path, kind="video")
    assert caught.value.problem.code == "forbidden_address"
    assert connected == []
    assert not list(tmp_path.iterdir())


async def test_of_many_addresses_only_the_public_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []

    async def connect(_: object, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    async with fetcher(loopback=False, resolver=Resolver("10.0.0.1", "8.8.8.8")) as one:
        with pytest.raises(Transient):
            await one.fetch("https://cdn.example/0.mp4", tmp_path / "x.part", root=tmp_path, kind="video")
    assert set(connected) == {"8.8.8.8"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/0.mp4", "https://127.0.0.1:{port}/", "http://localhost:{port}/"]
)
async def test_this_machine_is_out_of_bounds_unless_the_api_is_here(tmp_path: Path, url: str) -> None:
    async with RawServer(once(http(200, CLIP))) as server, fetcher(loopback=False) as one:
        with pytest.raises(LinkDead):
            await one.fetch(url.format(port=server.port), tmp_path / "x.part", root=tmp_path, kind="video")
        assert not server.peers


async def test_proxies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await fetch(tmp_path, once(http(200, CLIP)))).sha256 == DIGEST


async def test_a_signed_url_is_sent_as_it_is(tmp_path: Path) -> None:
    async with RawServer(once(http(200, CLIP))) as server, fetcher() as one:
        target = "/a%2Fb/0.mp4?sig=a+b%2Bc%2f~&x=%7E"
        await one.fetch(f"{server.url}{target}#x", tmp_path / "x.part", root=tmp_path, kind="video")
        assert server.requests[0].target == target


# --- The disk, and cancellation --------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fsync", "open", "close"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_a_failing_disk_is_the_callers_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    real = getattr(os, call)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if call == "open" and not str(args[0]).endswith(".part"):
            return real(*args, **kwargs)
        if call == "close":
            real(*args)
        raise OSError(code, "disk")

    clip = FTYP + box(b"mdat", bytes(5_000_000)) + box(b"moov")
    async with RawServer(once(http(200, clip))) as server, fetcher() as one:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OSError, match="disk") as caught:
                await one.fetch(f"{server.url}/", tmp_path / "x.part", root=tmp_path, kind="video")
        assert caught.value.errno == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sent", [0, 100, 3_000_000])
async def test_cancelling_leaves_nothing(tmp_path: Path, sent: int) -> None:
    clip = FTYP + box(b"mdat", bytes(5_000_000)) + box(b"moov")
    served = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(200, clip)[:sent])
        served.set()
        await peer.until_gone()

    async with RawServer(script) as server, fetcher() as one:
        task = asyncio.create_task(one.fetch(f"{server.url}/", tmp_path / "x.part", root=tmp_path, kind="video"))
        await served.wait()
        if sent > 2 * BATCH:
            while not (tmp_path / "x.part").exists():
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not list(tmp_path.iterdir())


async def test_many_at_once(tmp_path: Path) -> None:
    clips = {n: FTYP + box(b"mdat", os.urandom(50_000 + n)) + box(b"moov") for n in range(40)}

    def answer(request: Request) -> bytes:
        return http(200, clips[int(request.target[1:])])

    async with RawServer(keep(answer)) as server, fetcher(connections=8) as one:
        found = await asyncio.gather(
            *(one.fetch(f"{server.url}/{n}", tmp_path / f"{n}.part", root=tmp_path, kind="video") for n in clips)
        )
        assert len(server.peers) <= 8
    assert [f.sha256 for f in found] == [hashlib.sha256(c).hexdigest() for c in clips.values()]


# --- Looking only ----------------------------------------------------------------------------------------


async def test_a_look_asks_for_one_byte_and_reads_no_more_than_the_head() -> None:
    async with (
        RawServer(once(http(206, b"x", ("Content-Range", "bytes 0-0/9")))) as server,
        fetcher(loopback=True) as one,
    ):
        await one.look(f"{server.url}/0.mp4?signature=a%2Fb")
        assert [(r.method, r.target, r.headers["range"]) for r in server.requests] == [
            ("GET", "/0.mp4?signature=a%2Fb", "bytes=0-0")
        ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (http(403, b""), LinkDead),
        (http(404, b""), LinkDead),
        (http(410, b""), LinkDead),
        (http(503, b""), Transient),
        (http(302, b"", ("Location", "http://10.0.0.1/x")), LinkDead),
        (b"nonsense\r\n\r\n", Transient),
    ],
)
async def test_what_a_look_finds_dead(data: bytes, kind: type[FetchError]) -> None:
    async with RawServer(once(data)) as server, fetcher(loopback=True) as one:
        with pytest.raises(kind):
            await one.look(f"{server.url}/0.mp4")


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "https://127.0.0.1/a", "file:///etc/passwd", "https://u:p@x.example/"]
)
async def test_a_look_goes_nowhere_private(url: str) -> None:
    async with fetcher(loopback=False) as one:
        with pytest.raises(LinkDead):
            await one.look(url)
