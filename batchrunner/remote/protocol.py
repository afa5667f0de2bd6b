"""What may be asked of a run, as one line of JSON. Everything that comes in is hostile until it is parsed here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar, assert_never

from ..core.promotion import Verdict
from ..core.states import FailureKind
from ..core.words import TASK_ID, Cancel, Judge, Resolve, Retry, Word

E = TypeVar("E", bound=StrEnum)

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
        polls_per_minute: 1 or more.
    """

    submits_per_minute: float | None = None
    in_flight: int | None = None
    polls_per_minute: float | None = None


Request = Look | Pause | Continue | Limits | Word

WORDS: dict[str, type[Request]] = {
    "status": Look,
    "pause": Pause,
    "continue": Continue,
    "limits": Limits,
    "cancel": Cancel,
    "retry": Retry,
    "resolve": Resolve,
    "judge": Judge,
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


def _typed(kind: type[Request], found: dict[str, Any]) -> Request:
    take = found.get
    if kind is Limits:
        polls = take("polls_per_minute")
        return Limits(_rate(take("submits_per_minute")), _count("in_flight", take("in_flight")), _polls(polls))
    if kind is Cancel:
        return Cancel(_names(take("names")), _text("why", take("why", "")))
    if kind is Retry:
        return Retry(
            _names(take("names")), tuple(_one_of(FailureKind, "kinds", k) for k in _list("kinds", take("kinds")))
        )
    if kind is Resolve:
        return _resolve(found)
    if kind is Judge:
        return Judge(
            _names(take("names")), _one_of(Verdict, "verdict", take("verdict")), _text("note", take("note", ""))
        )
    return Look() if kind is Look else Pause() if kind is Pause else Continue()


def _resolve(found: dict[str, Any]) -> Resolve:
    task_id, resubmit, abandon = found.get("task_id"), found.get("resubmit", False), found.get("abandon", False)
    if not isinstance(resubmit, bool) or not isinstance(abandon, bool):
        raise BadRequest("`resubmit` and `abandon` must be true or false")
    if (task_id is not None) + resubmit + abandon != 1:
        raise BadRequest("exactly one of `task_id`, `resubmit` and `abandon` must be said")
    if task_id is not None and not (isinstance(task_id, str) and TASK_ID.fullmatch(task_id)):
        raise BadRequest("`task_id` is no task id: 1 to 128 letters, digits, '.', '_' or '-'")
    name, why = _text("name", found.get("name")), _text("why", found.get("why", ""))
    revision = _count("revision", found.get("revision"))
    return Resolve(name, task_id, resubmit, abandon, why, revision)


def _names(value: object) -> tuple[str, ...]:
    names = _list("names", value)
    if not names or not all(_is_word(name) and name for name in names):
        raise BadRequest("`names` must be a list of batches, jobs or patterns")
    return tuple(names)


def _list(key: str, value: object) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise BadRequest(f"`{key}` must be a list")
    return value or []


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not _is_word(value):
        raise BadRequest(f"`{key}` must be a text of at most {MAX_WORD} characters")
    return value


def _one_of(kind: type[E], key: str, value: object) -> E:
    found = next((one for one in kind if one == value), None)
    if found is None:
        raise BadRequest(f"`{key}` must be of {', '.join(kind)}")
    return found


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


def _polls(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_LIMIT:
        raise BadRequest(f"`polls_per_minute` must be a number from 1 to {MAX_LIMIT}")
    return float(value)


def _count(key: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise BadRequest(f"`{key}` must be a whole number from 1 to {MAX_LIMIT}")
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
        case Cancel() | Retry() | Resolve() | Judge():
            return 300.0
        case _:
            assert_never(request)
