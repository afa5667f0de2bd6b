"""What the engine needs of a provider. `reapi.py` is the first one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.events import PollAnswer, Refused, SubmitAnswer, Throttled
from ..core.job import Problem

BeforeSend = Callable[[], Awaitable[None]]
"""Awaited when a connection is held and before the first byte of a POST. An exception raised in it aborts the
request with zero bytes on the wire and comes out of `submit` unchanged."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left on the account, in whole credits."""

    credits: int


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A free question was not answered (network, 5xx, nonsense, or the provider has no such call)."""

    problem: Problem


BalanceAnswer = Balance | Throttled | Refused | Unavailable


class Provider(Protocol):
    """One account at one service.

    No method raises for what a server or a network does: that is what the answers are for.
    """

    name: str
    origin: str
    """Scheme, host and port that the key is bound to."""

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = ""
    ) -> SubmitAnswer:
        """POST one request, at most once.

        If `before_send` was not entered the answer is never `Ambiguous`; once it has returned, the answer is
        `Ambiguous` unless something else is proven: by the provider's own words, or (`NotSent`) because the
        connection was seen to be dead before the first byte was written to it.

        A cancellation is raised as long as nothing can have been sent; after that it is answered, see `ReApi`.

        Args:
            model: model name, for the endpoint.
            request: the exact JSON body.
            before_send: see `BeforeSend`.
            label: the job's key; shown by the simulator, sent to nobody else.
        """
        ...

    async def poll(self, task_id: str) -> PollAnswer:
        """GET one task. Free, and safe to repeat."""
        ...

    async def balance(self) -> BalanceAnswer:
        """GET the account's balance. Free."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
