"""What is played: steps, the deaths in them, and the identifiers by which one scenario is played again."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from batchrunner.engine.ports import CRASH_POINTS

EFFECTS = (
    "effect.create",
    "effect.mkdir",
    "effect.write",
    "effect.truncate",
    "effect.sync",
    "effect.link",
    "effect.rename",
    "effect.remove",
    "effect.committed",
)
"""What a run does to the disk, each just before it is done; the last is a commit that is durable, and nobody knows."""

POINTS = (*CRASH_POINTS, *EFFECTS)
"""Where a run can be made to die."""

FULL = "disk.full"
"""A death that is no point: the ledger's disk is full when an id arrives, which is then in the spool."""
THAWED = signal.SIGCONT
"""Of a full disk nobody dies where room is made in time."""
MOMENT = "moment"
"""A death at no named point: n milliseconds after the start, wherever the run is then."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}

RUNS = frozenset({"run", "resume", "word"})
"""Verbs that submit. `word` is a run with `--on-unconfirmed resubmit`."""
WORDS = frozenset({"identify", "resubmit", "abandon", "retry", "cancel"})
"""Verbs that record a person's word. `identify` is `resolve --task-id` with the task that the double knows."""


@dataclass(frozen=True, slots=True)
class Death:
    """At the n-th passing of a point (or see FULL, MOMENT): by SIGKILL, or asked to end by a signal, once or twice."""

    point: str
    n: int = 1
    by: signal.Signals = signal.SIGKILL
    twice: bool = False

    def __str__(self) -> str:
        by = "" if self.by is signal.SIGKILL else f".{self.by.name}"
        return f"{self.point}.{self.n}{by}" + (".twice" if self.twice else "")

    @classmethod
    def parse(cls, text: str) -> Death:
        """As it stands in an identifier."""
        once = text.removesuffix(".twice")
        what, _, name = once.partition(".SIG")
        point, _, n = what.rpartition(".")
        return cls(point, int(n), signal.Signals["SIG" + (name or "KILL")], once != text)

    @property
    def certain(self) -> bool:
        """Whether the process can't outlive it, so that what it leaves is a death's and not a run's own end."""
        return self.by is signal.SIGKILL or (self.twice and self.by is not signal.SIGHUP)

    @property
    def lingers(self) -> bool:
        """Whether a process that outlives it is not what it was: a limit, a timer or threads may be left in it."""
        return self.twice or self.point in {FULL, "submit.spooled", MOMENT}


@dataclass(frozen=True, slots=True)
class Step:
    """One process: what it is asked to do, and where it dies."""

    verb: str
    death: Death | None = None

    def __str__(self) -> str:
        return f"{self.verb}:{self.death}" if self.death else self.verb

    @classmethod
    def parse(cls, text: str) -> Step:
        verb, _, death = text.partition(":")
        if verb not in RUNS | WORDS:
            raise ValueError(f"no verb {verb}; there are {', '.join(sorted(RUNS | WORDS))}")
        return cls(verb, Death.parse(death) if death else None)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault, and steps; the last one's verb is repeated until there is nothing left to do. Written
    `reset_after/run:submit.answered.1/run:poll.sent.1/run`."""

    fault: str
    steps: Sequence[Step]

    def __str__(self) -> str:
        return "/".join([self.fault, *map(str, self.steps)])

    @classmethod
    def parse(cls, text: str) -> Scenario:
        fault, *steps = text.split("/")
        return cls(fault, [Step.parse(s) for s in steps])


def weight(text: str) -> int:
    """A number that decides about a scenario, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
