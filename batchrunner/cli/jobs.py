"""`jobs`: the list, for people, scripts and spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import click

from ..core.promotion import Verdict
from ..core.states import State
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from .ledgers import complete_batches, no_ledger, reading
from .options import db_option, json_option, ledger_path, selection, selection_options, states_option
from .tables import Counter, note, number, print_json_array, print_pieces, print_table, say

MESSAGE = 160
"""Columns that an error's message may take, for people."""


@click.command(
    epilog="""\b
Examples:
  batchrunner jobs nightly-beach --state failed --state unconfirmed
  batchrunner jobs --only 'corgi-*' --json | jq -r '.[] | select(.state == "succeeded") | .output'
  batchrunner jobs nightly-beach --csv > nightly.csv
  batchrunner jobs nightly-beach --state succeeded --verdict none

\b
States: pending, submitting, unconfirmed, running, downloading, succeeded, failed, cancelled.
"""
)
@click.argument("batch", required=False, shell_complete=complete_batches)
@states_option
@click.option(
    "--verdict",
    "verdicts",
    multiple=True,
    type=click.Choice([*(v.value for v in Verdict), "none"]),
    help="Only jobs that were judged so, or (none) not yet.",
)
@selection_options
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@db_option
def jobs(
    batch: str | None,
    states: tuple[State, ...],
    verdicts: tuple[str, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    db: Address | None,
) -> int:
    """List jobs.

    In the manifest's order; old revisions, and jobs that are no longer in the manifest, come last, with
    "current": false.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    from ..ledger import described, naming

    path = ledger_path(db)
    with reading(path) as connection:
        if connection is None:
            _print(iter(()), as_json=as_json, as_csv=as_csv)
            (note if as_json or as_csv else say)(visible(no_ledger(path)))
            return EXIT_OK
        if batch is not None:
            naming.find_batch(connection, batch)
        found = described.jobs(connection, batch, states, selection(only, tags), verdicts)
        count = _print(found, as_json=as_json, as_csv=as_csv)
        if not (as_json or as_csv):
            say(f"{number(count)} job{'s' if count != 1 else ''}" if count else "no such jobs")
    return EXIT_OK


def _print(found: Iterator[dict[str, Any]], *, as_json: bool, as_csv: bool) -> int:
    """Print them, none of them kept; returns how many."""
    counter = Counter(found)
    if as_json:
        print_json_array(counter)
    elif as_csv:
        from ..report.results import csv_text, encoded

        print_pieces(encoded(csv_text(counter)))
    else:
        first = next(found, None)
        if first is not None:
            counter = Counter(chain((first,), found))
            print_table(("job", "state", "tries", "credits", ""), map(_row, counter), right=(2, 3))
    return counter.count


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    name = job["job"] if job["current"] else f"{job['job']} (old, revision {job['revision']})"
    return name, job["state"], str(job["attempts"]), number(job["credits"]), _detail(job)


def _detail(job: dict[str, Any]) -> str:
    error = job["error"]
    if error is not None:
        code = "" if error["code"] is None else f" {error['code']}"
        return visible(f"{error['kind']}{code}: {error['message']}", MESSAGE)
    if job["waits_for"] is not None:
        return visible(f"waits for {job['waits_for']}", MESSAGE)
    said = f"{job['verdict']}: " if job["verdict"] else ""
    warnings = visible("; ".join((job["media"] or {}).get("warnings", ())), MESSAGE)
    more = f" and {len(job['outputs']) - 1} more" if len(job["outputs"]) > 1 else ""
    return said + str(job["output"] or job["task_id"] or "") + more + (f" [{warnings}]" if warnings else "")
