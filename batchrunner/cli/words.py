"""`retry`, `resolve`, `cancel`: a person's word on jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..core.job import FailureKind
from ..core.text import visible
from ..core.words import TASK_ID, Cancel, Resolve, Retry, Word
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from .ledgers import complete_both, complete_jobs, db_words
from .options import db_option, json_option, ledger_path, models_option, wait_option
from .tables import counted, money, number, print_json, say, warn

if TYPE_CHECKING:
    from ..words import Said

LISTED = 20
"""Jobs that are named one by one, for people."""


@click.command(
    epilog="""\b
Examples:
  batchrunner retry nightly-beach                         what failed and was refunded
  batchrunner retry nightly-beach --kind moderated
  batchrunner retry corgi-beach-1 corgi-beach-3
  batchrunner retry 'nightly-beach/corgi-*' --kind lost   may pay a second time

\b
Kinds that were refunded: rejected, moderated, provider.
Kinds that were, or may have been, charged: lost, expired, abandoned. They need --kind, or the job's exact key.
Works beside a run that is alive too: the run submits them.
"""
)
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...", shell_complete=complete_both)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([k.value for k in FailureKind]),
    help="Only failures of this kind.",
)
@wait_option
@json_option
@db_option
def retry(names: tuple[str, ...], kinds: tuple[str, ...], wait_lock: float, as_json: bool, db: Address | None) -> int:
    """Send failed jobs back to pending.

    Nothing is submitted yet: the run that is alive does that, or the next `run` or `resume`.
    """
    path = ledger_path(db)
    done = say_word(path, Retry(names, tuple(FailureKind(k) for k in kinds)), wait_lock)
    if as_json:
        print_json({"retried": _keys(done), "skipped": _skipped(done), "credits": done.credits})
        return EXIT_OK
    _list(done, "pending again")
    if done.jobs:
        say(f"{counted(len(done.jobs), 'job')} pending again; submitting {_them(done)} will cost {money(done.credits)}")
        _how_to_continue(done, path)
    else:
        say("nothing to retry: no failed job that this may submit again")
    return EXIT_OK


@click.command(
    epilog="""\b
Examples:
  batchrunner jobs --state unconfirmed                    which there are
  batchrunner show corgi-beach-1                          what was seen
  batchrunner resolve corgi-beach-1 --task-id task_0123   it became this task: followed, not paid for again
  batchrunner resolve corgi-beach-1 --resubmit            submit again, and perhaps pay twice
  batchrunner resolve 'corgi-*' --abandon --why "not in the provider's list"

\b
Works beside a run that is alive too: the run goes on with it.
"""
)
@click.argument("job", shell_complete=complete_jobs)
@click.option("--task-id", metavar="ID", help="It was accepted as this task: follow it.")
@click.option("--resubmit", is_flag=True, help="Submit it again: your recorded consent to paying a second time.")
@click.option("--abandon", is_flag=True, help="Give it up: it becomes failed (abandoned).")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the job's history.")
@click.option(
    "--revision", type=click.IntRange(min=1), metavar="N", help="Which revision, where several are unconfirmed."
)
@wait_option
@json_option
@db_option
def resolve(
    job: str,
    task_id: str | None,
    resubmit: bool,
    abandon: bool,
    why: str,
    revision: int | None,
    wait_lock: float,
    as_json: bool,
    db: Address | None,
) -> int:
    """Say what became of an unconfirmed job.

    Its submission may have been accepted, and the answer was not read; only a person who looks at the provider's own
    history can tell. Exactly one of --task-id, --resubmit and --abandon says it.
    """
    if (task_id is not None) + resubmit + abandon != 1:
        raise UsageError("say exactly one of --task-id ID, --resubmit and --abandon")
    if task_id is not None and not TASK_ID.fullmatch(task_id):
        raise UsageError(f"{task_id!r} is no task id: 1 to 128 letters, digits, '.', '_' or '-'")
    path = ledger_path(db)
    done = say_word(path, Resolve(job, task_id, resubmit, abandon, why, revision), wait_lock)
    state = "running" if task_id is not None else "pending" if resubmit else "failed"
    if as_json:
        print_json({"resolved": _keys(done), "state": state})
        return EXIT_OK
    run = "the next run" if done.run is None else "the run that is alive"
    meaning = {
        "running": f"running: {run} follows it",
        "pending": f"pending: {run} submits {_them(done)}, for {money(done.credits)}",
        "failed": "failed (abandoned): what it may have cost stays in the budget, at risk",
    }[state]
    _list(done, state)
    say(f"{counted(len(done.jobs), 'job')} now {meaning}")
    if state != "failed":
        _how_to_continue(done, path)
    return EXIT_OK


@click.command(
    epilog="""\b
