"""The base URL, the key, and errors in safe words."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from typing import Any, cast

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from batchrunner.core.hosts import is_loopback_host
from batchrunner.providers.reapi import ReApi, ReApiSettings
from batchrunner.providers.wire import Key, explain, parse_base, read_into

SECRET = "rk_live_canary_0123456789"


@pytest.mark.parametrize(
    ("text", "url", "origin"),
    [
        ("https://reapi.ai", "https://reapi.ai/api/v1", "https://reapi.ai"),
        ("https://reapi.ai/", "https://reapi.ai/api/v1", "https://reapi.ai"),
        ("https://reapi.ai/api/v1", "https://reapi.ai/api/v1", "https://reapi.ai"),
        ("https://reapi.ai/api/v1/", "https://reapi.ai/api/v1", "https://reapi.ai"),
        ("HTTPS://ReAPI.ai:443", "https://reapi.ai/api/v1", "https://reapi.ai"),
        ("https://reapi.ai:8443/api/v1", "https://reapi.ai:8443/api/v1", "https://reapi.ai:8443"),
        ("https://gate.example/reapi/", "https://gate.example/reapi/api/v1", "https://gate.example"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v1", "http://127.0.0.1:8080"),
        ("http://localhost:8080/api/v1/", "http://localhost:8080/api/v1", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080/api/v1", "http://[::1]:8080"),
    ],
)
def test_base_urls(text: str, url: str, origin: str) -> None:
    base = parse_base(text, "/api/v1")
    assert (base.url, base.origin) == (url, origin)
    provider = ReApi(ReApiSettings(text, SECRET))
    assert provider.origin == origin
    assert provider.loopback == text.startswith("http:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reapi.ai",
        "reapi.ai/api/v1",
        "//reapi.ai",
        "http://reapi.ai",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://0.0.0.0:1",
        "http://10.0.0.1",
        "ftp://reapi.ai",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://user@reapi.ai",
        "https://user:secret@reapi.ai",
        "https://reapi.ai?x=1",
        "https://reapi.ai?",
        "https://reapi.ai/#x",
        "https://reapi.ai\\@evil.example",
        "https://reapi.ai /",
        "https://reapi.ai\n",
        "https://reäpi.ai",
        "https://reapi.ai:port",
        "https://reapi.ai:99999",
        "https://[::1",
    ],
)
def test_bad_base_urls(text: str) -> None:
    with pytest.raises(ValueError, match="the server's address") as caught:
        ReApiSettings(text, SECRET)
    assert SECRET not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "10.0.0.1", "::", "localhost.example.com", "127.1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize("bad", ["", SECRET + "\n", " " + SECRET, "a\r\nX: y", "a\tb", "a\x00", "schlüssel", "a\x7f"])
def test_bad_keys_are_not_echoed(bad: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        ReApiSettings("https://reapi.ai", bad)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_key_can_not_be_printed() -> None:
    settings = ReApiSettings("https://reapi.ai", SECRET)
    for thing in (settings, settings.key, ReApi(settings), [settings.secret]):
        assert SECRET not in repr(thing)
        assert SECRET not in str(thing)
        assert SECRET not in f"{thing}"
    assert settings.secret.reveal() == SECRET
    assert ReApiSettings(key=Key(SECRET)).secret.reveal() == SECRET


def test_hiding() -> None:
    assert Key(SECRET).hide(f"a {SECRET} b {SECRET}") == "a (the key) b (the key)"
    assert Key("short").hide("a short text") == "a short text"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_agent", ""),
        ("user_agent", "a\r\nX: y"),
        ("user_agent", "ü"),
        ("submit_timeout", 119.0),
        ("poll_timeout", 0.0),
        ("max_posts", 0),
    ],
)
def test_bad_settings(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="must"):
        ReApiSettings("https://reapi.ai", SECRET, **{name: value})  # type: ignore[arg-type]


def test_a_short_timeout_is_for_loopback_only() -> None:
    ReApiSettings("http://127.0.0.1:1", SECRET, submit_timeout=1.0)


def test_no_error_is_explained_in_its_own_words() -> None:
    """The repr of a ClientResponseError holds the request's headers."""
    secret = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {SECRET}"}))
    info = aiohttp.RequestInfo(URL("https://x"), "POST", secret, URL("https://x"))
    key = aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None)
    errors: list[tuple[BaseException, str]] = [
        (aiohttp.ClientResponseError(info, (), status=400, message=SECRET), "bad_response"),
        (aiohttp.ServerDisconnectedError(SECRET), "disconnected"),
        (aiohttp.ClientPayloadError(SECRET), "cut_off"),
        (aiohttp.ClientOSError(104, SECRET), "network"),
        (aiohttp.ConnectionTimeoutError(SECRET), "connect_timeout"),
        (aiohttp.SocketTimeoutError(SECRET), "timeout"),
        (aiohttp.ClientConnectorError(key, OSError(111, SECRET)), "connect"),
        (aiohttp.ClientConnectorDNSError(key, OSError(-2, SECRET)), "dns"),
        (aiohttp.ClientConnectorSSLError(key, ssl.SSLError(1, SECRET)), "tls"),
        (aiohttp.ClientConnectorCertificateError(key, ssl.CertificateError(1, SECRET)), "tls"),
        (aiohttp.InvalidURL(SECRET), "bad_url"),
        (TimeoutError(SECRET), "timeout"),
        (OSError(SECRET), "network"),
        (asyncio.CancelledError(SECRET), "cancelled"),
        (ZeroDivisionError(SECRET), "error"),
    ]
    assert SECRET in repr(errors[0][0])
    for error, code in errors:
        problem = explain(error)
        assert problem.code == code
        assert SECRET not in repr(problem)
        assert type(error).__name__ in problem.message


class Body:
    """A body of some chunks of 1,000 bytes that counts what was taken of it."""

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self.taken = 0

    async def readany(self) -> bytes:
        if self.taken == self._chunks:
            return b""
        self.taken += 1
        return b"x" * 1000


@pytest.mark.parametrize(
    ("chunks", "limit", "whole", "length", "taken"),
    [(0, 10, True, 0, 0), (2, 2000, True, 2000, 2), (3, 2999, False, 2999, 3), (100, 2500, False, 2500, 3)],
)
async def test_a_body_is_read_up_to_the_limit_and_no_further(
    chunks: int, limit: int, whole: bool, length: int, taken: int
) -> None:
    body, into = Body(chunks), bytearray()
    assert await read_into(cast("Any", body), into, limit) is whole
    assert (len(into), body.taken) == (length, taken)
