"""`approve` and `reject`: what a person thinks of finished clips."""

from __future__ import annotations

import click

from ..core.promotion import Verdict
from ..core.text import visible
from ..core.words import Judge
from ..exits import EXIT_OK
from ..ledger.address import Address
from .ledgers import complete_jobs, db_words
from .options import db_option, json_option, ledger_path, wait_option
from .tables import counted, number, print_json, say
from .words import say_word

LISTED = 20
"""Jobs that are named one by one, for people."""

_names = click.argument("names", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
_note = click.option("--note", default="", metavar="TEXT", help="Why, for whoever reads it later.")


@click.command(
    epilog="""\b
Examples:
  batchrunner approve corgi-beach-1 corgi-dunes-2
  batchrunner approve 'nightly-beach/corgi-*' --note "the light is right"
  batchrunner jobs nightly-beach --verdict none --state succeeded     what is still to be looked at
  batchrunner promote nightly-beach --profile final --dry-run         what the winners would cost
"""
)
@_names
@_note
@wait_option
@json_option
@db_option
def approve(names: tuple[str, ...], note: str, wait_lock: float, as_json: bool, db: Address | None) -> int:
    """Approve finished clips: `promote` makes the final from them.

    JOB is the key, BATCH/KEY, or a pattern in quotes, which takes the finished ones. The newest word on a job counts,
    and is for that very revision: an edited shot is approved anew. Costs nothing.
    """
    return _judge(names, Verdict.APPROVED, note, wait_lock, as_json=as_json, db=db)


@click.command(
    epilog="""\b
Examples:
  batchrunner reject corgi-beach-2 --note "six legs"
  batchrunner reject 'corgi-dunes-*'
"""
)
@_names
@_note
@wait_option
@json_option
@db_option
def reject(names: tuple[str, ...], note: str, wait_lock: float, as_json: bool, db: Address | None) -> int:
    """Reject finished clips: nothing is promoted from them.

    Takes an approval back too. What was promoted from it already stays if it was sent, and is not sent if it was not.
    Nothing is deleted.
    """
    return _judge(names, Verdict.REJECTED, note, wait_lock, as_json=as_json, db=db)


def _judge(
    names: tuple[str, ...], verdict: Verdict, note: str, wait: float, *, as_json: bool, db: Address | None
) -> int:
    path = ledger_path(db)
    done = say_word(path, Judge(names, verdict, note), wait)
    if as_json:
        jobs = [{"batch": batch, "job": job} for batch, job in done.jobs]
        skipped = [{"batch": s.batch, "job": s.job, "state": s.state, "why": s.why} for s in done.skipped]
        print_json({verdict.value: jobs, "skipped": skipped})
        return EXIT_OK
    if len(done.jobs) <= LISTED:
        for _, job in done.jobs:
            say(f"  {visible(job)}: {verdict}")
    say(f"{counted(len(done.jobs), 'job')} {verdict}")
    if done.skipped:
        say(f"{number(len(done.skipped))} left alone, without a finished clip")
    if verdict is Verdict.APPROVED:
        for batch in done.batches:
            say(f"next: batchrunner promote {visible(batch)} --profile NAME --dry-run{db_words(path)}")
    return EXIT_OK
