"""What every provider's answers have in common: bytes to values, and what an answer to a POST proves. Pure, no sockets;
never raises, whatever the bytes.

A rule of thumb: for a POST, only the provider's own envelope together with a status that we really read proves that
nothing was created. All else is `Ambiguous`. How a provider words things is its `Dialect`.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ..core.events import (
    Accepted,
    Ambiguous,
    Missing,
    PollFailed,
    Refusal,
    Refused,
    Rejected,
    SubmitAnswer,
    Throttled,
)
from ..core.job import Problem
from .base import Found, LookupAnswer, NotFound, Unavailable
from .wire import MAX_ANSWER, Key

MAX_MESSAGE = 500
MAX_WORD = 128
MAX_URL = 8192
MAX_URLS = 64
MAX_INT = 10**12
"""Longest texts in characters, most URLs, and largest number that is taken over from an answer."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
Ids = re.Pattern[bytes]

IDS: Ids = re.compile(rb'"(?:task_id|id)"\s*:\s*"([A-Za-z0-9._-]{1,128})"')
"""Where a task's id may stand in an answer that can't be read otherwise: for a person to look at."""

_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, as far as it was read.

    Attributes:
        status: from a real response, never from an exception.
        body: as it came; the part that was read where `cut` says that it is not all.
        encoding: the Content-Encoding header.
        retry_after, date, request_id: those headers (what the service calls the last).
        cut: why the body is not complete; empty where it is.
    """

    status: int
    body: bytes
    encoding: str = ""
    retry_after: str | None = None
    date: str | None = None
    request_id: str | None = None
    cut: str = ""

    @property
    def good(self) -> bool:
        return 200 <= self.status <= 299


Envelope = Mapping[str, Any]
"""A provider's own error, brought to the keys `message`, `code` and `request_id`, each as it came or absent."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a provider words what all of them say.

    Attributes:
        error: the provider's own error in an answer's object (None: there was none); None where this is not one.
        named: every value in the object that stands where a task's id may stand.
        unproven: whether an error in the envelope may hide that something was created all the same.
        ids: see `IDS`.
    """

    error: Callable[[Mapping[str, Any] | None], Envelope | None]
    named: Callable[[Mapping[str, Any]], list[object]]
    unproven: Callable[[Envelope], bool] = lambda _error: False
    ids: Ids = IDS


def usable_task_id(text: object) -> bool:
    """Whether this can be a task's id: 1 to 128 of letters, digits, `.`, `_`, `-`, and not `.` or `..`."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None and text not in {".", ".."}


