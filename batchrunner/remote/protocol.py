"""What may be asked of a run, as one line of JSON. Everything that comes in is hostile until it is parsed here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, assert_never

MAX_LINE = 64 * 1024
"""Bytes of a request."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer: a cancelled batch is listed job by job."""

MAX_WORD = 500
"""Characters of a name or a reason."""

MAX_LIMIT = 1_000_000
"""Highest limit, as in the manifest's schema."""


class BadRequest(Exception):
    """The request says nothing that a run understands. The message says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """How is it going?"""


@dataclass(frozen=True, slots=True)
class Pause:
    """Submit nothing more until `Continue`; what was sent is followed and fetched."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Submit again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Other upper bounds for the rest of the run; None leaves one as it is.

    Attributes:
        submits_per_minute: above 0.
        in_flight: 1 or more.
    """

    submits_per_minute: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraw pending jobs: names as on a command line (batches, keys, patterns), and why."""

    names: tuple[str, ...]
    why: str = ""


Request = Look | Pause | Continue | Limits | Cancel

WORDS = {
    "status": Look,
    "pause": Pause,
    "continue": Continue,
    "limits": Limits,
    "cancel": Cancel,
}


def encode(request: Request) -> bytes:
    """The line of a request.

    Raises:
        BadRequest: it is longer than a run would read.
    """
    word = next(word for word, kind in WORDS.items() if isinstance(request, kind))
    line = json.dumps({"do": word, **asdict(request)}).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise BadRequest("too many names for one request; name the batch, or use a pattern in quotes")
    return line


def parse(line: bytes) -> Request:
    """What a line asks for.

    Raises:
        BadRequest: nothing that there is.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("the request is no JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("the request is no JSON object")
    word = found.pop("do", None)
    kind = WORDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise BadRequest(f"`do` must be one of {', '.join(WORDS)}")
    if unknown := set(found) - {field.name for field in fields(kind)}:
        raise BadRequest(f"{word} takes no {min(unknown)[:40]!r}")
    return _typed(kind, found)


def _typed(kind: type[Look | Pause | Continue | Limits | Cancel], found: dict[str, Any]) -> Request:
    if kind is Limits:
        return Limits(_rate(found.get("submits_per_minute")), _count(found.get("in_flight")))
    if kind is Cancel:
        names, why = found.get("names"), found.get("why", "")
        if not isinstance(names, list) or not names or not all(_is_word(name) and name for name in names):
            raise BadRequest("`names` must be a list of batches, jobs or patterns")
        if not _is_word(why):
            raise BadRequest(f"`why` must be a text of at most {MAX_WORD} characters")
        return Cancel(tuple(names), why)
    return Look() if kind is Look else Pause() if kind is Pause else Continue()


def _is_word(value: object) -> bool:
    """Short text that SQLite can store: no lone surrogate."""
    if not isinstance(value, str) or len(value) > MAX_WORD:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rate(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_LIMIT:
        raise BadRequest(f"`submits_per_minute` must be a number above 0, and at most {MAX_LIMIT}")
    return float(value)


def _count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise BadRequest(f"`in_flight` must be a whole number from 1 to {MAX_LIMIT}")
    return value


def answer(**data: Any) -> bytes:
    """The line of an answer."""
    return json.dumps({"ok": True, **data}).encode() + b"\n"


def refusal(message: str) -> bytes:
    """The line of an answer that says no."""
    return json.dumps({"ok": False, "error": message}).encode() + b"\n"


def patience(request: Request) -> float:
    """Seconds to wait for an answer."""
    match request:
        case Look() | Pause() | Continue() | Limits():
            return 15.0
        case Cancel():
            return 300.0
        case _:
            assert_never(request)
