"""`plan`: what a run would do, and what it would cost. `run --dry-run` prints the same."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.diff import Change, JobChange, Known, Totals, diff
from ..core.job import JobSpec, State
from ..core.pricing import usd_text
from ..core.selection import Selection
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from .ledgers import reading
from .options import (
    db_option,
    json_option,
    ledger_path,
    manifest_options,
    selection,
    selection_options,
)
from .tables import clip, counted, json_text, money, number, print_json, print_table, say, warn

if TYPE_CHECKING:
    from ..manifest import Manifest

ROWS = 40
"""Jobs that are listed for people."""

VALUE = 40
"""Columns that the value of a changed field may take, for people."""

ORDER = (Change.CHANGED, Change.REMOVED, Change.NEW, Change.IN_FLIGHT)
"""Groups in the order in which they are listed; what is unchanged is only counted."""


@click.command(
    epilog="""\b
Examples:
  batchrunner plan nightly.yaml
  batchrunner plan nightly.yaml --profile final --only 'corgi-*'
  batchrunner plan nightly.yaml --json | jq '.summary'

\b
new        never sent: a run pays for it        changed    asked for differently: a run pays for it
unchanged  ended already: left alone            in flight  sent already: followed, no second payment
removed    no longer in the manifest: never sent from now on
"""
)
@manifest_options
@selection_options
@json_option
@db_option
def plan(
    manifests: tuple[str, ...],
    variables: dict[str, str],
    profile: str | None,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    as_json: bool,
    db: Path | None,
) -> int:
    """Show what a run would do, and what it would cost.

    Compares the manifest with the ledger. Nothing is recorded or sent.
    """
    from .loading import load_all

    loaded = load_all(manifests, profile=profile, variables=variables, as_json=as_json)
    with reading(ledger_path(db)) as connection:
        return print_plan(loaded, connection, selection(only, tags), as_json=as_json)


def print_plan(
    manifests: Sequence[Manifest], connection: sqlite3.Connection | None, chosen: Selection, *, as_json: bool
) -> int:
    """Print the plan of every manifest; returns the exit code.

    Args:
        manifests: valid ones.
        connection: the ledger, read-only; None where there is none.
        chosen: `--only`, `--tag`.
        as_json: one object, or with several manifests `{"plans": [...]}`.

    Raises:
        UsageError: two manifests name one batch, or nothing is selected.
    """
    names = [m.batch for m in manifests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two manifests name the batch {name}; give each a name of its own")
    plans = [make_plan(manifest, connection, chosen) for manifest in manifests]
    if chosen and not any(p.changes for p in plans):
        raise UsageError(f"nothing is selected: no job of {', '.join(names)} matches --only and --tag")
    for found in plans:
        if found.totals.unpriced:
            unpriced = counted(found.totals.unpriced, "job")
            warn(f"{found.batch}: {unpriced} without a known price; give it in the manifest under prices:")
    if as_json:
        texts = [plan_json(p) for p in plans]
        print_json(texts[0] if len(texts) == 1 else {"plans": texts})
        return EXIT_OK
    for found in plans:
        _show(found)
    return EXIT_OK


# --- The plan --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Plan:
    """A manifest's changes, their sums, and the money that the batch has committed already."""

    batch: str
    max_credits: int | None
    committed: int
    totals: Totals = field(default_factory=Totals.empty)
    changes: list[JobChange] = field(default_factory=list)


def make_plan(manifest: Manifest, connection: sqlite3.Connection | None, chosen: Selection) -> Plan:
    """Compare a manifest with the ledger."""
    rows, committed = _known(connection, manifest.batch)
    found = Plan(manifest.batch, manifest.max_credits, committed)
    left_out: set[str] = set()

    def asked() -> Iterator[JobSpec]:
        for spec in manifest.jobs:
            if chosen and not chosen.matches(spec.key, spec.shot, spec.tags):
                left_out.add(spec.key)
            yield spec

    for change in diff(asked(), {key: [_revision(r) for r in revisions] for key, revisions in rows.items()}):
        if change.job in left_out:
            continue
        if change.change is Change.REMOVED and not _selects(chosen, rows[change.job][-1]):
            continue
        found.changes.append(change)
        found.totals.add(change)
    return found


def _known(connection: sqlite3.Connection | None, batch: str) -> tuple[Mapping[str, list[sqlite3.Row]], int]:
    """The batch's jobs in the ledger, and its credits that are spent, reserved or at risk."""
    from ..ledger import queries

    if connection is None:
        return {}, 0
    committed = queries.committed(connection, batch)
    return (queries.known_jobs(connection, batch), committed) if committed is not None else ({}, 0)


def _revision(row: sqlite3.Row) -> Known:
    return Known(
        row["fingerprint"], row["revision"], State(row["state"]), bool(row["current"]), row["provider"], row["request"]
    )


def _selects(chosen: Selection, row: sqlite3.Row) -> bool:
    return not chosen or chosen.matches(row["key"], row["shot"], json.loads(row["tags"]))


# --- For scripts -----------------------------------------------------------------------------------------


def plan_json(found: Plan) -> dict[str, Any]:
    """The plan as `plan --json` prints it."""
    totals = found.totals
    summary: dict[str, Any] = {change.value: totals.counts[change] for change in Change}
    summary["credits"] = totals.credits
    summary["usd"] = None if totals.credits is None else usd_text(totals.credits)
    return {"batch": found.batch, "summary": summary, "jobs": [_job_json(c) for c in found.changes]}


def _job_json(change: JobChange) -> dict[str, Any]:
    job: dict[str, Any] = {"job": change.job, "change": change.change.value, "credits": change.credits}
    if change.fields:
        job["fields"] = {f.name: {"from": f.before, "to": f.after} for f in change.fields}
    return job


# --- For people ------------------------------------------------------------------------------------------


def _show(found: Plan) -> None:
    listed = [c for group in ORDER for c in found.changes if c.change is group]
    if listed:
        print_table(("change", "job", "credits", ""), map(_row, listed[:ROWS]), right=(2,))
    if len(listed) > ROWS:
        say(f"... and {number(len(listed) - ROWS)} more; --json lists all")
    if listed:
        say()
    counts = found.totals.counts
    say(f"{found.batch}: " + ", ".join(f"{number(counts[c])} {c.value.replace('_', ' ')}" for c in Change))
    say(f"  a run would cost {money(found.totals.credits)}")
    if found.max_credits is not None:
        _show_budget(found, found.max_credits)
    failed = sum(c.change is Change.UNCHANGED and c.state is State.FAILED for c in found.changes)
    if failed:
        say(f"  {number(failed)} of the unchanged failed; a run leaves them so: `batchrunner retry {found.batch}`")


def _row(change: JobChange) -> tuple[str, str, str, str]:
    credit = "?" if change.credits is None else number(change.credits)
    return change.change.value.replace("_", " "), change.job, credit, _detail(change)


def _detail(change: JobChange) -> str:
    if change.fields:
        return ", ".join(f"{f.name}: {_value(f.before)} -> {_value(f.after)}" for f in change.fields)
    if change.change in (Change.IN_FLIGHT, Change.REMOVED) and change.state is not None:
        return change.state.value
    return ""


def _value(value: Any) -> str:
    return "(none)" if value is None else clip(visible(json_text(value, indent=None)), VALUE)


def _show_budget(found: Plan, cap: int) -> None:
    left = cap - found.committed
    say(f"  budget {money(cap)}, of which {number(max(left, 0))} left before the run")
    if found.totals.credits is not None and found.totals.credits > left:
        warn(f"{found.batch}: the budget ends the run {number(found.totals.credits - left)} credits short of the plan")
