"""HTTP plumbing that every provider needs: the key, the base URL, bounded reading, and errors put into safe words.

An aiohttp exception is never kept, printed or turned into text: the repr of some of them holds the request's
headers, and so the key.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ..core import secret
from ..core.hosts import is_loopback_host
from ..core.job import Problem

MAX_ANSWER = 1 << 20
"""Longest answer of an API that is read, in bytes, before and after decompression (FAILURES.md)."""


class Key:
    """An API key that can't be printed by accident."""

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str) -> None:
        """Args:
            value: the key as it stands in the header, printable ASCII without spaces.

        Raises:
            ValueError: it is empty or could not stand in a header. The message does not contain it.
        """
        if not value:
            raise ValueError("the API key is empty: set its environment variable")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError(
                "the API key contains a space, a line break or another character that no key has: "
                "copy it again, without quotes or a newline at its end"
            )
        self._value = value
        self._forms = secret.forms(value)

    def __repr__(self) -> str:
        return "Key(hidden)"

    def reveal(self) -> str:
        """The key itself, for the Authorization header and nothing else."""
        return self._value

    def within(self, text: str) -> bool:
        """Whether `text` gives the key away."""
        return any(form in text for form in self._forms)

    def hide(self, text: str) -> str:
        """`text` with the key replaced: a server may echo what it was sent."""
        return secret.hide(text, self._forms)


@dataclass(frozen=True, slots=True)
class Base:
    """Where an API lives.

    Attributes:
        url: with the API's prefix, without a trailing slash.
        origin: scheme, host and port (where it is not the default): what the key is bound to.
        loopback: whether the host is this machine.
    """

    url: str
    origin: str
    loopback: bool


def parse_base(text: str, prefix: str) -> Base:
    """A base URL as a user may write it: with or without the API's prefix, or a slash at its end.

    Args:
        text: such as `https://reapi.ai` or `http://127.0.0.1:8080/api/v1/`.
        prefix: the API's path, such as `/api/v1`.

    Raises:
        ValueError: it can't be used; the message says how to mend it.
    """
    shown = repr(text)
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"the server's address {shown} contains a character that no address has")
    try:
        url = URL(text)
        host, _port = url.host, url.port
    except ValueError as error:
        raise ValueError(f"the server's address {shown} can't be read: write it like https://reapi.ai") from error
    if "@" in url.raw_authority:
        raise ValueError("the server's address contains a user or a password: the key has a variable of its own")
    if url.scheme not in {"http", "https"} or not host:
        raise ValueError(f"the server's address {shown} must start with https://, like https://reapi.ai")
    if "?" in text or "#" in text:
        raise ValueError(f"the server's address {shown} must end before the ? or #")
    loopback = is_loopback_host(host)
    if url.scheme == "http" and not loopback:
        raise ValueError(f"the server's address {shown} must start with https://: the key would travel unprotected")
    path = url.raw_path.rstrip("/").removesuffix(prefix).rstrip("/")
    origin = str(url.origin())
    return Base(f"{origin}{path}{prefix}", origin, loopback)


async def read_into(content: aiohttp.StreamReader, into: bytearray, limit: int = MAX_ANSWER) -> bool:
    """Read a body until its end into `into`, which also holds what came before an exception.

    Returns:
        False where it is longer than `limit` bytes: the rest was not read.
    """
    while chunk := await content.readany():
        into += chunk
        if len(into) > limit:
            del into[limit:]
            return False
    return True


_KNOWN: tuple[tuple[type[BaseException], str, str], ...] = (
    (asyncio.CancelledError, "cancelled", "the request was cancelled"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", "no connection within the time allowed"),
    (aiohttp.ClientConnectorDNSError, "dns", "the server's name could not be resolved"),
    (aiohttp.ClientConnectorCertificateError, "tls", "the server's certificate can't be trusted"),
    (aiohttp.ClientSSLError, "tls", "no secure connection could be made"),
    (aiohttp.ClientConnectorError, "connect", "no connection"),
    (TimeoutError, "timeout", "no answer within the time allowed"),
    (aiohttp.ServerDisconnectedError, "disconnected", "the server closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "cut_off", "the answer broke off"),
    (aiohttp.ClientResponseError, "bad_response", "what came back is not HTTP"),
    (HttpProcessingError, "bad_response", "what came back is not HTTP"),
    (aiohttp.InvalidURL, "bad_url", "the address is not valid"),
    (OSError, "network", "the connection failed"),
)


def explain(error: BaseException) -> Problem:
    """What went wrong, in words of ours: the class of the error and the system's errno, never its own text."""
    code, words = next(
        ((code, words) for kind, code, words in _KNOWN if isinstance(error, kind)),
        ("error", "an unexpected error"),
    )
    number = error.errno if isinstance(error, OSError) else None
    # aiohttp sets errno from the OSError below it; a resolver's codes are negative and no errno.
    detail = f": {os.strerror(number)}" if isinstance(number, int) and number > 0 and code != "tls" else ""
    return Problem(f"{words}{detail} ({type(error).__name__})", code)
