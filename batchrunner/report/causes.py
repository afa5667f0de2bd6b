"""Failures, grouped by what caused them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.job import PAID_FAILURES, FailureKind, State
from ..core.morning import Entry

MEANING = {
    FailureKind.REJECTED: "The provider refused the request itself; nothing was created, nothing charged. "
    "Change the shot in the manifest and run again; the same request will hardly fare better.",
    FailureKind.MODERATED: "The provider's content policy refused it; refunded. "
    "Change the prompt in the manifest and run again; the same one will hardly fare better.",
    FailureKind.PROVIDER: "The task failed at the provider; refunded.",
    FailureKind.LOST: "The provider does not know the task any more. It may have been charged.",
    FailureKind.EXPIRED: "The task was completed and charged, but its output could not be fetched.",
    FailureKind.ABANDONED: "A person gave the unconfirmed submission up. It may have been charged.",
}

_PARTICULAR = re.compile(r"[0-9a-f]{8,}|\d+|\b\w*_[0-9A-Za-z]{8,}\b")
"""What differs from job to job in one and the same message: ids and numbers."""


@dataclass(slots=True)
class Cause:
    """Failed jobs with one cause.

    Attributes:
        kind: what it means for the money.
        code: the provider's, or a short word of ours.
        message: what was said of the first of them.
        entries: the jobs.
        waiting: how many pending jobs need their outputs, or need jobs that do.
    """

    kind: FailureKind
    code: int | str | None
    message: str
    entries: list[Entry] = field(default_factory=list)
    waiting: int = 0

    @property
    def meaning(self) -> str:
        return MEANING[self.kind]

    @property
    def paid(self) -> bool:
        """Whether another submission may be a second payment."""
        return self.kind in PAID_FAILURES


def causes(entries: Sequence[Entry]) -> list[Cause]:
    """Causes of the failed jobs of the manifest as it is now, the most frequent first."""
    found: dict[tuple[str, str, str], Cause] = {}
    for entry in entries:
        job = entry.job
        if job["state"] != State.FAILED or not job["current"]:
            continue
        error = job["error"]
        same = (error["kind"], str(error["code"]), _PARTICULAR.sub("", error["message"]))
        if same not in found:
            found[same] = Cause(FailureKind(error["kind"]), error["code"], error["message"])
        found[same].entries.append(entry)
    children = _children(entries)
    for cause in found.values():
        cause.waiting = len(_descendants([e.job["job"] for e in cause.entries], children)) if children else 0
    return sorted(found.values(), key=lambda cause: -len(cause.entries))


def _children(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Key to the keys of the jobs that wait for it."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.job["waits_for"] is not None and entry.job["current"]:
            for need in entry.job["needs"]:
                found[need["job"]].append(entry.job["job"])
    return found


def _descendants(keys: list[str], children: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(new)
        waiting += new
    return found


@dataclass(slots=True)
class ShotCost:
    """What one shot costs, in credits: all its takes and matrix points, old revisions too."""

    shot: str
    jobs: int = 0
    clips: int = 0
    estimated: int = 0
    unpriced: int = 0
    spent: int = 0
    open: int = 0

    @property
    def a_clip(self) -> int | None:
        """Credits spent for each clip that is there."""
        return round(self.spent / self.clips) if self.clips else None

    def add(self, entry: Entry) -> None:
        job = entry.job
        self.clips += job["state"] == State.SUCCEEDED
        self.spent += entry.credits("spent")
        self.open += entry.credits("reserved") + entry.credits("at_risk")
        if job["current"]:
            self.jobs += 1
            self.estimated += entry.estimated or 0
            self.unpriced += entry.estimated is None


def shot_costs(entries: Sequence[Entry]) -> tuple[list[ShotCost], ShotCost]:
    """Each shot's costs, the dearest first, and those of all together."""
    found: dict[str, ShotCost] = defaultdict(lambda: ShotCost(""))
    total = ShotCost("All")
    for entry in entries:
        cost = found[entry.job["shot"]]
        cost.shot = entry.job["shot"]
        cost.add(entry)
        total.add(entry)
    return sorted(found.values(), key=lambda cost: -(cost.spent + cost.open)), total
