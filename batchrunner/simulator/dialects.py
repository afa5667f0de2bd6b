"""The words of the other services: what the simulated account does, said as fal's queue and Replicate say it.

One account answers in every dialect. What is sent is brought to the catalogue's words, what is answered from reAPI's;
which pages the forms follow stands in `providers.fal` and `providers.replicate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..catalogue import Model
from . import api

Payload = dict[str, Any]


class Dialect:
    """How one service words what the account does; these are reAPI's own words."""

    scheme = "Bearer"
    """The word before the key in the Authorization header."""
    id_field = "id"
    """Where the answer to a POST names the task."""

    def request(self, body: bytes, endpoint: str, models: api.Models) -> bytes:
        """A POST's body in the catalogue's words, `model` included. Raises ApiError: 400, 404, 422."""
        del endpoint, models
        return body

    def accepted(self, answer: Mapping[str, Any], endpoint: str, url: str) -> tuple[int, Payload]:
        """The status and body that accept a task."""
        del endpoint, url
        return 200, dict(answer)

    def error(self, error: api.ApiError, request_id: str) -> Payload:
        """The body of an error."""
        return {"error": {"code": error.code, "message": error.message, "request_id": request_id}}


class Replicate(Dialect):
    """Predictions."""

    def request(self, body: bytes, endpoint: str, models: api.Models) -> bytes:
        fields = _object(body).get("input")
        if not isinstance(fields, dict):
            raise api.invalid("input: required", status=422)
        return _named(fields, _model("replicate", endpoint, models))

    def accepted(self, answer: Mapping[str, Any], endpoint: str, url: str) -> tuple[int, Payload]:
        del endpoint
        return 201, self.prediction({**answer, "status": "starting"}, url)

    def error(self, error: api.ApiError, request_id: str) -> Payload:
        del request_id
        return {"title": f"Error {error.code}", "detail": error.message, "status": error.status}

    def prediction(self, answer: Mapping[str, Any], url: str) -> Payload:
        """A prediction, from a task as `World.poll` tells it."""
        there = f"{url}/v1/predictions/{answer['id']}"
        told: Payload = {
            "id": answer["id"],
            "model": answer["model"],
            "version": "hidden",
            "status": {"completed": "succeeded"}.get(answer["status"], answer["status"]),
            "output": None,
            "error": None,
            "data_removed": False,
            "urls": {"get": there, "cancel": f"{there}/cancel"},
        }
        if answer["status"] == "completed":
            told["output"] = _outputs(answer)
        if answer["status"] == "failed":
            code = answer["error"]["code"]
            told["error"] = answer["error"]["message"] + (" (E005)" if code == 80006 else " (E1000)")
            if code == api.CANCELLED:
                told |= {"status": "canceled", "error": None}
        return told


@dataclass(frozen=True, slots=True)
class Result:
    """What a model answered: status and body."""

    status: int
    body: Payload


class Fal(Dialect):
    """The queue."""

    scheme = "Key"
    id_field = "request_id"

    def request(self, body: bytes, endpoint: str, models: api.Models) -> bytes:
        return _named(_object(body), _model("fal", endpoint, models))

    def accepted(self, answer: Mapping[str, Any], endpoint: str, url: str) -> tuple[int, Payload]:
        there = f"{url}{'/'.join(endpoint.split('/')[:3])}/requests/{answer['id']}"
        return 200, {
            "status": "IN_QUEUE",
            "request_id": answer["id"],
            "response_url": there,
            "status_url": f"{there}/status",
            "cancel_url": f"{there}/cancel",
            "queue_position": 0,
        }

    def error(self, error: api.ApiError, request_id: str) -> Payload:
        del request_id
        return {"detail": error.message}

    def status(self, answer: Mapping[str, Any]) -> Result:
        """How far a request is."""
        words = {"processing": "IN_PROGRESS", "completed": "COMPLETED", "failed": "COMPLETED"}
        word = words.get(answer["status"], answer["status"])
        return Result(200 if word == "COMPLETED" else 202, {"status": word, "request_id": answer["id"]})

    def result(self, answer: Mapping[str, Any], kind: str) -> Result:
        """What the model answered; while it works, that it does."""
        if answer["status"] == "completed":
            files = [{"url": url} for url in _outputs(answer)]
            return Result(200, {f"{kind}s": files} if kind == "image" or len(files) > 1 else {kind: files[0]})
        if answer["status"] != "failed":
            return Result(400, {"detail": "Request is still in progress"})
        message = answer["error"]["message"]
        if answer["error"]["code"] == 80006:
            flagged = {"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation"}
            return Result(422, {"detail": [flagged]})
        return Result(500, {"detail": message, "error_type": "internal_error"})


REAPI, REPLICATE, FAL = Dialect(), Replicate(), Fal()


def _object(body: bytes) -> Payload:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise api.invalid(f"Request body is not valid JSON: {error}", code=20002) from None
    if not isinstance(found, dict):
        raise api.invalid("Request body must be a JSON object", code=20002)
    return found


def _model(provider: str, endpoint: str, models: api.Models) -> Model:
    model = models.at(provider, endpoint)
    if model is None:
        raise api.ApiError(404, 40002, f"Application not found: {endpoint[:100]}", counter="rejected")
    return model


def _named(fields: Payload, model: Model) -> bytes:
    """The request in the catalogue's words: the model named, numbers that came as text as numbers."""
    for name in model.as_text:
        value = fields.get(name)
        if name in fields and not (isinstance(value, str) and value.isascii() and value.isdigit()):
            raise api.invalid(f'{name}: must be text, such as "5"', status=422)
    numbers = {name: int(fields[name]) for name in model.as_text if name in fields}
    return orjson.dumps({**fields, **numbers, "model": model.name})


def _outputs(answer: Mapping[str, Any]) -> list[str]:
    return [url for name, urls in answer["output"].items() if name.endswith("_urls") for url in urls]
