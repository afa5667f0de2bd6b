"""What the service says: its errors, who may call, which requests are valid, what they cost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jsonschema_rs
import orjson

from .. import catalogue
from ..catalogue import Model
from ..core.pacing import Gcra
from .settings import SimulatorSettings

FAILURES = {
    80099: "The task was cancelled",
    80001: "The provider failed to generate the output",
    80006: "Request violates content policy",
}
"""Messages of failed tasks by code; 80006 and its message are KNOWN (REAPI.md), 8xxxx is the provider's category."""

CANCELLED = 80099
"""Code of a task that its user has cancelled; of the simulator's own making."""

MAX_MESSAGE = 300
"""Longest validation message, characters: a schema error quotes the value, and a prompt can be long."""


class ApiError(Exception):
    """An answer in the service's error envelope.

    Attributes:
        status: HTTP status.
        code: the service's five digits; the first is the category. Where REAPI.md gives none, one of that category.
        message: for people.
        counter: what the simulator's account counts it as.
        retry_after: whole seconds, for 429.
    """

    def __init__(
        self, status: int, code: int, message: str, *, counter: str = "errors", retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.counter = counter
        self.retry_after = retry_after


def invalid(message: str, *, code: int = 20003, status: int = 400) -> ApiError:
    """A request that will never be accepted. 20002: the body; 20003: a field."""
    return ApiError(status, code, message[:MAX_MESSAGE], counter="rejected")


def throttled(seconds: float, message: str = "Rate limit exceeded, retry later") -> ApiError:
    """429; `Retry-After` is in whole seconds, rounded up."""
    return ApiError(429, 50001, message, counter="throttled", retry_after=max(1, -int(-seconds // 1)))


def no_credit() -> ApiError:
    """402."""
    return ApiError(402, 30001, "Insufficient credits", counter="refused")


def unauthorized(code: int, message: str) -> ApiError:
    """401."""
    return ApiError(401, code, message, counter="refused")


def unknown_task() -> ApiError:
    """404 of a poll: no such task, or another key's."""
    return ApiError(404, 40001, "Task not found")


def broken(status: int) -> ApiError:
    """5xx."""
    return ApiError(status, 60099, "Unexpected error")


class Users:
    """Who may call, and how often. A user is known by a hash of the key; the key itself is never kept."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._allowed = None if settings.keys is None else frozenset(map(_user, settings.keys))
        self._limits = (settings.requests_per_minute, settings.submits_per_minute)
        self._burst = settings.burst
        self._meters: dict[str, tuple[Gcra | None, Gcra | None]] = {}

    def authenticate(self, header: str | None, expected: str = "Bearer") -> str:
        """The user of an `Authorization` header.

        Args:
            header: as it came.
            expected: the word that stands before the key.

        Raises:
            ApiError: 401, codes 10001 (missing), 10002 (malformed), 10003 (invalid).
        """
        if not header:
            raise unauthorized(10001, "API key is missing")
        scheme, _, key = header.partition(" ")
        key = key.strip()
        if scheme.lower() != expected.lower() or not key.startswith("rk_") or not key.isascii() or " " in key:
            raise unauthorized(10002, "API key is malformed")
        user = _user(key)
        if self._allowed is not None and user not in self._allowed:
            raise unauthorized(10003, "API key is invalid")
        return user

    def admit(self, user: str, now: float, *, submit: bool) -> None:
        """Count a call of a user against the limits.

        Raises:
            ApiError: 429; a refused call takes nothing from the limit.
        """
        if self._limits == (None, None):
            return
        meters = self._meters.get(user)
        if meters is None:
            meters = self._meters[user] = (self._meter(self._limits[0]), self._meter(self._limits[1]))
        due = [meter for meter in (meters[0], meters[1] if submit else None) if meter is not None]
        delay = max((meter.delay(now) for meter in due), default=0.0)
        if delay > 1e-6:
            raise throttled(delay)
        for meter in due:
            meter.take(now)

    def _meter(self, per_minute: float | None) -> Gcra | None:
        return None if per_minute is None else Gcra(per_minute, self._burst)


def _user(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16, person=b"batchrunner-sim").hexdigest()


class Models:
    """The models that the service has, and what each accepts."""

    def __init__(self, models: Mapping[str, Model] | None = None) -> None:
        """Without an argument: the shipped ones."""
        self._models = models
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def get(self, name: str) -> Model | None:
        """None where there is no such model."""
        return (catalogue.models() if self._models is None else self._models).get(name)

    def at(self, provider: str, endpoint: str) -> Model | None:
        """The model of a provider at a path of its own; None where there is none."""
        every = (catalogue.models() if self._models is None else self._models).values()
        return next((m for m in every if m.provider == provider and m.endpoint == endpoint), None)

    def __getitem__(self, name: str) -> Model:
        """The model of a task; an account that was kept may have one that is not known any more."""
        found = self.get(name)
        if found is None:
            raise ApiError(500, 60099, f"the simulator was started without the model {name!r}")
        return found

    def validator(self, model: Model) -> jsonschema_rs.Draft202012Validator:
        """Of the model's requests."""
        if model.name not in self._validators:
            options = jsonschema_rs.RegexOptions()
            self._validators[model.name] = jsonschema_rs.Draft202012Validator(model.schema, pattern_options=options)
        return self._validators[model.name]


SHIPPED = Models()


def parse_request(
    endpoint: str, body: bytes, models: Models = SHIPPED, public: Callable[[str, str], str] = lambda _field, text: text
) -> tuple[Model, dict[str, Any]]:
    """The model and the fields of a request body.

    Args:
        endpoint: the path that it was posted to, such as `/videos/generations`.
        body: as received.
        models: the service's.
        public: the field, and a text in it, to the text that is judged: a URL of the simulator's
            own is no public one. Raises ApiError where there is nothing to be fetched.

    Raises:
        ApiError: 400; the first thing that is wrong.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"Request body is not valid JSON: {error}", code=20002) from None
    if not isinstance(request, dict):
        raise invalid("Request body must be a JSON object", code=20002)
    name = request.get("model")
    if not isinstance(name, str):
        raise invalid("model: required")
    model = models.get(name)
    if model is None or model.endpoint != endpoint:
        raise invalid(f"model: {name!r} is not available at {endpoint}")
    judged = {name: _each(value, partial(public, name)) for name, value in request.items()}
    wrong = next(iter(models.validator(model).iter_errors(judged)), None)
    if wrong is not None:
        raise invalid(f"{'.'.join(map(str, wrong.instance_path)) or 'request'}: {wrong.message}")
    return model, request


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in value.items()}
    return value


def cost(model: Model, request: dict[str, Any]) -> int:
    """Credits for a request by the catalogue's dated price, defaults filled in; 0 where no price is known."""
    return (model.price.credits(request, model.defaults) if model.price else None) or 0
