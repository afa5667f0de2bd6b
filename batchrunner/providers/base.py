"""What the engine needs of a provider, and what a provider says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from ..catalogue import Model
from ..core.events import PollAnswer, Refused, SubmitAnswer, Throttled
from ..core.job import Problem

DEFAULT_USER_AGENT = "batchrunner"

BeforeSend = Callable[[], Awaitable[None]]
"""Awaited when a connection is held and before the first byte of a POST. An exception raised in it aborts the
request with zero bytes on the wire and comes out of `submit` unchanged."""


# --- What a provider can do ------------------------------------------------------------------------------


class OverLimit(StrEnum):
    """What happens to a submission beyond the limits of the account."""

    REFUSED = "429"
    """It is answered with 429, and nothing is created."""
    QUEUED = "queued"
    """It is accepted, and waits at the service."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service offers beyond submitting and polling. Each is what its own pages promise, not what was seen.

    Attributes:
        cancel: a running task can be cancelled.
        lookup: what became of a submission whose answer was lost can be asked for, with certainty; then the provider
            is a `Traceable`, and a run asks.
        replay: a submission that is repeated with its idempotency key is answered as the first was. Declared for
            people: no run sends anything twice.
        webhook: it can report the end of a task by itself. Not used here: a run polls.
        over_limit: see `OverLimit`.
        output_hours: hours for which an output can be fetched; None where that is not said.
        balance: what is left on the account can be asked for with the same key.
        refunds: a task that fails is never charged. Where false, what a failed task has cost is not known to be
            nothing, so that it counts as spent.
    """

    cancel: bool = False
    lookup: bool = False
    replay: bool = False
    webhook: bool = False
    over_limit: OverLimit = OverLimit.REFUSED
    output_hours: float | None = None
    balance: bool = False
    refunds: bool = False


# --- Answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left on the account, in whole credits."""

    credits: int


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A free question was not answered (network, 5xx, nonsense, or the provider has no such call)."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The service took the wish to cancel a task; only a poll says what became of it."""


@dataclass(frozen=True, slots=True)
class CancelTooLate:
    """The task has ended, or is not known any more."""

    problem: Problem


CancelAnswer = CancelAsked | CancelTooLate | Throttled | Refused | Unavailable


@dataclass(frozen=True, slots=True)
class Found:
    """The submission that carried the token was accepted, and is this task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The service knows of no submission with the token, now. It may still be on its way."""

    problem: Problem


LookupAnswer = Found | NotFound | Throttled | Refused | Unavailable

BalanceAnswer = Balance | Throttled | Refused | Unavailable


class Provider(Protocol):
    """One account at one service.

    No method raises for what a server or a network does: that is what the answers are for.
    """

    name: str
    origin: str
    """Scheme, host and port that the key is bound to."""

    @property
    def loopback(self) -> bool:
        """Whether the API is on this machine; then its output URLs may be too (`Fetcher`)."""
        ...

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = ""
    ) -> SubmitAnswer:
        """POST one request, at most once.

        If `before_send` was not entered the answer is never `Ambiguous`; once it has returned, the answer is
        `Ambiguous` unless something else is proven: by the provider's own words, or (`NotSent`) because the
        connection was seen to be dead before the first byte was written to it.

        A cancellation is raised as long as nothing can have been sent; after that it is answered, see `HttpProvider`.

        Args:
            model: model name, for the endpoint.
            request: the exact request, `model` included; the provider words it as its service wants it.
            before_send: see `BeforeSend`.
            label: the job's key; shown by the simulator, sent to nobody else.
        """
        ...

    async def poll(self, task_id: str, model: str = "") -> PollAnswer:
        """GET one task. Free, and safe to repeat.

        Args:
            task_id: as `submit` was given it.
            model: the task's model: some services keep the tasks of each apart.
        """
        ...

    async def balance(self) -> BalanceAnswer:
        """GET the account's balance. Free."""
        ...

    async def cancel(self, task_id: str, model: str = "") -> CancelAnswer:
        """Ask for a running task to be cancelled. Free, and safe to repeat. Arguments as of `poll`."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class Traceable(Provider, Protocol):
    """A provider with `Capabilities.lookup`: it takes a token along with a POST, and can be asked by it later."""

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = "", token: str = ""
    ) -> SubmitAnswer:
        """As `Provider.submit`. `token`: 40 hex digits that no other submission has; the service keeps them with the
        task."""
        ...

    async def lookup(self, token: str, model: str) -> LookupAnswer:
        """GET what became of the submission that carried `token`. Free, and safe to repeat.

        `Found` only where the answer names this token and one task for it; whatever proves less is `Unavailable`.
        """
        ...


# --- What a package offers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an account.

    Attributes:
        base_url: as a user writes it; https, unless the host is loopback.
        key: the key, as it stands in the environment.
        user_agent: the User-Agent of every call.
    """

    base_url: str
    key: str = field(repr=False)
    user_agent: str = DEFAULT_USER_AGENT


Open = Callable[[Access, Callable[[], float] | None, Mapping[str, Model] | None], Provider]
"""Makes a provider: access, a clock (unix seconds), the models there are. Raises ValueError where the access can't be
used; the message says how to mend it, without the key. Nothing is connected before the first call."""


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A provider, as a package offers it (entry point `batchrunner.providers`) and as `batchrunner providers` shows it.

    Attributes:
        name: as manifests and models name it: lower-case letters, digits, `-`.
        title: for people.
        capabilities: see there.
        keys: environment variables of its key; the first that is set counts.
        base_url: where the service is, unless `base_variable` says otherwise.
        base_variable: environment variable of the base URL.
        source: the service's own documentation.
        open: see `Open`.
    """

    name: str
    title: str
    capabilities: Capabilities
    keys: tuple[str, ...]
    base_url: str
    base_variable: str
    source: str
    open: Open
