"""What the tables of network cases are made of. `docs/network.md` is drawn from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.network.stage import Act, Part

Code = int | str | None

MOST_AT_ONCE = 30
"""Jobs in one run: as many POSTs as a run keeps on the wire (32), less a few."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job ends.

    Attributes:
        state: in the ledger.
        kind: `error.kind`; None for no error.
        money: what each of its submissions has done to the account, in order: so many POSTs were sent.
        exit: exit code of a run in which every job ends so.
    """

    state: str
    kind: str | None
    money: tuple[str, ...]
    exit: int


SUCCEEDED = Verdict("succeeded", None, ("spent",), 0)
UNCONFIRMED = Verdict("unconfirmed", "ambiguous", ("at_risk",), 3)
REJECTED = Verdict("failed", "rejected", ("none",), 1)
REFUSED = Verdict("pending", None, ("none",), 6)
EXPIRED = Verdict("failed", "expired", ("spent",), 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a network or a server does.

    Attributes:
        what: that, in words.
        part: how the server plays it.
        code: `error.code` of the job at the end; several where the kernel decides which error a process sees.
        seen: codes of failures that are reported on the way and pass; several ways likewise.
    """

    what: str
    part: Part
    code: Code | tuple[Code, ...] = None
    seen: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The key of its job."""
        return f"{self.shot}-1"

    @property
    def shot(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")[:80]

    @property
    def codes(self) -> tuple[Code, ...]:
        return self.code if isinstance(self.code, tuple) else (self.code,)


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that end in the same way: each is a job, and they share a run.

    Attributes:
        title: a heading.
        about: a sentence or two.
        verdict: how each of them ends.
        cases: the cases.
        alone: a run for each case, because what happens holds or stops the whole run.
        patience: cut for this (`impatient.py`), where what is waited for takes a minute to an hour.
        arguments: of the command line, besides `run night.yaml`.
        more: lines of the manifest, besides the usual ones.
        hold: seconds for which a 429 must hold every call, in the ledger too; None for any.
        polls: that the server sees for each job; None for any.
        again: exit code of a second `run`, which must not send anything; None where it would rightly go on.
    """

    title: str
    about: str
    verdict: Verdict
    cases: Sequence[Case]
    alone: bool = False
    patience: Mapping[str, float] | None = None
    arguments: tuple[str, ...] = ()
    more: str = ""
    hold: float | None = None
    polls: int | None = None
    again: int | None = None

    def runs(self) -> list[Sequence[Case]]:
        """The cases, by the run that they share."""
        size = 1 if self.alone else MOST_AT_ONCE
        return [self.cases[n : n + size] for n in range(0, len(self.cases), size)]


def posts(acts: dict[str, tuple[Code | tuple[Code, ...], Act]]) -> list[Case]:
    """Cases of POSTs: what -> (code, act)."""
    return [Case(what, Part(post=act), code) for what, (code, act) in acts.items()]
