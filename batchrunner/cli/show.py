"""`show`: everything about one job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from ..core.figures import media_words
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address
from ..ledger.sql import Connection
from .ledgers import complete_jobs, db_words, reading_known
from .options import db_option, json_option, ledger_path
from .tables import counted, json_text, local_time, money, number, print_json, print_table, say

SEVERAL = 5
"""Jobs that a message names when a pattern means more than one."""


@click.command(
    epilog="""\b
Examples:
  batchrunner show corgi-beach-1
  batchrunner show nightly-beach/corgi-beach-1      where two batches have such a job
  batchrunner show corgi-beach-1 --revision 1       as it was before the manifest changed
  batchrunner show corgi-beach-1 --json | jq .request
"""
)
@click.argument("job", shell_complete=complete_jobs)
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="An older revision of the job.")
@json_option
@db_option
def show(job: str, revision: int | None, as_json: bool, db: Address | None) -> int:
    """Everything about one job: request, history, attempts.

    JOB is the key, BATCH/KEY, or a pattern in quotes that means one job.
    """
    from ..ledger import described
    from ..ledger.workers import sender

    path = ledger_path(db)
    with reading_known(path) as connection:
        job_id = _find(connection, job, revision)
        found = described.show(connection, job_id)
        by = sender(connection, job_id)
    if by is not None:
        found["sent_by"] = by
    output = found["output"]
    found["sidecar"] = None if output is None else output + ".json"
    if as_json:
        print_json(found)
    else:
        _print(found, db_words(path))
    return EXIT_OK


def _find(connection: Connection, name: str, revision: int | None) -> int:
    """The row id of the one job that is meant.

    Raises:
        Unknown: there is none.
        UsageError: several, or no such revision.
    """
    from ..ledger import described, naming

    rows = naming.find_jobs(connection, name)
    if len(rows) > 1:
        names = ", ".join(f"{r['batch']}/{r['key']}" for r in rows[:SEVERAL])
        raise UsageError(f"{name} means {len(rows)} jobs; name one of them: {names}{', ...' if rows[SEVERAL:] else ''}")
    row = rows[0]
    if revision is None:
        return int(row["id"])
    wanted = described.revision_of(connection, row["id"], revision)
    if wanted is None:
        raise UsageError(f"{row['key']} has no revision {revision}; `batchrunner show {row['key']}` lists them")
    return wanted


def _print(job: dict[str, Any], db: str) -> None:
    for name, text in _facts(job):
        say(f"{name:<10} {visible(text)}")
    say()
    say("request")
    for name, value in job["request"].items():
        say(f"  {visible(name)}: {visible(value if isinstance(value, str) else json_text(value, indent=None))}")
    sent = next((a["request"] for a in reversed(job["attempt_list"]) if "request" in a), None)
    if sent is not None:
        say()
        say("sent in the last attempt")
        for name, value in sent.items():
            if value != job["request"].get(name):
                say(f"  {visible(name)}: {visible(value if isinstance(value, str) else json_text(value, indent=None))}")
    if job["attempt_list"]:
        say()
        say("attempts")
        headers = ("", "sent", "outcome", "credits", "money", "task", "request id", "consent")
        print_table(headers, map(_attempt, job["attempt_list"]), right=(3,))
    say()
    say("history")
    print_table(("", "", "", "", ""), map(_event, job["history"]))
    for line in _next(job, db):
        say()
        say(line)


def _facts(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "job", job["job"]
    yield "batch", job["batch"]
    others = [str(r["revision"]) for r in job["revisions"] if r["revision"] != job["revision"]]
    state = job["state"]
    if not job["current"]:
        state += ", not in the manifest any more"
    yield "state", state
    if others:
        yield "revision", f"{job['revision']} (others: {', '.join(others)}; --revision N shows one)"
    error = job["error"]
    if error is not None:
        code = "" if error["code"] is None else f" {error['code']}"
        yield "error", f"{error['kind']}{code}: {error['message']}"
        if error["request_id"]:
            yield "request id", error["request_id"]
    yield from _needs(job)
    if job["task_id"]:
        yield "task", job["task_id"]
    if "sent_by" in job:
        by = job["sent_by"]
        yield "sent by", f"worker {by['worker']} on {by['host']} (process {by['pid']})"
    yield "credits", money(job["credits"])
    yield from _lineage(job)
    if job["matrix"]:
        yield "matrix", ", ".join(f"{k}={json_text(v, indent=None)}" for k, v in job["matrix"].items())
    if job["tags"]:
        yield "tags", ", ".join(job["tags"])
    if job["output"]:
        gone = "" if os.path.lexists(job["output"]) else " (not there any more)"
        yield "file", f"{job['output']}{gone}"
        yield "sidecar", job["sidecar"]
        yield "size", f"{number(job['bytes'])} bytes, sha256 {job['sha256']}"
    for other in job["outputs"][1:]:
        yield "last frame" if other.get("role") else "file", f"{other['path']} ({number(other['bytes'])} bytes)"
    if job["media"] is not None:
        yield from _media(job["media"])


def _needs(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What it waits for; or else the jobs whose outputs it was made from."""
    if job["waits_for"] is not None:
        yield "waits for", job["waits_for"]
        return
    for need in job["needs"]:
        yield "needs", f"{need['job']} ({need['state']})"


def _media(media: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the file's headers say, and where it is not what was ordered."""
    facts = media_words(media)
    if facts:
        yield "media", facts
    for warning in media["warnings"]:
        yield "WARNING", warning


def _lineage(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person said of it, where it was promoted from, and to what."""
    for said in job["verdicts"]:
        note = f": {said['note']}" if said["note"] else ""
        yield said["verdict"], f"{local_time(said['at'])} by {said['who']}{note}"
    if job["promoted_from"]:
        source = job["promoted_from"]
        yield "from", f"{source['job']} revision {source['revision']}, with profile {source['profile']}"
    for made in job["promotions"]:
        yield "promoted", f"{made['job']} revision {made['revision']}: {made['state']}"


def _attempt(attempt: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(attempt["number"]),
        local_time(attempt["intent_at"]),
        attempt["outcome"] or "no answer yet",
        number(attempt["credits"]),
        attempt["money"].replace("_", " "),
        attempt["task_id"] or "",
        attempt["request_id"] or "",
        attempt["consent"] or "",
    )


def _event(event: dict[str, Any]) -> tuple[str, ...]:
    move = f"{event['from']} -> {event['to']}" if event["from"] else event["to"]
    who = f"by {event['who']}" if event["who"] else ""
    return f"  {local_time(event['at'])}", move, event["event"], event["reason"], who


def _next(job: dict[str, Any], db: str) -> Iterator[str]:
    key = visible(job["job"])
    if job["state"] == "unconfirmed":
        yield (
            "This submission may have been paid for. Look for it in the provider's own history, then say which it is:\n"
            f"  batchrunner resolve {key} --task-id ID{db}     it became this task: followed, not paid for again\n"
            f"  batchrunner resolve {key} --resubmit{db}       submit again, and perhaps pay twice\n"
            f"  batchrunner resolve {key} --abandon{db}        give it up"
        )
    elif job["state"] == "failed" and job["current"]:
        yield f"To submit it again: batchrunner retry {key}{db}  ({counted(job['attempts'], 'attempt')} so far)"
