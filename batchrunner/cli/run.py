"""`run` and `resume`: the main job."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .. import app
from ..core.selection import Selection
from ..exits import EXIT_SIGTERM
from .options import (
    Duration,
    F,
    db_option,
    json_option,
    ledger_path,
    manifest_options,
    selection_options,
)
from .options import selection as selection_of

if TYPE_CHECKING:
    from ..manifest import Manifest


def _shared(function: F) -> F:
    """The options that `run` and `resume` have in common."""
    for option in reversed(
        [
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N new submissions."),
            click.option(
                "--max-credits",
                type=click.IntRange(min=0),
                metavar="N",
                help="Cap on the batch's credits; the smaller of it and the manifest's budget holds.",
            ),
            click.option(
                "--on-unconfirmed",
                type=click.Choice(["hold", "resubmit"]),
                default="hold",
                show_default=True,
                help="What to do at the start with selected jobs whose submission may or may not have been accepted. "
                "resubmit is your recorded consent to pay a second time.",
            ),
            click.option(
                "--until", metavar="HH:MM", help="Stop submitting at this local time; follow what is running."
            ),
            click.option("--for", "duration", type=Duration(), help="Stop submitting after this long, such as 5h."),
            click.option(
                "--wait-lock", type=Duration(), default="0s", help="Wait this long for another runner, such as 10m."
            ),
            click.option(
                "--simulate", is_flag=True, help="Use the built-in simulator: free, no key, a ledger of its own."
            ),
            click.option(
                "--fault",
                "faults",
                multiple=True,
                metavar="NAME=P",
                help="With --simulate: a fault, see simulate --help.",
            ),
            click.option("--quiet", "-q", is_flag=True, help="Print nothing but the summary and errors."),
            json_option,
            db_option,
        ]
    ):
        function = option(function)
    return function


@click.command(
    epilog="""\b
Examples:
  batchrunner run first.yaml --simulate
  batchrunner run nightly.yaml --profile final --max-credits 5000
  batchrunner run nightly.yaml --only 'corgi-*' --limit 3
  batchrunner run nightly.yaml --until 06:00 --json >> night.ndjson
"""
)
@manifest_options
@selection_options
@click.option("--dry-run", is_flag=True, help="Show the plan and its price; record and send nothing.")
@_shared
def run(
    manifests: tuple[str, ...],
    variables: dict[str, str],
    profile: str | None,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    dry_run: bool,
    db: Path | None,
    as_json: bool,
    simulate: bool,
    **rest: Any,
) -> int:
    """Do the main job: submit what is pending, poll, download, until everything has ended.

    Run the same command again to continue after a crash, a signal, a limit or an empty account: a job that was paid
    for is never paid for twice, and a finished file is never fetched again.
    """
    from .loading import load_all

    loaded = load_all(manifests, profile=profile, variables=variables, as_json=as_json)
    path = ledger_path(db, simulate=simulate)
    chosen = selection_of(only, tags)
    if dry_run:
        from .plan import print_plan

        connection = app.read_ledger(path)
        try:
            return print_plan(loaded, connection, chosen, as_json=as_json)
        finally:
            if connection is not None:
                connection.close()
    return _go(db=path, manifests=loaded, selection=chosen, as_json=as_json, simulate=simulate, **rest)


@click.command(
    epilog="""\b
Examples:
  batchrunner resume                 every unfinished batch of the ledger
  batchrunner resume nightly-beach
"""
)
@click.argument("batches", nargs=-1, metavar="[BATCH]...")
@selection_options
@_shared
def resume(
    batches: tuple[str, ...],
    only: tuple[str, ...],
    tags: tuple[str, ...],
    db: Path | None,
    as_json: bool,
    simulate: bool,
    **rest: Any,
) -> int:
    """Continue unfinished batches from the ledger alone, without the manifest."""
    path = ledger_path(db, simulate=simulate)
    if not path.exists():
        raise app.UsageError(f"no ledger at {path}; name it with --db, or start with `batchrunner run MANIFEST`")
    return _go(db=path, batches=batches, selection=selection_of(only, tags), as_json=as_json, simulate=simulate, **rest)


def _go(
    *,
    db: Path,
    selection: Selection,
    as_json: bool,
    quiet: bool,
    until: str | None,
    duration: float | None,
    wait_lock: float,
    on_unconfirmed: str,
    faults: tuple[str, ...],
    simulate: bool,
    limit: int | None,
    max_credits: int | None,
    manifests: list[Manifest] | None = None,
    batches: Sequence[str] = (),
) -> int:
    from .display import watcher_for
    from .errors import drop_stdout

    if faults and not simulate:
        raise app.UsageError("--fault needs --simulate")
    options = app.RunOptions(
        db=db,
        manifests=[] if manifests is None else manifests,
        batches=batches,
        simulate=simulate,
        faults=faults,
        selection=selection,
        limit=limit,
        max_credits=max_credits,
        resubmit=on_unconfirmed == "resubmit",
        until=_deadline(until, duration),
        wait_lock=wait_lock,
        remote=True,
    )
    early_signals()
    with watcher_for(db, as_json=as_json, quiet=quiet) as watcher:
        result = app.run(options, watcher)
        try:
            watcher.summary(result)
        except OSError:  # a pipe without a reader, a terminal that was closed, a full disk under a log
            drop_stdout()  # the exit code still says how it went
    return result.exit_code


def early_signals() -> None:
    """Until the run has its own way of ending (`engine.signals`), SIGTERM and a terminal that closes end it as a
    keyboard interrupt does. What is ignored (`nohup`) stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(EXIT_SIGTERM)


def _deadline(until: str | None, duration: float | None) -> float | None:
    """Seconds from now until the earlier of `--until` and `--for`; None for neither."""
    ends = [] if duration is None else [duration]
    if until is not None:
        try:
            wanted = datetime.time.fromisoformat(until)
        except ValueError:
            raise app.UsageError(f"--until takes a local time such as 06:00, not {until!r}") from None
        now = app.local_now()
        end = datetime.datetime.combine(now.date(), wanted, tzinfo=now.tzinfo)
        if end <= now:
            end += datetime.timedelta(days=1)
        ends.append((end - now).total_seconds())
    return min(ends) if ends else None
