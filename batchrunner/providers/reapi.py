"""reAPI over HTTP: the only module that knows its calls. What its answers mean stands in `answers.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from ..catalogue import Model
from ..core.events import PollAnswer, PollFailed, SubmitAnswer
from ..core.job import Problem
from ..core.keys import canonical_json
from . import answers
from .base import Access, BalanceAnswer, Capabilities, OverLimit, Provider, ProviderKind, Unavailable
from .http import HttpProvider, HttpSettings
from .replies import Reply

NAME = "reapi"
DEFAULT_BASE_URL = "https://reapi.ai"
PREFIX = "/api/v1"


@dataclass(frozen=True)
class ReApiSettings(HttpSettings):
    """Where and how to call reAPI; see `HttpSettings`."""

    PREFIX: ClassVar[str] = PREFIX

    base_url: str = DEFAULT_BASE_URL


class ReApi(HttpProvider):
    """One reAPI account."""

    name = NAME

    def _body(self, model: Model, request: Mapping[str, Any]) -> bytes:
        del model
        return canonical_json(request)

    def _submitted(self, reply: Reply) -> SubmitAnswer:
        return answers.submit_answer(reply, self._key, self._now())

    async def _task(self, task_id: str, model: Model | None) -> PollAnswer:
        del model
        reply = await self._get(f"/tasks/{quote(task_id, safe='')}")
        if isinstance(reply, Problem):
            return PollFailed(reply)
        return answers.poll_answer(reply, task_id, self._key, self._now())

    async def balance(self) -> BalanceAnswer:
        """See `Provider.balance`."""
        reply = await self._get("/balance")
        if isinstance(reply, Problem):
            return Unavailable(reply)
        return answers.balance_answer(reply, self._key, self._now())


def connect(access: Access, clock: Callable[[], float] | None, models: Mapping[str, Model] | None) -> Provider:
    """See `base.Open`."""
    return ReApi(ReApiSettings(access.base_url, access.key, access.user_agent), clock, models)


KIND = ProviderKind(
    name=NAME,
    title="reAPI",
    capabilities=Capabilities(over_limit=OverLimit.REFUSED, balance=True, refunds=True),
    keys=("REAPI_API_KEY", "REAPI_KEY"),
    base_url=DEFAULT_BASE_URL,
    base_variable="REAPI_BASE_URL",
    source="https://reapi.ai/docs",
    open=connect,
)
