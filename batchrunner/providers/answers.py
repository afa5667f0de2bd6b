"""reAPI's answers: bytes to values. Pure, no sockets; never raises, whatever the bytes.

What is known of the service stands in docs (REAPI.md); what an answer to a POST proves, in `replies`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.events import Completed, PollAnswer, PollFailed, StillRunning, SubmitAnswer, TaskFailed
from ..core.job import Problem
from .base import Balance, BalanceAnswer, Unavailable
from .replies import (
    MAX_INT,
    MAX_MESSAGE,
    MAX_URLS,
    Dialect,
    Reply,
    code_of,
    evidence_of,
    json_object,
    refusal,
    submit_verdict,
    task_object,
    usable_url,
    word,
)
from .wire import Key

MODERATED = 80006
"""The content policy's code (REAPI.md, Errors)."""

_URL_FIELDS = ("video_urls", "image_urls", "audio_urls")


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


def _unproven(error: Mapping[str, Any]) -> bool:
    """Whether a code is of the category "unexpected" (6xxxx)."""
    return str(error.get("code")).startswith("6")


DIALECT = Dialect(_error, _named, _unproven)


# --- The three questions ---------------------------------------------------------------------------------


def submit_answer(reply: Reply, key: Key, now: float | None = None) -> SubmitAnswer:
    """What the answer to a POST proves; see `submit_verdict`."""
    return submit_verdict(reply, DIALECT, key, now)


def poll_answer(reply: Reply, task_id: str, key: Key, now: float | None = None) -> PollAnswer:
    """What the answer to a poll says about `task_id`. A 2xx that does not echo that id says nothing."""
    found = task_object(reply, DIALECT, task_id, key, now)
    return _task(reply, found, key) if isinstance(found, dict) else found


def _task(reply: Reply, obj: dict[str, Any], key: Key) -> PollAnswer:
    match obj.get("status"):
        case "processing":
            return StillRunning()
        case "completed":
            return _completed(reply, obj, key)
        case "failed":
            error = obj.get("error")
            error = error if isinstance(error, dict) else {"message": error}
            code = code_of(error.get("code"), key)
            message = word(error.get("message"), key, MAX_MESSAGE) or "the task failed; the provider gave no reason"
            request_id = word(error.get("request_id"), key) or word(reply.request_id, key)
            return TaskFailed(Problem(message, code, reply.status, request_id), moderated=code == MODERATED)
        case str(other) if other:
            return StillRunning(key.hide(other)[:64], known=False)
        case _:
            return PollFailed(evidence_of(reply, "no_status", "the answer has no status", _error(obj), key))


def _completed(reply: Reply, obj: dict[str, Any], key: Key) -> PollAnswer:
    output = obj.get("output")
    output = output if isinstance(output, dict) else {}
    lists = [output[name] for name in _URL_FIELDS if isinstance(output.get(name), list)]
    urls = dict.fromkeys(url for each in lists for url in each if usable_url(url, key))
    kinds = _kinds(output, key) if len([each for each in lists if each]) > 1 else {}
    if not urls:
        return PollFailed(evidence_of(reply, "no_output", "completed, but no output URL was given", _error(obj), key))
    usage = obj.get("usage")
    spent = usage.get("credits") if isinstance(usage, dict) else None
    last = output.get("last_frame_url")
    return Completed(
        tuple(urls)[:MAX_URLS],
        spent if isinstance(spent, int) and not isinstance(spent, bool) and 0 <= spent <= MAX_INT else None,
        last if isinstance(last, str) and usable_url(last, key) else None,
        tuple(kinds[url] for url in tuple(urls)[:MAX_URLS]) if len(set(kinds.values())) > 1 else (),
    )


def _kinds(output: Mapping[str, Any], key: Key) -> dict[str, str]:
    """What each URL gives, by the list that it stands in first."""
    found: dict[str, str] = {}
    for name in _URL_FIELDS:
        for url in output[name] if isinstance(output.get(name), list) else ():
            if usable_url(url, key):
                found.setdefault(url, name.removesuffix("_urls"))
    return found


def balance_answer(reply: Reply, key: Key, now: float | None = None) -> BalanceAnswer:
    """What is left on the account; `{"balance": 12500}` in whole credits."""
    obj = json_object(reply)
    refused = refusal(reply, _error(obj), key, now)
    if refused is not None:
        return refused
    amount = obj.get("balance") if obj is not None and reply.good else None
    if not isinstance(amount, int | float) or isinstance(amount, bool) or not abs(amount) <= MAX_INT:
        return Unavailable(evidence_of(reply, "no_balance", "the balance was not told", _error(obj), key))
    return Balance(math.floor(amount))
