"""One provider's account in a run: its limits, its submissions, its polls. A run has one, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.adaptive import Learned
from ..core.job import Job
from ..core.limits import Bounds
from ..core.pacing import Gcra
from ..core.polling import Latencies
from .control import Switches
from .lookup import Lookups
from .pacer import Pacer
from .poll import Poller
from .ports import Deps, Schedule, Settings, Work
from .slots import Allowance, Slots, Total
from .submit import Submitter


@dataclass(frozen=True, slots=True)
class Share:
    """An account that a run works with.

    Attributes:
        deps: with the account's provider.
        known: what other nights have found of its limits.
        hold: seconds for which it is held still.
        bounds: of the account.
        models: bounds of single models.
    """

    deps: Deps
    known: Learned
    hold: float = 0.0
    bounds: Bounds = field(default_factory=Bounds)
    models: Mapping[str, Bounds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Common:
    """What the accounts of one run share.

    Attributes:
        total: tasks in flight together; None where there is one account.
        rate: POSTs together; None where there is one account.
        allowance: `--limit`.
        sent: monotonic times of the last run's submissions, of any account.
    """

    total: Total | None
    rate: Gcra | None
    allowance: Allowance
    sent: tuple[float, ...] = ()


class Account:
    """Slots, pacer, poller and submitter of one account."""

    def __init__(
        self,
        share: Share,
        control: Switches,
        settings: Settings,
        work: Work,
        latencies: Latencies,
        common: Common,
        *,
        on_completed: Callable[[Job], None],
        on_ended: Callable[[], None],
        on_idle: Callable[[], None],
        backlog: Callable[[], int],
        on_asked: Callable[[Job], None],
    ) -> None:
        deps = share.deps
        settings = _bounded(settings, share.bounds)
        flights = {name: b.in_flight for name, b in share.models.items() if b.in_flight is not None}
        rates = {name: b.submits_per_minute for name, b in share.models.items() if b.submits_per_minute is not None}
        self.name = deps.provider.name
        self.control = control
        self.slots = Slots(settings.in_flight, total=common.total, ended=lambda: control.ended, models=flights)
        self.pacer = Pacer(deps, settings, self.slots, share.known, common.sent, common.rate, rates)
        self.poller = Poller(
            deps,
            control,
            self.slots,
            settings,
            latencies,
            on_completed=on_completed,
            on_ended=on_ended,
            on_idle=on_idle,
            pacer=self.pacer,
        )
        self.lookups = Lookups(deps, control, settings, self.pacer, self._found, self._again, on_idle, on_asked)
        self.submitter = Submitter(
            deps,
            control,
            self.slots,
            settings,
            work,
            on_running=self.poller.watch,
            on_doubt=self.lookups.ask,
            backlog=backlog,
            on_idle=on_idle,
            pacer=self.pacer,
            latencies=latencies,
            allowance=common.allowance,
            provider=None if common.total is None else self.name,
            bounded=bool(share.models),
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent or asked after, as far as it knows."""
        return self.submitter.idle and not self.submitter.posts and self.poller.idle and self.lookups.idle

    def follow(self, job: Job) -> None:
        """Poll a task that this run did not send, now. It takes a slot, for the poll budget's sake."""
        self.slots.take(job.model)
        self.poller.resume(job, Schedule(job.id, 0.0, 0))

    def _found(self, job: Job) -> None:
        if not self.control.ended:
            self.follow(job)

    def _again(self, _job: Job) -> None:
        self.submitter.more()

    def flush(self) -> None:
        """Write behind what was planned and learned."""
        self.poller.flush()
        self.pacer.flush()

    def progress(self) -> dict[str, Any]:
        """The limits that hold now, for people who watch."""
        return {**self.pacer.progress(), "hold": round(self.control.hold(), 1)}


def _bounded(settings: Settings, bounds: Bounds) -> Settings:
    """The run's settings below an account's own bounds."""
    rate, flight = bounds.submits_per_minute, bounds.in_flight
    return replace(
        settings,
        submits_per_minute=settings.submits_per_minute if rate is None else min(settings.submits_per_minute, rate),
        in_flight=settings.in_flight if flight is None else min(settings.in_flight, flight),
    )


def together(every: list[dict[str, Any]]) -> dict[str, Any]:
    """The progress of several accounts as one: rates and limits are summed, the longest hold counts, and what was
    learned is each account's own."""
    sums = {name: round(sum(each[name] for each in every), 2) for name in every[0] if name not in ("learned", "hold")}
    return {**sums, "hold": max(each["hold"] for each in every), "learned": dict.fromkeys(every[0]["learned"])}
