"""Replicate over HTTP, by its public documentation; docs/providers.md says what of it could not be verified.

- https://replicate.com/docs/reference/http: `POST /v1/models/{owner}/{name}/predictions` with `{"input": {...}}` makes
  a prediction and answers with it at once (`Prefer: wait` is not sent); `GET /v1/predictions/{id}`, `POST
  /v1/predictions/{id}/cancel`; `Authorization: Bearer`.
- https://replicate.com/docs/topics/predictions/lifecycle: starting, processing, succeeded, failed, canceled, aborted.
  What was aborted never ran and costs nothing; what was canceled is charged for the time that it ran.
- https://replicate.com/docs/topics/predictions/data-retention: files of a prediction that was made by the API are gone
  after an hour; then `data_removed` is true.
- https://replicate.com/docs/topics/predictions/rate-limits: 600 predictions a minute, 3000 other calls; beyond that
  429.

An error is `{"detail": "...", "title"?, "status"?}`. There is no idempotency key. The list of predictions shows their
input, but two takes of one prompt have the same input and others may use the account: nothing in it is certain, so
that a lost answer is never looked up there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from ..catalogue import Model
from ..core.events import (
    Completed,
    Missing,
    PollAnswer,
    PollFailed,
    Refused,
    StillRunning,
    SubmitAnswer,
    TaskFailed,
    Throttled,
)
from ..core.job import Problem
from ..core.keys import canonical_json
from .base import (
    Access,
    CancelAnswer,
    CancelAsked,
    CancelTooLate,
    Capabilities,
    OverLimit,
    Provider,
    ProviderKind,
    Unavailable,
)
from .http import HttpProvider, HttpSettings
from .replies import (
    MAX_MESSAGE,
    MAX_URLS,
    Dialect,
    Envelope,
    Reply,
    evidence_of,
    submit_verdict,
    task_object,
    usable_url,
    word,
)
from .wire import Key

NAME = "replicate"

SENSITIVE = "E005"
"""Code at the end of the error of a prediction whose input or output was flagged. Not on the page of error codes: seen
in other people's reports."""

_CODE = re.compile(r"\((E[0-9]{3,4})\)\s*$|^(E[0-9]{4})\b")
_URL = re.compile(r"https?://")


def _error(obj: Mapping[str, Any] | None) -> Envelope | None:
    """`{"detail": "...", "title"?, "status"?}`, and no prediction."""
    if obj is None or "urls" in obj or not isinstance(obj.get("detail"), str) or not obj["detail"]:
        return None
    return {"message": obj["detail"], "code": obj.get("title")}


def _named(obj: Mapping[str, Any]) -> list[object]:
    return [] if obj.get("id") is None else [obj["id"]]


DIALECT = Dialect(_error, _named)


def submit_answer(reply: Reply, key: Key, now: float | None = None) -> SubmitAnswer:
    """What the answer to a POST proves; see `submit_verdict`."""
    return submit_verdict(reply, DIALECT, key, now)


def poll_answer(reply: Reply, task_id: str, key: Key, now: float | None = None) -> PollAnswer:
    """What the answer to a poll says about a prediction."""
    found = task_object(reply, DIALECT, task_id, key, now)
    return _prediction(reply, found, key) if isinstance(found, dict) else found


def _prediction(reply: Reply, obj: dict[str, Any], key: Key) -> PollAnswer:
    match obj.get("status"):
        case "starting" | "processing" as status:
            return StillRunning(status)
        case "succeeded":
            urls = tuple(dict.fromkeys(_urls(obj.get("output"), key)))[:MAX_URLS]
            if urls:
                return Completed(urls)
            if obj.get("data_removed") is True:
                words = "it succeeded, and its output was removed by the service: files are kept for an hour"
                return TaskFailed(Problem(words, "data_removed", reply.status), charged=True)
            return PollFailed(evidence_of(reply, "no_output", "succeeded, but no output URL was given", None, key))
        case "failed":
            message = word(obj.get("error"), key, MAX_MESSAGE) or "the prediction failed; the provider gave no reason"
            code = _CODE.search(message)
            found = (code[1] or code[2]) if code is not None else None
            return TaskFailed(Problem(message, found, reply.status), moderated=found == SENSITIVE, charged=True)
        case "canceled":
            return TaskFailed(Problem("it was canceled while it ran", "canceled", reply.status), charged=True)
        case "aborted":
            return TaskFailed(Problem("it was canceled before it ran", "aborted", reply.status))
        case str(other) if other:
            return StillRunning(key.hide(other)[:64], known=False)
        case _:
            return PollFailed(evidence_of(reply, "no_status", "the answer has no status", None, key))


def _urls(output: object, key: Key) -> Iterator[str]:
    """The URLs of an output, which is whatever the model makes: a URL, a list or an object of them."""
    if isinstance(output, str):
        if _URL.match(output) and usable_url(output, key):
            yield output
    elif isinstance(output, list):
        for item in output:
            yield from _urls(item, key) if isinstance(item, str) else ()
    elif isinstance(output, dict):
        for item in output.values():
            yield from _urls(item, key) if isinstance(item, (str, list)) else ()


@dataclass(frozen=True)
class ReplicateSettings(HttpSettings):
    """Where and how to call Replicate; see `HttpSettings`."""

    PREFIX: ClassVar[str] = "/v1"

    base_url: str = "https://api.replicate.com"


class Replicate(HttpProvider):
    """One Replicate account."""

    name = NAME

    def _body(self, model: Model, request: Mapping[str, Any]) -> bytes:
        return canonical_json({"input": model.sent(request)})

    def _submitted(self, reply: Reply) -> SubmitAnswer:
        return submit_answer(reply, self._key, self._now())

    async def _task(self, task_id: str, model: Model | None) -> PollAnswer:
        del model
        reply = await self._get(f"/predictions/{quote(task_id, safe='')}")
        if isinstance(reply, Problem):
            return PollFailed(reply)
        return poll_answer(reply, task_id, self._key, self._now())

    async def _cancel(self, task_id: str, model: Model | None) -> CancelAnswer:
        del model
        reply = await self._call("POST", f"/predictions/{quote(task_id, safe='')}/cancel")
        if isinstance(reply, Problem):
            return Unavailable(reply)
        return cancel_answer(reply, task_id, self._key, self._now())


def cancel_answer(reply: Reply, task_id: str, key: Key, now: float | None = None) -> CancelAnswer:
    """What the answer to a cancel says; it shows the prediction as it is then."""
    found = task_object(reply, DIALECT, task_id, key, now)
    match found:
        case Missing(problem=problem):
            return CancelTooLate(problem)
        case PollFailed(problem=problem):
            return Unavailable(problem)
        case Throttled() | Refused():
            return found
    if found.get("status") in {"succeeded", "failed"}:
        return CancelTooLate(Problem(f"it has {found['status']}", found["status"], reply.status))
    return CancelAsked()


def connect(access: Access, clock: Callable[[], float] | None, models: Mapping[str, Model] | None) -> Provider:
    """See `base.Open`."""
    return Replicate(ReplicateSettings(access.base_url, access.key, access.user_agent), clock, models)


KIND = ProviderKind(
    name=NAME,
    title="Replicate",
    capabilities=Capabilities(cancel=True, webhook=True, over_limit=OverLimit.REFUSED, output_hours=1.0),
    keys=("REPLICATE_API_TOKEN",),
    base_url="https://api.replicate.com",
    base_variable="REPLICATE_BASE_URL",
    source="https://replicate.com/docs/reference/http",
    open=connect,
)
