"""What a person may say of jobs. The same words without a run and beside one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import events as e
from .promotion import Verdict
from .states import FailureKind

TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What a task id may look like (FAILURES.md, Hostile input)."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraw pending jobs: names as on a command line (batches, keys, patterns), and why."""

    names: tuple[str, ...]
    why: str = ""
    did = "cancelled"


@dataclass(frozen=True, slots=True)
class Retry:
    """Send failed jobs back to pending. Names as in `Cancel`.

    A whole batch or a pattern takes the kinds of failure that were refunded. The others, whose submission was or may
    have been charged, need their kind, or the job's exact key: that is the consent to a second payment.
    """

    names: tuple[str, ...]
    kinds: tuple[FailureKind, ...] = ()
    did = "retried"


@dataclass(frozen=True, slots=True)
class Resolve:
    """Settle unconfirmed jobs: exactly one of `task_id`, `resubmit` and `abandon`.

    Attributes:
        name: a key, or a pattern.
        revision: which, where several of a key are unconfirmed.
    """

    name: str
    task_id: str | None = None
    resubmit: bool = False
    abandon: bool = False
    why: str = ""
    revision: int | None = None
    did = "resolved"

    def event(self, who: str) -> e.Event:
        """What it is to a job."""
        if self.task_id is not None:
            return e.Identified(self.task_id, who, self.why)
        if self.resubmit:
            return e.Resubmitted(who, self.why)
        return e.Abandoned(who, self.why)


@dataclass(frozen=True, slots=True)
class Judge:
    """Say what a person thinks of finished clips. A pattern takes those of its jobs that have one."""

    names: tuple[str, ...]
    verdict: Verdict
    note: str = ""

    @property
    def did(self) -> str:
        return self.verdict.value


Word = Cancel | Retry | Resolve | Judge
