"""Which host is this machine."""

from __future__ import annotations

import functools
import ipaddress


@functools.lru_cache(maxsize=1024)
def is_loopback_host(host: str) -> bool:
    """Whether a URL's host is this machine by its very spelling: `localhost`, 127/8 or `::1`."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
