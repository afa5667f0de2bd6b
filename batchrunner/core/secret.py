"""A key as it may come back: a server, a proxy or a traceback shows what it was sent, as it stands or encoded."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "(the key)"
SHORTEST = 8
"""A key of fewer characters (a simulator's) is not searched for in texts: it would be found in everything."""


def forms(key: str) -> tuple[str, ...]:
    """What gives the key away: itself, percent-encoded, and base64 at each of the three places in a longer text
    where it can begin. Empty for a key that is too short to be searched for."""
    if len(key) < SHORTEST:
        return ()
    found = dict.fromkeys((key, quote(key, safe=""), quote(key)))
    for before in range(3):
        encoded = b64encode(bytes(before) + key.encode()).decode().rstrip("=")
        # The first characters are made of what stands before the key too, the last of what follows it.
        inner = encoded[(0, 2, 3)[before] : len(encoded) - (1 if (before + len(key)) % 3 else 0)]
        found |= dict.fromkeys((inner, inner.replace("+", "-").replace("/", "_")))
    return tuple(found)


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of these replaced."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
