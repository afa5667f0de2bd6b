"""What each service says, word for word, by its own pages: the raw double of the behaviour suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batchrunner.catalogue import models
from tests.raw_server import Request, http

ID = "task-ab12"
URL = "https://files.example/0.png"
MESSAGE = "what the service says"


@dataclass(frozen=True, slots=True)
class Wording:
    """One service.

    Attributes:
        name: of the provider.
        model: one of its models.
        authorization: the header, but for the key.
        post: where a submission goes, below the base URL.
        sent: the body of a submission of a prompt.
        created: the body that accepts a task of this id.
        created_status: its usual status.
        error: the body of an error with this status.
        state: the answers to the polls of a task of this id, in a state of that name, by path.
        charged: the failed states after which a charge can't be excluded.
        cancel: method and path of a cancel of `ID`; None where there is none.
        cancelled: the answer to it, of a task that is `running` or `done`.
    """

    name: str
    model: str
    authorization: str
    post: str
    sent: dict[str, Any]
    created: Callable[[object], dict[str, Any]]
    created_status: int
    error: Callable[[int], dict[str, Any]]
    state: Callable[[str, str], dict[str, bytes]]
    charged: frozenset[str] = frozenset()
    cancel: tuple[str, str] | None = None
    cancelled: Callable[[str], bytes] | None = None
    request: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", {"model": self.model, "prompt": "ein Corgi läuft"})
        assert models()[self.model].provider == self.name

    def polled(self, state: str, task_id: str = ID) -> Callable[[Request], bytes]:
        """What answers the polls of `ID`, of a task of `task_id`; anything else that is asked for is an error."""
        answers = self.state(state, task_id)
        return lambda request: answers.get(request.target, http(400, b"asked at the wrong place"))


# --- reAPI: REAPI.md -------------------------------------------------------------------------------------


def _reapi_state(state: str, task_id: str) -> dict[str, bytes]:
    word = {"running": "processing", "moderated": "failed", "no output": "completed"}.get(state, state)
    body: dict[str, Any] = {"id": task_id, "model": "z-image", "status": {"done": "completed"}.get(word, word)}
    if state == "done":
        body["output"] = {"image_urls": [URL, URL + "?1"]}
    if state in {"failed", "moderated"}:
        body["error"] = {"code": 80006 if state == "moderated" else 80001, "message": MESSAGE}
    return {f"/api/v1/tasks/{ID}": http(200, body)}


REAPI = Wording(
    name="reapi",
    model="z-image",
    authorization="Bearer ",
    post="/api/v1/images/generations",
    sent={"model": "z-image", "prompt": "ein Corgi läuft"},
    created=lambda task_id: {"id": task_id, "model": "z-image", "status": "processing"},
    created_status=200,
    error=lambda _status: {"error": {"code": 20002, "message": MESSAGE}},
    state=_reapi_state,
)


# --- Replicate: https://replicate.com/docs/reference/http ------------------------------------------------


def _prediction(task_id: object, status: str = "starting", **more: Any) -> dict[str, Any]:
    there = f"https://api.replicate.com/v1/predictions/{task_id}"
    return {
        "id": task_id,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": "ein Corgi läuft"},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "status": status,
        "created_at": "2026-11-01T09:16:21.145Z",
        "urls": {"cancel": f"{there}/cancel", "get": there, "web": f"https://replicate.com/p/{task_id}"},
        **more,
    }


def _replicate_state(state: str, task_id: str) -> dict[str, bytes]:
    told: dict[str, dict[str, Any]] = {
        "running": {"status": "processing"},
        "done": {"status": "succeeded", "output": [URL, URL + "?1"]},
        "no output": {"status": "succeeded", "output": None},
        "failed": {"status": "failed", "error": f"{MESSAGE} (E1001)"},
        "moderated": {"status": "failed", "error": f"{MESSAGE} (E005)"},
        "cancelled": {"status": "aborted"},
        "cancelled late": {"status": "canceled"},
        "expired": {"status": "succeeded", "output": None, "data_removed": True},
    }
    return {f"/v1/predictions/{ID}": http(200, _prediction(task_id, **told.get(state, {"status": state})))}


REPLICATE = Wording(
    name="replicate",
    model="black-forest-labs/flux-schnell",
    authorization="Bearer ",
    post="/v1/models/black-forest-labs/flux-schnell/predictions",
    sent={"input": {"prompt": "ein Corgi läuft"}},
    created=_prediction,
    created_status=201,
    error=lambda status: {"title": "No", "detail": MESSAGE, "status": status},
    state=_replicate_state,
    charged=frozenset({"failed", "moderated", "cancelled late", "expired"}),
    cancel=("POST", f"/v1/predictions/{ID}/cancel"),
    cancelled=lambda state: http(200, _prediction(ID, {"running": "canceled", "done": "succeeded"}[state])),
)


# --- fal: https://fal.ai/docs/api-reference/inference-api ------------------------------------------------


def _queued(task_id: object) -> dict[str, Any]:
    there = f"https://queue.fal.run/fal-ai/flux/requests/{task_id}"
    urls = {"response_url": there, "status_url": f"{there}/status", "cancel_url": f"{there}/cancel"}
    return {"status": "IN_QUEUE", "request_id": task_id, "queue_position": 0, **urls}


def _fal_state(state: str, task_id: str) -> dict[str, bytes]:
    there = f"/fal-ai/flux/requests/{ID}"
    if state not in {"done", "failed", "moderated", "no output"}:
        words = {"running": "IN_PROGRESS"}
        return {f"{there}/status": http(202, {"status": words.get(state, state), "request_id": task_id})}
    flagged = {"loc": ["body", "prompt"], "msg": MESSAGE, "type": "content_policy_violation", "input": "x"}
    results: dict[str, bytes] = {
        "done": http(200, {"images": [{"url": URL, "width": 1}, {"url": URL + "?1"}], "seed": 1, "prompt": "x"}),
        "no output": http(200, {"images": [], "seed": 1}),
        "failed": http(500, {"detail": MESSAGE, "error_type": "runner_disconnected"}),
        "moderated": http(422, {"detail": [flagged]}),
    }
    status = http(200, {"status": "COMPLETED", "request_id": task_id, "logs": None, "metrics": {}})
    return {f"{there}/status": status, there: results[state]}


FAL = Wording(
    name="fal",
    model="fal-ai/flux/schnell",
    authorization="Key ",
    post="/fal-ai/flux/schnell",
    sent={"prompt": "ein Corgi läuft"},
    created=_queued,
    created_status=200,
    error=lambda _status: {"detail": MESSAGE},
    state=_fal_state,
    charged=frozenset({"moderated"}),
    cancel=("PUT", f"/fal-ai/flux/requests/{ID}/cancel"),
    cancelled=lambda state: {
        "running": http(202, {"status": "CANCELLATION_REQUESTED"}),
        "done": http(400, {"status": "ALREADY_COMPLETED"}),
    }[state],
)

WORDINGS = {w.name: w for w in (REAPI, FAL, REPLICATE)}
