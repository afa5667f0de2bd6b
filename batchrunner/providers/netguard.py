"""Which URLs and addresses an output may be fetched from. A server's word must not send us into a private network.

A URL is checked by its spelling before it is used, redirects included, and every address once more when a socket
is made for it: a name may resolve to anything, and a resolver never sees an IP literal.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import re
import socket
from dataclasses import dataclass

from yarl import URL

from ..core.hosts import is_loopback_host

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

MAX_URL = 8192
"""Longest URL, in characters."""

_PLAIN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
"""6to4 and Teredo: an IPv4 address in disguise, and long out of use."""
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
_NOT_PUBLIC_V4 = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's host, from inside a virtual machine
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
)


class ForbiddenUrl(Exception):
    """This URL will not be fetched; the message says why, without the URL itself."""


class ForbiddenAddress(OSError):
    """The name leads to an address that is not public."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not a public address")


@functools.lru_cache(maxsize=1024)
def is_public(text: str) -> bool:
    """Whether an IP address, as a resolver or a URL spells it, is on the public internet."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in _GLOBAL_UNICAST or address in _DOCUMENTATION or any(address in t for t in _TUNNELS):
            return False
    elif any(address in network for network in _NOT_PUBLIC_V4):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


@functools.lru_cache(maxsize=1024)
def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@functools.lru_cache(maxsize=1024)
def _is_address(host: str) -> bool | None:
    """Whether a URL's host is an IP address, not a name; None for what is neither: "127.1", "0x7f000001" and
    "2130706433" are addresses to the C library, and names to nobody."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) else False
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules for one API.

    Attributes:
        loopback: whether the API itself is on this machine; then its outputs may be there too, over http and
            on any port.
    """

    loopback: bool = False

    def check(self, text: str) -> URL:
        """The URL, exactly as it was signed, where its spelling breaks no rule.

        Raises:
            ForbiddenUrl: it does.
        """
        if not text or len(text) > MAX_URL:
            raise ForbiddenUrl("the URL is empty or too long")
        if _UNFIT.search(text) is not None:
            raise ForbiddenUrl("the URL contains a space, a backslash or a control character")
        try:
            # What is already a proper URL must not be respelled: a signature may cover every byte of it.
            url = URL(text, encoded=_PLAIN.fullmatch(text) is not None)
            if "#" in text:
                url = url.with_fragment(None)
            host, port, authority = url.host, url.port, url.raw_authority
        except ValueError:
            raise ForbiddenUrl("the URL can't be read") from None
        if url.scheme not in {"http", "https"} or not host:
            raise ForbiddenUrl("the URL is not an https URL with a host")
        if "@" in authority:
            raise ForbiddenUrl("the URL contains a user or a password")
        self._check_host(host)
        at_home = self.loopback and is_loopback_host(host)
        if not at_home and url.scheme != "https":
            raise ForbiddenUrl("the URL is not https")
        if not at_home and port != 443:
            raise ForbiddenUrl("the URL names a port other than 443")
        return url

    def follow(self, url: URL, location: str) -> URL:
        """Where a redirect from `url` leads, checked like any other URL.

        Raises:
            ForbiddenUrl: it leads nowhere we go.
        """
        if not location or len(location) > MAX_URL or _UNFIT.search(location) is not None:
            raise ForbiddenUrl("the redirect leads to no valid URL")
        if _SCHEME.match(location):
            return self.check(location)
        try:
            target = str(url.join(URL(location, encoded=_PLAIN.fullmatch(location) is not None)))
        except ValueError:
            raise ForbiddenUrl("the redirect leads to no valid URL") from None
        return self.check(target)

    def _check_host(self, host: str) -> None:
        literal = _is_address(host)
        if literal is None:
            raise ForbiddenUrl("the URL's host is a number that is not an IP address")
        if literal and not self.allows(host):
            raise ForbiddenUrl("the URL's host is not a public address")

    def allows(self, address: str) -> bool:
        """Whether a socket may be connected to this IP address."""
        return is_public(address) or (self.loopback and _is_loopback(address))

    def socket(self, info: AddressInfo) -> socket.socket:
        """A socket for one address: `TCPConnector(socket_factory=guard.socket)`.

        Raises:
            ForbiddenAddress: the address is not allowed. Nothing was sent to it.
        """
        family, kind, protocol, _name, where = info
        address = str(where[0])
        if not self.allows(address):
            raise ForbiddenAddress(address)
        return socket.socket(family=family, type=kind, proto=protocol)
