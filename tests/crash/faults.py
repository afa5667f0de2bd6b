"""What goes wrong outside in a crash scenario: a plan for the double, and how the batch is set up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from batchrunner.core.job import RetryBudget
from tests.double import ALWAYS, CREDITS, Plan, Rule


@dataclass(frozen=True, slots=True)
class Fault:
    """A situation that runs die in.

    Attributes:
        plan: what the double does.
        jobs: jobs of the batch.
        budget: `budget.max_credits`.
        in_flight: `limits.in_flight`.
        retry: `retry:`.
        full: at this passing of `submit.answered` the ledger's disk is full, for the first run; 0 for never.
        spooled: it dies when so many ids are in the spool.
        chain: each job begins with the output of the one before it.
        services: of the jobs, one after the other.
        whole: the batch is recorded before its first job is sent, so that both POSTs can be on the wire together.
    """

    plan: Plan = field(default_factory=Plan)
    jobs: int = 2
    budget: int | None = None
    in_flight: int = 50
    retry: RetryBudget = field(default_factory=RetryBudget)
    full: int = 0
    spooled: int = 1
    chain: bool = False
    whole: bool = False
    services: Sequence[str] = ("reapi",)


def _post(what: str, last: int = 1) -> Fault:
    return _rules(Rule("post", what, last=last))


def _rules(*rules: Rule) -> Fault:
    """Faults of later than sending need no second job: PAIRS have one."""
    return Fault(Plan(rules, polls=1), jobs=2 if rules[0].on in {"post", "connect"} else 1)


_ALONE: dict[str, Fault] = {
    "none": Fault(),
    "three": Fault(Plan(polls=1, usage=False), jobs=3),
    "narrow": Fault(jobs=3, in_flight=1),
    # POSTs that create nothing, provably.
    "throttle": _post("throttle"),
    "reject": _post("reject"),
    "no_credit": _post("no_credit"),
    "unauthorized": _post("unauthorized"),
    "connect_close": _rules(Rule("connect", "close")),
    "connect_reset": _rules(Rule("connect", "reset", last=2)),
    # POSTs that nobody can tell about.
    "error500": _post("error500"),
    "reset_before": _post("reset_before"),
    "html": _post("html"),
    "bare400": _post("bare400"),
    "error500_after": _post("error500_after"),
    "reset_after": _post("reset_after"),
    "close_after": _post("close_after"),
    "no_id": _post("no_id"),
    "malformed": _post("malformed"),
    "redirect": _post("redirect"),
    "cut_answer": _post("cut_answer"),
    "duplicate_id": Fault(Plan([Rule("post", "duplicate_id", first=2, last=2)]), jobs=3, in_flight=1),
    "breaker": Fault(Plan([Rule("post", "reset_after", last=ALWAYS)]), jobs=4, in_flight=1),
    "slow": _post("slow", 2),
    # Tasks.
    "fail": _rules(Rule("task", "fail")),
    "fail_retried": Fault(Plan([Rule("task", "fail")]), retry=RetryBudget(provider=1)),
    "fail_always": Fault(Plan([Rule("task", "fail", last=ALWAYS)]), jobs=1, retry=RetryBudget(provider=2)),
    "moderate": _rules(Rule("task", "moderate")),
    # Polls.
    "poll500": _rules(Rule("poll", "error500")),
    "poll_reset": _rules(Rule("poll", "reset", last=2)),
    "poll_missing": _rules(Rule("poll", "missing")),
    "poll_wrong_id": _rules(Rule("poll", "wrong_id")),
    "poll_throttle": _rules(Rule("poll", "throttle")),
    "poll_unauthorized": _rules(Rule("poll", "unauthorized")),
    "lost": _rules(Rule("poll", "missing", last=ALWAYS)),
    # Media.
    "gone": _rules(Rule("media", "gone")),
    "expired": _rules(Rule("media", "gone", last=ALWAYS)),
    "truncated": _rules(Rule("media", "truncated")),
    "cut": _rules(Rule("media", "cut")),
    "media_html": _rules(Rule("media", "html")),
    "media500": _rules(Rule("media", "error500")),
    # Several outputs.
    "several": Fault(Plan(polls=1, outputs=3, last_frame=True), jobs=1),
    "several_gone": Fault(Plan([Rule("media", "gone", first=2, last=2)], polls=1, outputs=2), jobs=1),
    "last_frame_gone": Fault(
        Plan([Rule("media", "gone", first=2, last=ALWAYS)], polls=1, last_frame=True),
        jobs=1,
    ),
    # Chains: the second look at the first output is whether it is still there.
    "chain": Fault(Plan(polls=1), jobs=3, chain=True),
    "chain_gone": Fault(Plan([Rule("media", "gone", first=2, last=2)], polls=1), jobs=2, chain=True),
    "chain_dead": Fault(Plan([Rule("media", "gone", first=2, last=ALWAYS)], polls=1), jobs=2, chain=True),
    "chain_lost": Fault(Plan([Rule("post", "reset_after", first=2, last=2)], polls=1), jobs=3, chain=True),
    "chain_failed": Fault(Plan([Rule("task", "moderate")], polls=1), jobs=2, chain=True),
    # Money.
    "tight": Fault(jobs=3, budget=2 * CREDITS),
    "tight_narrow": Fault(jobs=3, budget=2 * CREDITS, in_flight=1),
    "tight_fail": Fault(Plan([Rule("task", "fail")]), jobs=3, budget=2 * CREDITS, retry=RetryBudget(provider=1)),
    "tight_lost": Fault(Plan([Rule("post", "reset_after")]), jobs=3, budget=2 * CREDITS),
    "tight_throttle": Fault(Plan([Rule("post", "throttle", last=2)]), jobs=3, budget=2 * CREDITS, in_flight=1),
    # The ledger's own disk.
    "disk_full": Fault(full=1),
    "disk_full_twice": Fault(full=1, spooled=2, whole=True),
    "disk_full_later": Fault(jobs=3, full=2, in_flight=1),
}
"""What goes wrong by itself."""

_SENDING = (
    "throttle",
    "reject",
    "connect_close",
    "error500",
    "reset_before",
    "bare400",
    "error500_after",
    "reset_after",
    "no_id",
    "malformed",
    "cut_answer",
    "slow",
)
_LATER = (
    "fail",
    "moderate",
    "poll500",
    "poll_reset",
    "poll_missing",
    "poll_wrong_id",
    "poll_throttle",
    "gone",
    "expired",
    "truncated",
    "cut",
    "media500",
)


def _both(first: Fault, second: Fault) -> Fault:
    """What goes wrong while sending, and what goes wrong later with the first task that can be followed."""
    later = [rule if rule.on == "task" else replace(rule, task=0) for rule in second.plan.rules]
    return Fault(replace(first.plan, rules=(*first.plan.rules, *later)), retry=RetryBudget(provider=1))


PAIRS: Sequence[str] = tuple(f"{first}+{second}" for first in _SENDING for second in _LATER)
"""Names of what goes wrong together."""

USUAL: Mapping[str, Fault] = _ALONE | {name: _both(*(_ALONE[part] for part in name.split("+"))) for name in PAIRS}
"""What goes wrong at reAPI, which the enumeration plays."""

WHERE: Mapping[str, tuple[str, ...]] = {
    "reset_after": ("submit.",),
    "fail": ("poll.",),
    "moderate": ("start.", "poll."),
    "gone": ("download.",),
    "chain_dead": ("",),
    "chain": ("",),
    "disk_full": (),
}
"""What goes wrong at a service that is not the enumeration's: everything that its answers decide. And at which points
runs die then: those between which its words are read, and at all of them in one."""

AGAIN: Mapping[str, tuple[str, ...]] = {
    "chain_dead/run:start.opened.1": ("",),
    "chain/run:submit.answered.1": ("recover.", "poll."),
    "chain_dead/run:submit.answered.1": ("recover.", "poll.", "download.", "place."),
    "reset_after/run:submit.recorded.1": ("word.",),
    "moderate/run:start.opened.1": ("start.",),
    "gone/run:download.start.1": ("download.",),
    "disk_full/run:disk.full.1": ("recover.", "submit."),
}
"""After which deaths runs die again, and where: each point in a recovery that has something to do there."""

_MIXED = replace(_ALONE["chain_dead"], jobs=3, services=("reapi", "fal", "replicate"))


def _at(service: str) -> dict[str, Fault]:
    """What goes wrong at another service: everything that its answers decide, and that its words are read for."""
    return {f"{service}.{name}": replace(_ALONE[name], services=(service,)) for name in WHERE if name != "chain"}


SERVICES: Mapping[str, Mapping[str, Fault]] = {
    "fal": _at("fal"),
    "replicate": _at("replicate"),
    "all": {"all.chain": _MIXED},
}
"""By service, and of all in one batch: what `tests.providers.test_crash_points` has runs die in."""

FAULTS: Mapping[str, Fault] = {**USUAL, **{name: fault for of in SERVICES.values() for name, fault in of.items()}}
"""Every situation by name."""
