"""What goes wrong outside in a crash scenario: a plan for the double, and how the batch is set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
        posts_lost: POSTs that the fault alone leaves in doubt: with a crash in the way there may be as many, not more.
        full: `submit.answered` at whose n-th passing the disk of the ledger is full, for the first run: it dies when the
            id is in the spool. 0 for never.
    """

    plan: Plan = field(default_factory=Plan)
    jobs: int = 2
    budget: int | None = None
    in_flight: int = 50
    retry: RetryBudget = field(default_factory=RetryBudget)
    posts_lost: int = 0
    full: int = 0


def _post(what: str, last: int = 1, **more: int) -> Fault:
    return Fault(Plan([Rule("post", what, last=last)]), **more)


def _lost(what: str) -> Fault:
    return _post(what, posts_lost=1)


def _rules(*rules: Rule, **more: int) -> Fault:
    return Fault(Plan(rules), **more)


FAULTS: dict[str, Fault] = {
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
    "error500": _lost("error500"),
    "reset_before": _lost("reset_before"),
    "html": _lost("html"),
    "bare400": _lost("bare400"),
    "error500_after": _lost("error500_after"),
    "reset_after": _lost("reset_after"),
    "close_after": _lost("close_after"),
    "no_id": _lost("no_id"),
    "malformed": _lost("malformed"),
    "redirect": _lost("redirect"),
    "cut_answer": _lost("cut_answer"),
    "duplicate_id": Fault(Plan([Rule("post", "duplicate_id", first=2, last=2)]), jobs=3, posts_lost=1),
    "breaker": _post("reset_after", ALWAYS, jobs=4, in_flight=1, posts_lost=4),
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
    # Money.
    "tight": Fault(jobs=3, budget=2 * CREDITS),
    "tight_narrow": Fault(jobs=3, budget=2 * CREDITS, in_flight=1),
    "tight_fail": Fault(Plan([Rule("task", "fail")]), jobs=3, budget=2 * CREDITS, retry=RetryBudget(provider=1)),
    "tight_lost": Fault(Plan([Rule("post", "reset_after")]), jobs=3, budget=2 * CREDITS, posts_lost=1),
    "tight_throttle": Fault(Plan([Rule("post", "throttle", last=2)]), jobs=3, budget=2 * CREDITS, in_flight=1),
    # The ledger's own disk.
    "disk_full": Fault(full=1),
    "disk_full_later": Fault(jobs=3, full=2, in_flight=1),
}
"""Every situation by name."""

NAMES: Sequence[str] = tuple(FAULTS)
