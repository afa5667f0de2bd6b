"""reAPI's answers: bytes to values. Pure, no sockets; never raises, whatever the bytes.

What is known of the service stands in docs (REAPI.md); a rule of thumb: for a POST, only the provider's own
envelope together with a status that we really read proves that nothing was created. All else is `Ambiguous`.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ..core.events import (
    Accepted,
    Ambiguous,
    Completed,
    Missing,
    PollAnswer,
    PollFailed,
    Refusal,
    Refused,
    Rejected,
    StillRunning,
    SubmitAnswer,
    TaskFailed,
    Throttled,
)
from ..core.job import Problem
from .base import Balance, BalanceAnswer, Unavailable
from .wire import MAX_ANSWER, Key

MODERATED = 80006
"""The content policy's code (REAPI.md, Errors)."""

MAX_MESSAGE = 500
MAX_WORD = 128
MAX_URL = 8192
MAX_URLS = 64
MAX_INT = 10**12
"""Longest texts in characters, most URLs, and largest number that is taken over from an answer."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HINT = re.compile(rb'"(?:task_id|id)"\s*:\s*"([A-Za-z0-9._-]{1,128})"')
_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")
_URL_FIELDS = ("video_urls", "image_urls", "audio_urls")


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, as far as it was read.

    Attributes:
        status: from a real response, never from an exception.
        body: as it came; the part that was read where `cut` says that it is not all.
        encoding: the Content-Encoding header.
        retry_after, date, request_id: those headers (X-Request-Id).
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


def _object(reply: Reply) -> dict[str, Any] | None:
    """The JSON object in the body; None where there is none (HTML, bad UTF-8, too deep, a list, half of one)."""
    plain = _inflate(reply.body, reply.encoding)
    if plain is None:
        return None
    try:
        loaded = orjson.loads(plain.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _word(value: object, key: Key, limit: int = MAX_WORD) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return key.hide(value)[:limit]


def _code(value: object, key: Key) -> int | str | None:
    """A code that a ledger can hold: an int, also where it was sent as a string of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= MAX_INT else str(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return _word(value, key)


def _error(obj: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The provider's own envelope, `{"error": {"code", "message", ...}}`; None where this is not one."""
    error = obj.get("error") if obj is not None else None
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    has_code = isinstance(code, int | str) and not isinstance(code, bool) and code != ""
    return error if has_code or (isinstance(message, str) and message) else None


def _named(obj: Mapping[str, Any]) -> list[object]:
    """Every value in the answer that stands where a task's id may stand."""
    data = obj.get("data")
    rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    found = [obj.get("id"), obj.get("task_id"), *(row.get("task_id") for row in rows)]
    return [value for value in found if value is not None]


# --- Problems --------------------------------------------------------------------------------------------


def _problem(reply: Reply, error: Mapping[str, Any], key: Key) -> Problem:
    """The provider's own words."""
    message = _word(error.get("message"), key, MAX_MESSAGE) or f"HTTP {reply.status} without a message"
    request_id = _word(error.get("request_id"), key) or _word(reply.request_id, key)
    return Problem(message, _code(error.get("code"), key), reply.status, request_id)


def _evidence(reply: Reply, code: str, what: str, obj: Mapping[str, Any] | None, key: Key) -> Problem:
    """What was seen instead of an answer that proves something: the facts, and a fingerprint of the body."""
    error = _error(obj)
    parts = [f"HTTP {reply.status}: {what}"]
    if reply.cut:
        parts.append(f"the body is not complete ({reply.cut})")
    ids = dict.fromkeys(i for i in (m.decode() for m in _HINT.findall(reply.body)) if not key.within(i))
    if ids:
        parts.append("it names " + ", ".join(list(ids)[:4]))
    if error is not None:
        parts.append("it says: " + (_word(error.get("message"), key, MAX_MESSAGE) or "nothing"))
    parts.append(f"body of {len(reply.body)} bytes, sha256 {hashlib.sha256(reply.body).hexdigest()[:16]}")
    request_id = (_word(error.get("request_id"), key) if error else None) or _word(reply.request_id, key)
    found = _code(error.get("code"), key) if error else None
    return Problem("; ".join(parts)[: 2 * MAX_MESSAGE], code if found is None else found, reply.status, request_id)


# --- The three questions ---------------------------------------------------------------------------------


def submit_answer(reply: Reply, key: Key, now: float | None = None) -> SubmitAnswer:
    """What the answer to a POST proves.

    A whole JSON object with an id is taken also where the connection broke after it: the id was read. An error
    proves that nothing was created only when all of it was read, when it is in the provider's envelope, when
    its status says so, when it names no task, and when its code is not of the category "unexpected" (6xxxx).
    """
    obj = _object(reply)
    error = _error(obj)
    named = _named(obj) if obj is not None else []
    if reply.good:
        return _created(reply, obj, named, key)
    if error is None:
        return Ambiguous(_evidence(reply, "no_envelope", "not an answer of the provider's own", obj, key))
    if reply.cut or named or str(error.get("code")).startswith("6"):
        return Ambiguous(_evidence(reply, "contradiction", "an error that proves nothing", obj, key))
    problem = _problem(reply, error, key)
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
            return Ambiguous(_evidence(reply, "unexpected_status", "not a status that proves anything", obj, key))


def _created(reply: Reply, obj: dict[str, Any] | None, named: list[object], key: Key) -> SubmitAnswer:
    if obj is None:
        return Ambiguous(_evidence(reply, "not_json", "accepted, but the answer can't be read", obj, key))
    first = named[0] if named else None
    if not isinstance(first, str) or not usable_task_id(first) or key.within(first):
        return Ambiguous(_evidence(reply, "no_task_id", "accepted, but no usable task id was given", obj, key))
    if any(other != first for other in named):
        return Ambiguous(_evidence(reply, "conflicting_ids", "accepted, but it names more than one task", obj, key))
    return Accepted(first, _word(obj.get("request_id"), key) or _word(reply.request_id, key))


def poll_answer(reply: Reply, task_id: str, key: Key, now: float | None = None) -> PollAnswer:
    """What the answer to a poll says about `task_id`. A 2xx that does not echo that id says nothing."""
    obj = _object(reply)
    refusal = _refusal(reply, obj, key, now)
    if refusal is not None:
        return refusal
    error = _error(obj)
    if reply.status == 404 and error is not None:
        return Missing(_problem(reply, error, key))
    if not reply.good:
        return PollFailed(_evidence(reply, "http_error", "the poll was not answered", obj, key))
    if obj is None:
        return PollFailed(_evidence(reply, "not_json", "the answer can't be read", obj, key))
    named = _named(obj)
    if not named or any(value != task_id for value in named):
        return PollFailed(_evidence(reply, "wrong_task", "the answer is not about this task", obj, key))
    return _task(reply, obj, key)


def _task(reply: Reply, obj: dict[str, Any], key: Key) -> PollAnswer:
    match obj.get("status"):
        case "processing":
            return StillRunning()
        case "completed":
            return _completed(reply, obj, key)
        case "failed":
            error = obj.get("error")
            error = error if isinstance(error, dict) else {"message": error}
            code = _code(error.get("code"), key)
            message = _word(error.get("message"), key, MAX_MESSAGE) or "the task failed; the provider gave no reason"
            request_id = _word(error.get("request_id"), key) or _word(reply.request_id, key)
            return TaskFailed(Problem(message, code, reply.status, request_id), moderated=code == MODERATED)
        case str(other) if other:
            return StillRunning(key.hide(other)[:64], known=False)
        case _:
            return PollFailed(_evidence(reply, "no_status", "the answer has no status", obj, key))


def _completed(reply: Reply, obj: dict[str, Any], key: Key) -> PollAnswer:
    output = obj.get("output")
    output = output if isinstance(output, dict) else {}
    lists = [output[name] for name in _URL_FIELDS if isinstance(output.get(name), list)]
    urls = dict.fromkeys(url for each in lists for url in each if _usable_url(url, key))
    kinds = _kinds(output, key) if len([each for each in lists if each]) > 1 else {}
    if not urls:
        return PollFailed(_evidence(reply, "no_output", "completed, but no output URL was given", obj, key))
    usage = obj.get("usage")
    spent = usage.get("credits") if isinstance(usage, dict) else None
    last = output.get("last_frame_url")
    return Completed(
        tuple(urls)[:MAX_URLS],
        spent if isinstance(spent, int) and not isinstance(spent, bool) and 0 <= spent <= MAX_INT else None,
        last if isinstance(last, str) and _usable_url(last, key) else None,
        tuple(kinds[url] for url in tuple(urls)[:MAX_URLS]) if len(set(kinds.values())) > 1 else (),
    )


def _kinds(output: Mapping[str, Any], key: Key) -> dict[str, str]:
    """What each URL gives, by the list that it stands in first."""
    found: dict[str, str] = {}
    for name in _URL_FIELDS:
        for url in output[name] if isinstance(output.get(name), list) else ():
            if _usable_url(url, key):
                found.setdefault(url, name.removesuffix("_urls"))
    return found


def _usable_url(value: object, key: Key) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_URL and not key.within(value)


def _refusal(reply: Reply, obj: dict[str, Any] | None, key: Key, now: float | None) -> Throttled | Refused | None:
    """A refusal of a free call. Envelope or not: holding back, or stopping, harms nothing here."""
    if reply.status not in {401, 402, 403, 429}:
        return None
    error = _error(obj)
    if error is not None:
        problem = _problem(reply, error, key)
    else:
        problem = _evidence(reply, "no_envelope", "not an answer of the provider's own", obj, key)
    if reply.status == 429:
        return Throttled(problem, retry_after_seconds(reply.retry_after, reply.date, now))
    return Refused(Refusal.CREDIT if reply.status == 402 else Refusal.CREDENTIALS, problem)


def balance_answer(reply: Reply, key: Key, now: float | None = None) -> BalanceAnswer:
    """What is left on the account; `{"balance": 12500}` in whole credits."""
    obj = _object(reply)
    refusal = _refusal(reply, obj, key, now)
    if refusal is not None:
        return refusal
    amount = obj.get("balance") if obj is not None and reply.good else None
    if not isinstance(amount, int | float) or isinstance(amount, bool) or not abs(amount) <= MAX_INT:
        return Unavailable(_evidence(reply, "no_balance", "the balance was not told", obj, key))
    return Balance(math.floor(amount))
