"""A plan that was frozen, and what has drifted since: the pure half of `plan --out` and `run --plan`.

Frozen is what would be paid: each job by its key, with the exact request, its fingerprint and its price, and the
arguments that led to it. A run holds to it by one rule: *what it pays for now is a part of what was frozen, and what it
no longer pays for was done meanwhile.* So a job that has been sent since is no drift; a job, a request or a price that
is another one is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .diff import CHARGED, Change, FieldChange, JobChange, field_changes
from .keys import canonical_json
from .text import visible

FORMAT = "batchrunner plan"
"""What says that a file is one."""

VERSION = 1

VALUE = 60
"""Characters that a value may take in an explanation."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the plan was asked for on the command line, and the run has to be asked for too."""

    profile: str | None = None
    variables: Mapping[str, str] | None = None
    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FrozenJob:
    """A job that is to be paid for: whether it was `new` or `changed`, and exactly what for how many credits."""

    change: str
    credits: int
    fingerprint: str
    provider: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FrozenBatch:
    """What one manifest would cost.

    Attributes:
        batch: its name.
        manifest: its path, relative to the plan's file.
        prices: model to the date of the price list that this version ships, for people.
        jobs: key to job, of all that would be paid for.
    """

    batch: str
    manifest: str
    prices: Mapping[str, str]
    jobs: Mapping[str, FrozenJob]

    @property
    def credits(self) -> int:
        return sum(job.credits for job in self.jobs.values())


@dataclass(frozen=True, slots=True)
class Frozen:
    """A plan's file.

    Attributes:
        made_at: when, ISO 8601 in UTC.
        ledger: path of the ledger that was compared with, relative to the plan's file.
        arguments: see `Arguments`.
        batches: one for each manifest.
    """

    made_at: str
    ledger: str
    arguments: Arguments
    batches: tuple[FrozenBatch, ...]


class Damaged(Exception):
    """The digest of a plan is not that of its contents."""


def to_json(plan: Frozen) -> dict[str, Any]:
    """As it stands in the file; the digest is over everything else (SHA-256 of its canonical JSON)."""
    arguments = plan.arguments
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "made_at": plan.made_at,
        "ledger": plan.ledger,
        "arguments": {
            "profile": arguments.profile,
            "vars": dict(arguments.variables or {}),
            "only": list(arguments.only),
            "tag": list(arguments.tags),
        },
        "batches": [
            {
                "batch": b.batch,
                "manifest": b.manifest,
                "credits": b.credits,
                "prices": dict(b.prices),
                "jobs": {key: _job(job) for key, job in b.jobs.items()},
            }
            for b in plan.batches
        ],
    }
    return {**found, "digest": _digest(found)}


def _job(job: FrozenJob) -> dict[str, Any]:
    return {
        "change": job.change,
        "credits": job.credits,
        "fingerprint": job.fingerprint,
        "provider": job.provider,
        "request": dict(job.request),
    }


def from_json(data: Mapping[str, Any]) -> Frozen:
    """Back from `to_json`. The shape is `schemas/plan.schema.json`'s, which the caller has checked.

    Raises:
        Damaged: it is not as it was written.
    """
    if data["digest"] != _digest({name: value for name, value in data.items() if name != "digest"}):
        raise Damaged
    given = data["arguments"]
    batches = tuple(
        FrozenBatch(b["batch"], b["manifest"], b["prices"], {key: FrozenJob(**job) for key, job in b["jobs"].items()})
        for b in data["batches"]
    )
    arguments = Arguments(given["profile"], given["vars"], tuple(given["only"]), tuple(given["tag"]))
    return Frozen(data["made_at"], data["ledger"], arguments, batches)


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(data)).hexdigest()


def drift(frozen: FrozenBatch, now: Iterable[JobChange]) -> Iterator[tuple[str, str]]:
    """(key, how) of every job for which a run would pay, or not pay, otherwise than was frozen.

    Args:
        frozen: the plan.
        now: the same plan made now, in full.
    """
    left = dict(frozen.jobs)
    for change in now:
        planned = left.pop(change.job, None)
        if change.change in CHARGED:
            how = _paid_for(change, planned)
        elif planned is None:
            continue
        elif change.change is Change.REMOVED:
            how = _GONE
        elif change.fingerprint != planned.fingerprint:
            how = "is asked for with a request that was paid for before"
        else:
            continue  # done meanwhile
        if how:
            yield change.job, how
    for key in left:
        yield key, _GONE


_GONE = "is not in the manifest any more"


def _paid_for(change: JobChange, planned: FrozenJob | None) -> str:
    """How a job that is to be paid for differs from what was frozen; empty where it doesn't."""
    spec = change.spec
    price = "an unknown price" if change.credits is None else f"{change.credits:,} credits"
    if planned is None or spec is None:
        why = f" ({_fields(change.fields)})" if change.fields else ""
        return f"is {change.change.value}{why} and would cost {price}; the plan does not pay for it"
    if spec.fingerprint != planned.fingerprint:
        return "asks for something else: " + _fields(field_changes(planned.provider, planned.request, spec))
    if change.credits != planned.credits:
        return f"would cost {price}, and not {planned.credits:,}"
    return ""


def _fields(fields: Iterable[FieldChange]) -> str:
    return ", ".join(map(_changed, fields))


def _changed(field: FieldChange) -> str:
    if field.parents:
        return f"needs {', '.join(field.parents)} changed"
    return f"{field.name}: {_text(field.before)} -> {_text(field.after)}"


def _text(value: Any) -> str:
    return "(none)" if value is None else visible(json.dumps(value, ensure_ascii=False), VALUE)
