"""What a manifest asks for against what is known: the pure half of `plan`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .chain import changed_parents
from .job import LIVE, JobSpec, State


class Change(StrEnum):
    """What a run would mean for a job."""

    NEW = "new"
    """Never sent: a run submits and pays for it."""
    CHANGED = "changed"
    """Known under another request, and this one was never sent: a run submits and pays for it."""
    UNCHANGED = "unchanged"
    """Known and ended (succeeded, failed or cancelled): a run leaves it alone."""
    IN_FLIGHT = "in_flight"
    """Sent already: a run follows it, and pays nothing more."""
    REMOVED = "removed"
    """Known, and no longer in the manifest: never sent from now on; followed to its end where it was sent."""


CHARGED = frozenset({Change.NEW, Change.CHANGED})
"""Changes that a run pays for."""


@dataclass(frozen=True, slots=True)
class Known:
    """A revision of a job as the ledger has it.

    Attributes:
        fingerprint, revision, state: see `JobSpec` and `State`.
        current: whether the manifest asked for this revision when it was last recorded.
        provider: where it was sent, or will be.
        request: the exact request as JSON, `model` included; read only where something changed.
    """

    fingerprint: str
    revision: int
    state: State
    current: bool
    provider: str
    request: str


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A request field that is different; None where one side doesn't have it."""

    name: str
    before: Any
    after: Any

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of the jobs whose change alone makes it another value: it names their outputs."""
        return changed_parents(self.before, self.after)


@dataclass(frozen=True, slots=True)
class JobChange:
    """One line of a plan.

    Attributes:
        job: the key.
        change: see `Change`.
        credits: what a run would pay for it: 0 where nothing, None where no price is known.
        fields: what is different, for `changed`.
        state: the state it is in, where it is known.
        fingerprint: of what is asked for; empty for `removed`.
        spec: what a run would pay for; None where it pays nothing.
    """

    job: str
    change: Change
    credits: int | None
    fields: tuple[FieldChange, ...] = ()
    state: State | None = None
    fingerprint: str = field(default="", compare=False, repr=False)
    spec: JobSpec | None = field(default=None, compare=False, repr=False)


def diff(specs: Iterable[JobSpec], known: Mapping[str, Sequence[Known]]) -> Iterator[JobChange]:
    """Every job of the manifest in its order, then the ones that are no longer in it.

    Args:
        specs: the jobs of the manifest.
        known: key to revisions, oldest first: the jobs of the ledger.
    """
    asked = set()
    for spec in specs:
        asked.add(spec.key)
        yield _compare(spec, known.get(spec.key, ()))
    for key, revisions in known.items():
        last = next((k for k in revisions if k.current), None)
        if last is not None and key not in asked:
            yield JobChange(key, Change.REMOVED, 0, state=last.state)


def _compare(spec: JobSpec, revisions: Sequence[Known]) -> JobChange:
    same = next((k for k in revisions if k.fingerprint == spec.fingerprint), None)
    if same is not None and same.state in LIVE:
        return JobChange(spec.key, Change.IN_FLIGHT, 0, (), same.state, spec.fingerprint)
    if same is not None and same.state is not State.PENDING:
        return JobChange(spec.key, Change.UNCHANGED, 0, (), same.state, spec.fingerprint)
    state = same.state if same else None
    before = _before(revisions, same)
    if before is None:
        return JobChange(spec.key, Change.NEW, spec.credits, (), state, spec.fingerprint, spec)
    fields = field_changes(before.provider, json.loads(before.request), spec)
    return JobChange(spec.key, Change.CHANGED, spec.credits, fields, state, spec.fingerprint, spec)


def _before(revisions: Sequence[Known], same: Known | None) -> Known | None:
    """The revision that the one asked for takes the place of: the current one, or else the newest. A request that is
    recorded already, and was not sent, still takes the place of the one before it."""
    others = [k for k in revisions if k is not same and (same is None or k.revision < same.revision)]
    return next((k for k in others if k.current), others[-1] if others else None)


def field_changes(provider: str, request: Mapping[str, Any], after: JobSpec) -> tuple[FieldChange, ...]:
    """The request fields that differ from `request` of `provider`, in the order of the new request; `provider` where
    that differs."""
    found = [] if provider == after.provider else [FieldChange("provider", provider, after.provider)]
    for name in dict.fromkeys([*after.request, *request]):
        old, new = request.get(name), after.request.get(name)
        if old != new or type(old) is not type(new):
            found.append(FieldChange(name, old, new))
    return tuple(found)


@dataclass(slots=True)
class Totals:
    """The sums of a plan. `credits` is None once a job that would be paid for has no known price."""

    counts: dict[Change, int]
    credits: int | None = 0
    unpriced: int = 0

    @classmethod
    def empty(cls) -> Totals:
        return cls(dict.fromkeys(Change, 0))

    def add(self, change: JobChange) -> None:
        self.counts[change.change] += 1
        if change.credits is None:
            self.unpriced += 1
            self.credits = None
        elif self.credits is not None:
            self.credits += change.credits