def retry_after_seconds(value: str | None, date: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for; None where it is absent or nonsense. Not clamped above.

    Args:
        value: the header: seconds, or an HTTP date.
        date: the answer's own Date header: a date is measured against it, so the two clocks need not agree.
        now: our clock in unix seconds, used for a date where the answer has no Date; None for no clock.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _http_date(value)
    since = _http_date(date) if date else None
    since = now if since is None else since
    if until is None or since is None:
        return None
    return max(0.0, until - since)


def _http_date(text: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(text)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return (parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# --- From bytes to JSON ----------------------------------------------------------------------------------


def _inflate(body: bytes, encoding: str) -> bytes | None:
    """The body as sent, at most `MAX_ANSWER` bytes; None where it can't be had. We ask for `identity` only."""
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        return body
    if kind not in {"gzip", "x-gzip", "deflate"}:
        return None
    try:
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = inflate.decompress(body, MAX_ANSWER + 1)
    except zlib.error:
        return None
    return plain if inflate.eof and len(plain) <= MAX_ANSWER else None


def json_object(reply: Reply) -> dict[str, Any] | None:
    """The JSON object in the body; None where there is none (HTML, bad UTF-8, too deep, a list, half of one)."""
    plain = _inflate(reply.body, reply.encoding)
    if plain is None:
        return None
    try:
        loaded = orjson.loads(plain.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    return loaded if isinstance(loaded, dict) else None


def word(value: object, key: Key, limit: int = MAX_WORD) -> str | None:
    """A text of an answer, bounded and without the key; None where there is none."""
    if not isinstance(value, str) or not value:
        return None
    return key.hide(value)[:limit]


def code_of(value: object, key: Key) -> int | str | None:
    """A code that a ledger can hold: an int, also where it was sent as a string of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= MAX_INT else str(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return word(value, key)


# --- Problems --------------------------------------------------------------------------------------------


def problem_of(reply: Reply, error: Envelope, key: Key) -> Problem:
    """The provider's own words."""
    message = word(error.get("message"), key, MAX_MESSAGE) or f"HTTP {reply.status} without a message"
    request_id = word(error.get("request_id"), key) or word(reply.request_id, key)
    return Problem(message, code_of(error.get("code"), key), reply.status, request_id)


def evidence_of(reply: Reply, code: str, what: str, error: Envelope | None, key: Key, ids: Ids = IDS) -> Problem:
    """What was seen instead of an answer that proves something: the facts, and a fingerprint of the body."""
    parts = [f"HTTP {reply.status}: {what}"]
    if reply.cut:
        parts.append(f"the body is not complete ({reply.cut})")
    named = dict.fromkeys(i for i in (m.decode() for m in ids.findall(reply.body)) if not key.within(i))
    if named:
        parts.append("it names " + ", ".join(list(named)[:4]))
    if error is not None:
        parts.append("it says: " + (word(error.get("message"), key, MAX_MESSAGE) or "nothing"))
    parts.append(f"body of {len(reply.body)} bytes, sha256 {hashlib.sha256(reply.body).hexdigest()[:16]}")
    request_id = (word(error.get("request_id"), key) if error else None) or word(reply.request_id, key)
    found = code_of(error.get("code"), key) if error else None
    return Problem("; ".join(parts)[: 2 * MAX_MESSAGE], code if found is None else found, reply.status, request_id)


# --- What an answer proves -------------------------------------------------------------------------------


def submit_verdict(reply: Reply, dialect: Dialect, key: Key, now: float | None = None) -> SubmitAnswer:
    """What the answer to a POST proves.

    A whole JSON object with an id is taken also where the connection broke after it: the id was read. An error
    proves that nothing was created only when all of it was read, when it is in the provider's envelope, when
    its status says so, when it names no task, and when the provider's dialect knows of no doubt.
    """
    obj, ids = json_object(reply), dialect.ids
    error = dialect.error(obj)
    named = dialect.named(obj) if obj is not None else []
    if reply.good:
        return _created(reply, obj, named, error, key, ids)
    if error is None:
        return Ambiguous(evidence_of(reply, "no_envelope", "not an answer of the provider's own", error, key, ids))
    if reply.cut or named or dialect.unproven(error):
        return Ambiguous(evidence_of(reply, "contradiction", "an error that proves nothing", error, key, ids))
    problem = problem_of(reply, error, key)
    match reply.status:
        case 429:
            return Throttled(problem, retry_after_seconds(reply.retry_after, reply.date, now))
        case 401 | 403:
            return Refused(Refusal.CREDENTIALS, problem)
        case 402:
            return Refused(Refusal.CREDIT, problem)
        case 400 | 404 | 413 | 422:
            return Rejected(problem)
        case _:
            return Ambiguous(evidence_of(reply, "unexpected_status", "a status that proves nothing", error, key, ids))


def _created(
    reply: Reply,
    obj: dict[str, Any] | None,
    named: list[object],
    error: Envelope | None,
    key: Key,
    ids: re.Pattern[bytes],
) -> SubmitAnswer:
    if obj is None:
        return Ambiguous(evidence_of(reply, "not_json", "accepted, but the answer can't be read", error, key, ids))
    first = named[0] if named else None
    if not isinstance(first, str) or not usable_task_id(first) or key.within(first):
        return Ambiguous(evidence_of(reply, "no_task_id", "accepted, but no usable task id was given", error, key, ids))
    if any(other != first for other in named):
        return Ambiguous(evidence_of(reply, "conflicting_ids", "accepted, but it names several tasks", error, key, ids))
    return Accepted(first, word(obj.get("request_id"), key) or word(reply.request_id, key))


def refusal(reply: Reply, error: Envelope | None, key: Key, now: float | None) -> Throttled | Refused | None:
    """A refusal of a free call. Envelope or not: holding back, or stopping, harms nothing here."""
    if reply.status not in {401, 402, 403, 429}:
        return None
    if error is not None:
        problem = problem_of(reply, error, key)
    else:
        problem = evidence_of(reply, "no_envelope", "not an answer of the provider's own", error, key)
    if reply.status == 429:
        return Throttled(problem, retry_after_seconds(reply.retry_after, reply.date, now))
    return Refused(Refusal.CREDIT if reply.status == 402 else Refusal.CREDENTIALS, problem)


def task_object(
    reply: Reply, dialect: Dialect, task_id: str, key: Key, now: float | None
) -> dict[str, Any] | Missing | PollFailed | Throttled | Refused:
    """The object that a poll was answered with, where it is about `task_id`; what else was answered otherwise. A 2xx
    that does not echo that id says nothing."""
    obj = json_object(reply)
    error = dialect.error(obj)
    refused = refusal(reply, error, key, now)
    if refused is not None:
        return refused
    if reply.status == 404 and error is not None:
        return Missing(problem_of(reply, error, key))
    if not reply.good:
        return PollFailed(evidence_of(reply, "http_error", "the poll was not answered", error, key))
    if obj is None:
        return PollFailed(evidence_of(reply, "not_json", "the answer can't be read", error, key))
    named = dialect.named(obj)
    if not named or any(value != task_id for value in named):
        return PollFailed(evidence_of(reply, "wrong_task", "the answer is not about this task", error, key))
    return obj


def lookup_verdict(
    reply: Reply,
    dialect: Dialect,
    told: Callable[[dict[str, Any]], Sequence[tuple[object, object]] | None],
    token: str,
    key: Key,
    now: float | None,
) -> LookupAnswer:
    """What the answer to a lookup proves.

    Args:
        told: the (token, task id) pairs that an answer lists; None where it has no such list.

    Returns:
        `Found` where a whole 2xx lists one usable id, and that for `token`. `NotFound` where a whole 2xx lists nothing,
        or where the provider's own 404 says so. A list with anybody else's task in it proves nothing, nor do two ids.
    """
    obj = json_object(reply)
    error = dialect.error(obj)
    refused = refusal(reply, error, key, now)
    if refused is not None:
        return refused
    if reply.status == 404 and error is not None and not reply.cut:
        return NotFound(problem_of(reply, error, key))
    if not reply.good or reply.cut or obj is None:
        return Unavailable(evidence_of(reply, "not_told", "the lookup was not answered", error, key))
    pairs = told(obj)
    if pairs is None:
        return Unavailable(evidence_of(reply, "not_told", "the answer is none to a lookup", error, key))
    if not pairs:
        return NotFound(Problem("the service knows of no such submission", "not_found", reply.status))
    tokens, ids = [one for one, _ in pairs], [one for _, one in pairs]
    if len(pairs) > 1 or tokens != [token] or not usable_task_id(ids[0]) or key.within(str(ids[0])):
        return Unavailable(evidence_of(reply, "not_certain", "the answer is not about this submission", error, key))
    return Found(str(ids[0]))


def usable_url(value: object, key: Key) -> bool:
    """Whether a value of an answer may be taken for an output's URL."""
    return isinstance(value, str) and 0 < len(value) <= MAX_URL and not key.within(value)