Examples:
  batchrunner cancel nightly-beach
  batchrunner cancel 'corgi-*' --why "the client has changed her mind"
  batchrunner cancel nightly-beach --models my-models     running jobs of models of your own

\b
Works beside a run that is alive too: the run withdraws them.
"""
)
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...", shell_complete=complete_both)
@click.option("--why", default="", metavar="TEXT", help="The reason, for the jobs' history.")
@models_option
@wait_option
@json_option
@db_option
def cancel(names: tuple[str, ...], why: str, wait_lock: float, as_json: bool, db: Address | None) -> int:
    """Withdraw pending jobs, and ask the service to cancel running ones where it can.

    What was sent already may be paid for. A running job stays running until a poll says how it ended: failed, or done
    all the same where the wish came too late. What that costs is the service's word (docs/providers.md).
    """
    from ..cancelling import cancel_running
    from .loading import models_in_use

    path, known = ledger_path(db), models_in_use()
    done = say_word(path, Cancel(names, why), wait_lock)
    asked = cancel_running(path, names, done, known)
    if done.unrecorded:
        warn(
            f"{counted(done.unrecorded, 'job')} of the manifest never got into the ledger, as a run was cut short, and "
            "can't be cancelled: running the manifest would record and send what it asks for"
        )
    if as_json:
        told = [{"batch": batch, "job": job} for batch, job in asked]
        print_json({"cancelled": _keys(done), "skipped": _skipped(done), **({"asked": told} if told else {})})
        return EXIT_OK
    _list(done, "cancelled")
    for _, job in asked:
        say(f"{visible(job)}: the service was asked to cancel it; the run's next poll says what became of it")
    say(f"{counted(len(done.jobs), 'job')} cancelled" if done.jobs or asked else "nothing to cancel: no pending job")
    return EXIT_OK


def say_word(path: Address, word: Word, wait: float) -> Said:
    """Say it, and whether a run that is alive took it. Raises as `words.say`."""
    from .. import words

    return asyncio.run(words.say(path, word, wait))


# --- What was done ---------------------------------------------------------------------------------------


def _keys(done: Said) -> list[dict[str, str]]:
    return [{"batch": batch, "job": job} for batch, job in done.jobs]


def _skipped(done: Said) -> list[dict[str, str]]:
    return [{"batch": s.batch, "job": s.job, "state": s.state, "why": s.why} for s in done.skipped]


def _list(done: Said, now: str) -> None:
    """The jobs one by one where they are few, the ones left alone by reason where they are many."""
    if len(done.jobs) <= LISTED:
        for _, job in done.jobs:
            say(f"  {visible(job)}: {now}")
    if len(done.skipped) <= LISTED:
        for one in done.skipped:
            say(f"  {visible(one.job)}: left alone, {visible(_reads(one.why))}")
        return
    for why, count in Counter(s.why for s in done.skipped).most_common():
        say(f"  {number(count)} left alone: {visible(_reads(why))}")


def _reads(why: str) -> str:
    """The reason without a verb that has no subject: `is running` reads `running`."""
    return why.removeprefix("is ")


def _them(done: Said) -> str:
    return "it" if len(done.jobs) == 1 else "them"


def _how_to_continue(done: Said, path: Address) -> None:
    if done.run is None:
        say(f"now run the manifest again, or: batchrunner resume {_words(done.batches)}{db_words(path)}")
    elif done.run["stop"]:
        say(f"the run that is alive submits nothing more ({visible(str(done.run['stop']))}); run again after it")
    elif done.run["paused_by"]:
        say(f"the run that is alive is paused; `batchrunner continue{db_words(path)}` goes on")
    else:
        say(f"the run that is alive goes on with {_them(done)}, as far as it was asked to do that")


def _words(batches: Sequence[str]) -> str:
    return " ".join(visible(batch) for batch in batches)
