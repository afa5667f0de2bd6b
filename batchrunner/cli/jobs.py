"""`jobs`: the list, for people, scripts and spreadsheets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click

from ..core.job import State
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from .ledgers import complete_batches, no_ledger, reading
from .options import db_option, json_option, ledger_path, selection, selection_options
from .tables import note, number, print_json_array, print_table, say, utc_time

MESSAGE = 160
"""Columns that an error's message may take, for people."""

CSV_COLUMNS = (
    "job",
    "batch",
    "shot",
    "take",
    "matrix",
    "tags",
    "model",
    "prompt",
    "request",
    "state",
    "task_id",
    "attempts",
    "credits",
    "error_kind",
    "error_code",
    "error_message",
    "request_id",
    "output",
    "sha256",
    "bytes",
    "current",
    "revision",
    "created_at",
    "updated_at",
)


@click.command(
    epilog="""\b
Examples:
  batchrunner jobs nightly-beach --state failed --state unconfirmed
  batchrunner jobs --only 'corgi-*' --json | jq -r '.[] | select(.state == "succeeded") | .output'
  batchrunner jobs nightly-beach --csv > nightly.csv

\b
States: pending, submitting, unconfirmed, running, downloading, succeeded, failed, cancelled.
"""
)
@click.argument("batch", required=False, shell_complete=complete_batches)
@click.option(
    "--state", "states", multiple=True, type=click.Choice([s.value for s in State]), help="Only jobs in this state."
)
@selection_options
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@db_option
def jobs(
    batch: str | None,
    states: tuple[str, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    db: Path | None,
) -> int:
    """List jobs.

    In the manifest's order; old revisions, and jobs that are no longer in the manifest, come last, with
    "current": false.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    from ..ledger import queries

    path = ledger_path(db)
    with reading(path) as connection:
        if connection is None:
            _print(iter(()), as_json=as_json, as_csv=as_csv)
            (note if as_json or as_csv else say)(visible(no_ledger(path)))
            return EXIT_OK
        if batch is not None:
            queries.find_batch(connection, batch)
        found = queries.jobs(connection, batch, states, selection(only, tags))
        count = _print(found, as_json=as_json, as_csv=as_csv)
        if not (as_json or as_csv):
            say(f"{number(count)} job{'s' if count != 1 else ''}" if count else "no such jobs")
    return EXIT_OK


def _print(found: Iterator[dict[str, Any]], *, as_json: bool, as_csv: bool) -> int:
    """Print them, none of them kept; returns how many."""
    counter = _Counter(found)
    if as_json:
        print_json_array(counter)
    elif as_csv:
        _print_csv(counter)
    else:
        first = next(found, None)
        if first is not None:
            counter = _Counter(chain((first,), found))
            print_table(("job", "state", "tries", "credits", ""), map(_row, counter), right=(2, 3))
    return counter.count


class _Counter:
    """Counts what passes through."""

    def __init__(self, items: Iterable[dict[str, Any]]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self._items:
            self.count += 1
            yield item


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    name = job["job"] if job["current"] else f"{job['job']} (old, revision {job['revision']})"
    return name, job["state"], str(job["attempts"]), number(job["credits"]), _detail(job)


def _detail(job: dict[str, Any]) -> str:
    error = job["error"]
    if error is not None:
        code = "" if error["code"] is None else f" {error['code']}"
        return visible(f"{error['kind']}{code}: {error['message']}", MESSAGE)
    return str(job["output"] or job["task_id"] or "")


# --- CSV -------------------------------------------------------------------------------------------------


def _print_csv(found: Iterable[dict[str, Any]]) -> None:
    import csv
    import io

    stdout = sys.stdout.buffer
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)

    def flush() -> None:
        stdout.write(buffer.getvalue().encode("utf-8", "backslashreplace"))
        buffer.seek(0)
        buffer.truncate()

    writer.writerow(CSV_COLUMNS)
    for job in found:
        writer.writerow([cell(value) for value in _csv_values(job)])
        flush()
    flush()
    stdout.flush()


def _csv_values(job: dict[str, Any]) -> Iterator[Any]:
    error = job["error"] or {}
    flat = {
        **job,
        "matrix": _compact(job["matrix"]) if job["matrix"] else "",
        "tags": " ".join(job["tags"]),
        "prompt": job["request"].get("prompt", ""),
        "request": _compact(job["request"]),
        "error_kind": error.get("kind"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "request_id": error.get("request_id"),
        "current": "true" if job["current"] else "false",
        "created_at": utc_time(job["created_at"]),
        "updated_at": utc_time(job["updated_at"]),
    }
    for name in CSV_COLUMNS:
        yield flat[name]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet runs as a formula: text that begins with = + - @, a tab or a carriage return gets
    an apostrophe before it (owasp.org, CSV Injection)."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
