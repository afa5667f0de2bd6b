"""The two identities of a job: its readable key and the fingerprint of what it asks for."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

_SHORTENED = re.compile(r".*\.[0-9a-f]{8}")
"""What a shortened value looks like: a value that looks like one is shortened itself."""

_SAFE = re.compile(r"[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*")
MAX_VALUE = 24
"""Longest matrix value, in characters, that stands in a key as it is."""


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
"""Made once: `json.dumps` makes an encoder for every call, which takes as long as the encoding."""


def canonical_json(value: Any) -> bytes:
    """One spelling for one JSON value: sorted keys, no spaces, UTF-8. Equal values give equal bytes."""
    return _encode(value).encode()


def fingerprint(provider: str, model: str, request: Mapping[str, Any]) -> str:
    """32 hex digits (128 bits of SHA-256) over provider, model and the exact request."""
    return hashlib.sha256(canonical_json([provider, model, request])).hexdigest()[:32]


def submission_token(*known: object) -> str:
    """The name that one submission has for ever: 40 hex digits over what is durable of it (JSON values). Equal facts
    give an equal name, so that it need not be kept, and no two submissions have the same facts."""
    return hashlib.sha256(canonical_json(["submission", *known])).hexdigest()[:40]


def fingerprint_of(provider: str, model: str, request: str) -> str:
    """`fingerprint` of a request that is canonical JSON already, as a ledger keeps it; does not parse it."""
    return hashlib.sha256(b"%s,%s]" % (_names(provider, model), request.encode())).hexdigest()[:32]


@functools.cache
def _names(provider: str, model: str) -> bytes:
    """How the canonical JSON begins."""
    return canonical_json([provider, model])[:-1]


def value_text(value: Any) -> str:
    """A matrix value as it stands in a key: itself where that is short, safe and unmistakable, else shortened
    to safe characters with 8 hex digits of its hash, so that two different values never look the same."""
    canonical = canonical_json(value)
    if isinstance(value, str):
        plain = value
        mistakable = _parses_as_other_type(value) or _SHORTENED.fullmatch(value) is not None
    else:
        plain = canonical.decode()
        mistakable = _SHORTENED.fullmatch(plain) is not None
    if not mistakable and len(plain) <= MAX_VALUE and _SAFE.fullmatch(plain) and not plain.startswith("."):
        return plain
    slug = re.sub(r"[^A-Za-z0-9._]+", "_", plain)[:MAX_VALUE].strip("._") or "x"
    return f"{slug}.{hashlib.sha256(canonical).hexdigest()[:8]}"


def _parses_as_other_type(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def job_key(shot: str, matrix: Mapping[str, Any], take: int) -> str:
    """The key of a job: `shot-take`, or `shot@axis=value+axis=value-take` with the axes sorted by name.

    Stable when shots or matrix values are added, removed or reordered. The last `-N` is always the take.

    Args:
        shot: the shot's id, made of letters, digits, `.`, `_`, `-`.
        matrix: variable name to value.
        take: 1, 2, ...
    """
    if not matrix:
        return f"{shot}-{take}"
    point = "+".join(f"{name}={value_text(matrix[name])}" for name in sorted(matrix))
    return f"{shot}@{point}-{take}"
