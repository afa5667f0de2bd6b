"""fal's queue over HTTP, by its public documentation; docs/providers.md says what of it could not be verified.

- https://fal.ai/docs/api-reference/inference-api: `POST https://queue.fal.run/{model}` with the input as the body
  answers with a `request_id`; `GET /{owner}/{app}/requests/{id}/status` says IN_QUEUE, IN_PROGRESS (202) or COMPLETED
  (200); `GET /{owner}/{app}/requests/{id}` gives what the model answered, with the model's own status; `PUT
  .../cancel`; `Authorization: Key`. Status, result and cancel use only the first two parts of a model's name.
- https://fal.ai/docs/documentation/model-apis/concurrency-limits: what is over the limit waits in the queue; it is
  never refused.
- https://fal.ai/docs/documentation/model-apis/errors and .../request-errors: `detail` is a list of typed errors where
  the model refused (`content_policy_violation` among them), a text with `error_type` where the infrastructure failed.
- https://fal.ai/docs/documentation/model-apis/faq: status 500 and above is never charged; 422 may be, where a runner
  had worked.
- https://fal.ai/docs/inference-api/queue/result: a result is kept for an hour, one of 10 KB or more for 6 minutes,
  unless payloads are stored.

The page says not to build the URLs but to take those of the answer. They are built here all the same: the key must go
to no address that an answer names, and the rule for building them stands on the same page.

No page names an idempotency key, or a call by which a lost submission could be found (`X-Fal-Idempotency-Key` is sent
by other people's clients, and promised nowhere). An account without credit is answered 403, with the reason in words
only (https://github.com/fal-ai/fal/issues/1147): it ends a run like a refused key, and the message says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from ..catalogue import Model
from ..core.events import Completed, PollAnswer, PollFailed, StillRunning, SubmitAnswer, TaskFailed
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
    MAX_URLS,
    Dialect,
    Envelope,
    Reply,
    evidence_of,
    json_object,
    problem_of,
    refusal,
    submit_verdict,
    task_object,
    usable_url,
)
from .wire import Key

NAME = "fal"

MODERATED = "content_policy_violation"
"""Type of the error of a flagged prompt or picture (the page of errors)."""


NO_MODEL = Problem(
    "fal keeps the tasks of each model apart, and this one's model is not known here; name the folder that describes "
    "it with --models DIR, or BATCHRUNNER_MODELS",
    "no_model",
)


def _error(obj: Mapping[str, Any] | None) -> Envelope | None:
    """`{"detail": "..."}`, with an `error_type` or not, or `{"detail": [{"msg", "type", ...}]}`."""
    detail = obj.get("detail") if obj is not None else None
    if obj is None or "request_id" in obj:
        return None
    if isinstance(detail, str) and detail:
        return {"message": detail, "code": obj.get("error_type")}
    first = detail[0] if isinstance(detail, list) and detail else None
    if isinstance(first, dict) and (isinstance(first.get("msg"), str) or isinstance(first.get("type"), str)):
        return {"message": first.get("msg"), "code": first.get("type")}
    return None


def _named(obj: Mapping[str, Any]) -> list[object]:
    return [] if obj.get("request_id") is None else [obj["request_id"]]


DIALECT = Dialect(_error, _named, ids=re.compile(rb'"request_id"\s*:\s*"([A-Za-z0-9._-]{1,128})"'))


def submit_answer(reply: Reply, key: Key, now: float | None = None) -> SubmitAnswer:
    """What the answer to a POST proves; see `submit_verdict`."""
    return submit_verdict(reply, DIALECT, key, now)


def status_answer(reply: Reply, task_id: str, key: Key, now: float | None = None) -> PollAnswer | None:
    """What the status of a request says; None where it is done, and the result says how."""
    obj = task_object(reply, DIALECT, task_id, key, now)
    if not isinstance(obj, dict):
        return obj
    match obj.get("status"):
        case "IN_QUEUE" | "IN_PROGRESS" as status:
            return StillRunning(status)
        case "COMPLETED":
            return None
        case str(other) if other:
            return StillRunning(key.hide(other)[:64], known=False)
        case _:
            return PollFailed(evidence_of(reply, "no_status", "the answer has no status", None, key))


def result_answer(reply: Reply, kind: str, key: Key, now: float | None = None) -> PollAnswer:
    """What the result of a completed request says.

    An error counts as the model's own where it is typed. Any other one may be the gateway's, and says nothing of the
    task.

    Args:
        reply: the answer.
        kind: what the model makes: `video`, `image` or `audio`.
        key: see `Key`.
        now: see `submit_answer`.
    """
    obj = json_object(reply)
    error = DIALECT.error(obj)
    if error is None or error.get("code") is None:
        refused = refusal(reply, error, key, now)
        if refused is not None:
            return refused
    if not reply.good:
        if error is not None and error.get("code") is not None and reply.status >= 400 and not reply.cut:
            problem = problem_of(reply, error, key)
            return TaskFailed(problem, moderated=problem.code == MODERATED, charged=reply.status < 500)
        return PollFailed(evidence_of(reply, "http_error", "the result was not given", error, key))
    if obj is None:
        return PollFailed(evidence_of(reply, "not_json", "the result can't be read", error, key))
    urls = tuple(dict.fromkeys(_urls(obj, kind, key)))[:MAX_URLS]
    if not urls:
        return PollFailed(evidence_of(reply, "no_output", "completed, but no output URL was given", error, key))
    return Completed(urls)


def cancel_answer(reply: Reply, key: Key, now: float | None = None) -> CancelAnswer:
    """What the answer to a cancel says. Its `status` is OK (it had not begun), CANCELLATION_REQUESTED,
    ALREADY_COMPLETED or NOT_FOUND (https://fal.ai/docs/inference-api/queue/cancel)."""
    obj = json_object(reply)
    error = DIALECT.error(obj)
    status = obj.get("status") if obj is not None else None
    if reply.good and status in {"OK", "CANCELLATION_REQUESTED"}:
        return CancelAsked()
    if status in {"ALREADY_COMPLETED", "NOT_FOUND"}:
        words = "it has ended" if status == "ALREADY_COMPLETED" else "the service does not know it"
        return CancelTooLate(Problem(words, str(status), reply.status))
    refused = refusal(reply, error, key, now)
    if refused is not None:
        return refused
    return Unavailable(evidence_of(reply, "http_error", "the wish to cancel was not answered", error, key))


def _urls(result: Mapping[str, Any], kind: str, key: Key) -> Iterator[str]:
    """The URLs of a result: of the fields that are called after what the model makes, such as `images` or `video`; of
    any where there is none."""
    named = [value for name, value in result.items() if name.startswith(kind)]
    for value in named or result.values():
        for item in value if isinstance(value, list) else [value]:
            url = item.get("url") if isinstance(item, dict) else None
            if isinstance(url, str) and url.startswith(("https://", "http://")) and usable_url(url, key):
                yield url


@dataclass(frozen=True)
class FalSettings(HttpSettings):
    """Where and how to call fal; see `HttpSettings`."""

    base_url: str = "https://queue.fal.run"


class Fal(HttpProvider):
    """One fal account."""

    name = NAME
    scheme: ClassVar[str] = "Key"
    request_id_header: ClassVar[str] = "X-Fal-Request-Id"

    def _body(self, model: Model, request: Mapping[str, Any]) -> bytes:
        return canonical_json(model.sent(request))

    def _submitted(self, reply: Reply) -> SubmitAnswer:
        return submit_answer(reply, self._key, self._now())

    async def _task(self, task_id: str, model: Model | None) -> PollAnswer:
        if model is None:
            return PollFailed(NO_MODEL)
        path = _request_path(model, task_id)
        status = await self._get(path + "/status")
        if isinstance(status, Problem):
            return PollFailed(status)
        answer = status_answer(status, task_id, self._key, self._now())
        if answer is not None:
            return answer
        result = await self._get(path)
        if isinstance(result, Problem):
            return PollFailed(result)
        return result_answer(result, model.output, self._key, self._now())

    async def _cancel(self, task_id: str, model: Model | None) -> CancelAnswer:
        if model is None:
            return Unavailable(NO_MODEL)
        reply = await self._call("PUT", _request_path(model, task_id) + "/cancel")
        if isinstance(reply, Problem):
            return Unavailable(reply)
        return cancel_answer(reply, self._key, self._now())


def _request_path(model: Model, task_id: str) -> str:
    """Where a request is asked after: below the first two parts of the model's endpoint."""
    owner_and_app = "/".join(model.endpoint.split("/")[:3])
    return f"{owner_and_app}/requests/{quote(task_id, safe='')}"


def connect(access: Access, clock: Callable[[], float] | None, models: Mapping[str, Model] | None) -> Provider:
    """See `base.Open`."""
    return Fal(FalSettings(access.base_url, access.key, access.user_agent), clock, models)


KIND = ProviderKind(
    name=NAME,
    title="fal",
    capabilities=Capabilities(cancel=True, webhook=True, over_limit=OverLimit.QUEUED, output_hours=None),
    keys=("FAL_KEY",),
    base_url="https://queue.fal.run",
    base_variable="FAL_BASE_URL",
    source="https://fal.ai/docs/api-reference/inference-api",
    open=connect,
)
