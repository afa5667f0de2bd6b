"""The promise (CONTRACT.md, P1 to P5), checked from outside: the double's account against the ledger and the disk.

Nothing of the engine is asked. Every function returns what is wrong, in words; an empty list is a kept promise.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.core.lifecycle import TABLE
from batchrunner.engine.recover import SPOOL
from tests.double import Account, Task
from tests.voices import VOICES

EVENTS: dict[str, type[e.Event]] = {kind.__name__.lower(): kind for _, kind in TABLE}
"""The name of an event in the history -> its class."""

HARMLESS = frozenset({"throttle", "no_credit", "unauthorized"})
"""Answers to a POST after which it may be sent again: the service proved that it accepted nothing."""

SIGNALS = {"interrupted": 130, "terminated": 143}
"""Why a run that a signal has ended says it stopped, and its exit code."""

SAID = frozenset({"resubmitted", "retried"})
"""Events by which a person has a job submitted again."""

ENDED = frozenset({"succeeded", "failed", "cancelled", "unconfirmed", "pending"})
"""States that a run may leave behind when it ends by itself (promise P4)."""


class Books:
    """What a ledger file says, read from a copy so that looking changes nothing."""

    def __init__(self, db: Path, copy: Path, *, thorough: bool = True) -> None:
        """Args:
        db: the ledger.
        copy: where to copy it.
        thorough: check the whole file; a run that goes on from it does so too.
        """
        copy.mkdir(exist_ok=True)
        place = copy / "copy.db"
        for suffix in ("", "-wal"):
            source, target = Path(f"{db}{suffix}"), Path(f"{place}{suffix}")
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)
        Path(f"{place}-shm").unlink(missing_ok=True)
        with closing(sqlite3.connect(place)) as connection:
            connection.row_factory = sqlite3.Row
            self.empty = not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'job'").fetchone()
            self.jobs = [] if self.empty else _rows(connection, "SELECT * FROM job ORDER BY id")
            self.attempts = [] if self.empty else _rows(connection, "SELECT * FROM attempt ORDER BY job_id, number")
            self.history = [] if self.empty else _rows(connection, "SELECT * FROM history ORDER BY id")
            # A run may have died between two migrations.
            known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'media'").fetchone()
            self.media = _rows(connection, "SELECT * FROM media ORDER BY job_id, attempt, number") if known else []
            self.batches = [] if self.empty else _rows(connection, "SELECT * FROM batch ORDER BY id")
            self.sound = connection.execute("PRAGMA integrity_check").fetchone()[0] if thorough else "ok"

    def of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """The attempts of a job."""
        return [a for a in self.attempts if a["job_id"] == job["id"]]

    @property
    def unrecorded(self) -> int:
        """Jobs that, as the ledger itself says, it does not have."""
        return sum(batch["unrecorded"] for batch in self.batches)

    def states(self) -> dict[str, int]:
        """Counts by state of the current jobs."""
        found: dict[str, int] = {}
        for job in self.jobs:
            if job["current"]:
                found[job["state"]] = found.get(job["state"], 0) + 1
        return found


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql)]


def check_now(books: Books, account: Account, outputs: Path, budget: int | None) -> list[str]:
    """What must hold at every moment, also of what a dead run left."""
    wrong = [] if books.sound == "ok" else [f"the ledger is damaged: {books.sound}"]
    wrong += check_once(books, account)
    wrong += check_known(books, account)
    wrong += check_files(books, account, outputs)
    wrong += check_money(books, account, budget)
    wrong += check_history(books)
    wrong += check_chain(books, account)
    return wrong


def check_chain(books: Books, account: Account) -> list[str]:
    """What needs another job's output is sent after that has succeeded, with its URL, and exactly as recorded."""
    wrong = []
    for job in books.jobs:
        found = re.search(r'"\$output":\{"job":"([^"]+)"', job["request"])
        parent = next((j for j in books.jobs if found and j["key"] == found[1]), None)
        for attempt in books.of(job):
            sent = attempt["request"]
            if (found is None) != (sent is None):
                wrong.append(f"{job['key']}: what was sent is not recorded, or twice")
            if found is None or sent is None:
                continue
            if "$" in sent or parent is None or parent["state"] != "succeeded" or parent["task_id"] not in sent:
                wrong.append(f"{job['key']} was sent without what it needs: {sent}")
            bodies = {p.sha256 for p in account.posts if p.label == job["key"]}
            attempts = {_digest(a["request"], job["provider"]) for a in books.of(job)}
            if not bodies <= attempts:
                wrong.append(f"{job['key']}: what was sent is not what was recorded")
    return wrong


def _digest(request: str, service: str) -> str:
    """Of the body that a recorded request is sent as."""
    body = VOICES[service].sent(json.loads(request))
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def check_once(books: Books, account: Account) -> list[str]:
    """P1: for each job, after a POST that may have been accepted, no other without recorded consent."""
    wrong = [f"P1 {account.followed} POSTs were sent on to where a redirect led"] if account.followed else []
    for label in sorted({p.label for p in account.posts}):
        posts = [p for p in account.posts if p.label == label]
        job = next((j for j in books.jobs if j["key"] == label), None)
        if job is None:
            wrong.append(f"P1 {label}: a POST for a job that the ledger doesn't have")
            continue
        attempts = books.of(job)
        if len(posts) > len(attempts):
            wrong.append(f"P1 {label}: {len(posts)} POSTs and {len(attempts)} recorded intents")
        refunded = {t.id for t in account.tasks if t.refunded}
        doubtful = [
            p for p in posts[:-1] if p.answer not in HARMLESS and p.answer != "reject" and p.task not in refunded
        ]
        consents = [a for a in attempts if a["consent"] is not None]
        told = [h for h in books.history if h["job_id"] == job["id"] and h["event"] in SAID]
        rejected = [p for p in posts[:-1] if p.answer == "reject"]
        if len(rejected) > len(told):
            wrong.append(f"P1 {label}: was rejected and sent again, and nobody said so")
        if len(doubtful) > len(consents):
            answers = ", ".join(p.answer for p in posts)
            wrong.append(f"P1 {label}: POSTs answered {answers}, with {len(consents)} consents")
        if len({p.sha256 for p in posts}) != 1 and not any(a["request"] for a in attempts):
            wrong.append(f"P1 {label}: its POSTs asked for different things")
    return wrong


def check_known(books: Books, account: Account) -> list[str]:
    """P2: every accepted task's id is in the ledger, or its job is held (or is about to be: its runner is dead)."""
    wrong = []
    known = {a["task_id"]: a["job_id"] for a in books.attempts if a["task_id"]}
    for job in books.jobs:
        tasks = account.of(job["key"])
        unknown = [t for t in tasks if t.id not in known]
        doubts = [a for a in books.of(job) if a["task_id"] is None and a["money"] in {"at_risk", "reserved"}]
        if len(unknown) > len(doubts):
            wrong.append(f"P2 {job['key']}: {len(unknown)} tasks that nobody knows, {len(doubts)} in doubt")
        if unknown and job["state"] not in {"unconfirmed", "submitting"} and not _spoken(books.of(job)):
            wrong.append(f"P2 {job['key']} is {job['state']}, and {unknown[0].id} is not recorded")
    labels = {t.id: t.label for t in account.tasks}
    for task_id, job_id in known.items():
        key = next(j["key"] for j in books.jobs if j["id"] == job_id)
        if labels.get(task_id) != key:
            wrong.append(f"P2 {key}: the ledger names {task_id}, which is {labels.get(task_id)}'s")
    return wrong


def _spoken(attempts: Sequence[dict[str, Any]]) -> bool:
    """Whether a person has taken the doubt away."""
    return any(a["consent"] is not None or a["outcome"] == "abandoned" for a in attempts)


def _files(outputs: Path) -> Iterator[Path]:
    return (p for p in sorted(outputs.rglob("*")) if p.is_file()) if outputs.exists() else iter(())


def _passing(path: Path) -> bool:
    """A file that is being made: no final name."""
    return path.name.endswith(".part") or path.name.startswith(".batchrunner-")


def check_files(books: Books, account: Account, outputs: Path) -> list[str]:
    """P3: a file under its final name is what the double served, to the byte, and has its sidecar."""
    wrong = []
    tasks = {t.id: t for t in account.tasks}
    for path in _files(outputs):
        if _passing(path):
            continue
        if path.suffix == ".json":
            wrong += _check_sidecar(path, tasks)
            continue
        sidecar = path.with_name(path.name + ".json")
        if not sidecar.exists():
            wrong.append(f"P3 {path.name} has no sidecar")
            continue
        facts = json.loads(sidecar.read_text())
        task, data = tasks.get(facts["task_id"]), path.read_bytes()
        number = 0 if facts.get("role") == "last_frame" else facts.get("output", 1)
        if task is None or data != account.clip(task.id, number):
            wrong.append(f"P3 {path.name} is not what was served")
        elif not task.served:
            wrong.append(f"P3 {path.name} was never served whole")
        elif task.label != facts["job"] or not path.name.startswith(_name(task.label, number, account.outputs)):
            wrong.append(f"P3 {path.name} is of {task.label}")
        if facts["sha256"] != hashlib.sha256(data).hexdigest() or facts["bytes"] != len(data):
            wrong.append(f"P3 {path.name}: the sidecar has another hash or size")
    for job in books.jobs:
        if job["state"] == "succeeded" and not _stored(job):
            wrong.append(f"P3 {job['key']} has succeeded, and {job['file']} is not as recorded")
        if job["state"] == "succeeded":
            wrong += _check_all_kept(job, books, account)
    return wrong


def _name(label: str, number: int, of: int) -> str:
    """How the name of a job's file begins."""
    return f"{label}-last-frame." if not number else f"{label}." if of == 1 else f"{label}-{number}."


def _check_all_kept(job: dict[str, Any], books: Books, account: Account) -> list[str]:
    """Of a job that has succeeded every output is there and accounted for; a last frame may be missing, with a word."""
    rows = [m for m in books.media if (m["job_id"], m["attempt"]) == (job["id"], job["attempt"])]
    numbers = [m["number"] for m in rows]
    if numbers != [*([0] if account.last_frame else []), *range(1, account.outputs + 1)]:
        return [f"P3 {job['key']} has succeeded with the outputs {numbers} of {account.outputs}"]
    wrong = [f"P3 {job['key']}: {m['file']} is not as recorded" for m in rows if m["file"] and not _stored(m)]
    if any(m["file"] is None and m["warnings"] == "[]" for m in rows):
        wrong.append(f"P3 {job['key']}: an output is missing without a word")
    if rows[-account.outputs]["file"] != job["file"]:
        wrong.append(f"P3 {job['key']}: its first output is not its file")
    return wrong


def finished(account: Account, outputs: Path) -> dict[tuple[str, str], int]:
    """(task, number) of every file that is complete under its final name -> how often it was served so far."""
    tasks = {t.id: t for t in account.tasks}
    found = {}
    for path in _files(outputs):
        sidecar = path.with_name(path.name + ".json")
        if _passing(path) or path.suffix == ".json" or not sidecar.exists():
            continue
        facts = json.loads(sidecar.read_text())
        number = "0" if facts.get("role") == "last_frame" else str(facts.get("output", 1))
        if hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]:
            found[facts["task_id"], number] = tasks[facts["task_id"]].files.get(number, 0)
    return found


def check_not_again(before: Mapping[tuple[str, str], int], account: Account) -> list[str]:
    """A finished file is never fetched again."""
    served = {(t.id, number): count for t in account.tasks for number, count in t.files.items()}
    again = [what for what, count in before.items() if served.get(what, 0) > count]
    return [f"P3 output {number} of {task} was finished, and was fetched again" for task, number in again]


def _check_sidecar(path: Path, tasks: dict[str, Task]) -> list[str]:
    try:
        facts = json.loads(path.read_text())
    except ValueError:
        return [f"P3 {path.name} is torn"]
    if facts.get("task_id") not in tasks or not facts.get("sha256") or not facts.get("bytes"):
        return [f"P3 {path.name} is incomplete"]
    return []


def _stored(job: dict[str, Any]) -> bool:
    path = Path(job["file"])
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == job["sha256"]


def check_money(books: Books, account: Account, budget: int | None) -> list[str]:
    """P5: spent + reserved + at risk is what was, or may have been, charged, and never beyond the budget."""
    wrong = []
    sums = {"spent": 0, "reserved": 0, "at_risk": 0, "none": 0}
    for attempt in books.attempts:
        sums[attempt["money"]] += attempt["credits"]
    for name in ("spent", "reserved", "at_risk"):
        told = sum(b[name] for b in books.batches)
        if told != sums[name]:
            wrong.append(f"P5 the batch says {name} {told}, its attempts {sums[name]}")
    committed = sums["spent"] + sums["reserved"] + sums["at_risk"]
    if account.net > committed:
        wrong.append(f"P5 {account.net} credits were charged, the ledger counts {committed}")
    if budget is not None and max(account.peak, committed) > budget:
        wrong.append(f"P5 the budget is {budget}; charged at most {account.peak}, counted {committed}")
    tasks = {t.id: t for t in account.tasks}
    for attempt in books.attempts:
        task = tasks.get(attempt["task_id"])
        if task is None:
            continue
        if attempt["money"] == "none" and not task.refunded:
            wrong.append(f"P5 {task.label}: {task.id} was charged, and counts as free")
        if attempt["money"] == "spent" and (task.refunded or attempt["credits"] != task.credits):
            wrong.append(f"P5 {task.label}: {task.id} counts as {attempt['credits']} spent")
    return wrong


def check_answered(books: Books, account: Account, before: int) -> list[str]:
    """P2, to the letter: of the POSTs since the first `before`, each whose answer was whole is settled. For a run that
    ended by itself, a signal's word included: it has waited for what was on the wire."""
    known = {a["task_id"] for a in books.attempts}
    posts = [p for p in account.posts[before:] if p.answer in {"ok", "slow"} and p.task not in known]
    return [f"P2 {p.label}: the answer to POST {p.number} was there, and {p.task} is not recorded" for p in posts]


def check_said(books: Books, words: int) -> list[str]:
    """Nothing was done in a person's name more often than a person has spoken."""
    wrong = []
    for job in books.jobs:
        heard = [h for h in books.history if h["job_id"] == job["id"] and h["who"] not in {"", SPOOL}]
        if len(heard) > words:
            wrong.append(f"P1 {job['key']}: {len(heard)} words were heard, {words} were said")
    return wrong


def check_recorded(books: Books, jobs: int) -> list[str]:
    """The ledger has the manifest, or says how much of it is missing."""
    if not books.batches:
        return []
    there = sum(books.states().values())
    good = there + books.unrecorded == jobs and {j["position"] for j in books.jobs if j["current"]} == {*range(there)}
    return [] if good else [f"P4 {there} of {jobs} jobs are there, {books.unrecorded} are said to be missing"]


def check_whole(books: Books, stop: str | None) -> list[str]:
    """A run of a manifest that was not asked to leave has recorded all of it."""
    allowed = stop in {"ledger", *SIGNALS} or not books.unrecorded
    return [] if allowed else [f"P4 {books.unrecorded} jobs were left unrecorded ({stop})"]


def check_history(books: Books) -> list[str]:
    """Every transition is one of the table's, each begins where the last ended, and the last ends where the job is."""
    wrong = []
    for job in books.jobs:
        here: str | None = None
        for row in (h for h in books.history if h["job_id"] == job["id"]):
            if row["from_state"] != here:
                wrong.append(f"history of {job['key']}: from {row['from_state']} while {here}")
            if here is not None:
                legal = TABLE.get((State(here), EVENTS[row["event"]]), frozenset())
                if State(row["to_state"]) not in legal:
                    wrong.append(f"history of {job['key']}: {here}, {row['event']}, {row['to_state']}")
            here = row["to_state"]
        if here != job["state"]:
            wrong.append(f"history of {job['key']} ends {here}, the job is {job['state']}")
        claims = [h for h in books.history if h["job_id"] == job["id"] and h["event"] == "claimed"]
        if len(claims) != len(books.of(job)) or job["attempt"] != len(claims):
            wrong.append(f"history of {job['key']}: {len(claims)} claims, {len(books.of(job))} attempts")
    return wrong


# --- The end ---------------------------------------------------------------------------------------------


def check_end(books: Books, account: Account, outputs: Path, code: int, stop: str | None) -> list[str]:
    """P4, and that everything that could come home did: for the end of a run that died of nothing."""
    wrong = check_code(books.states(), code, stop, books.unrecorded)
    early = stop in {"credentials refused", "unreachable", "ledger", "disk", *SIGNALS}
    tasks = {t.id: t for t in account.tasks}
    for job in books.jobs:
        if job["state"] not in ENDED and (not early or job["state"] == "submitting"):
            wrong.append(f"P4 {job['key']} was left {job['state']}")
        wrong += _check_outcome(job, tasks.get(job["task_id"]), account)
    if code == 4 and stop is None and not books.unrecorded:
        wrong.append(f"P4 work was left for no reason: {books.states()}")
    for attempt in books.attempts:
        task = tasks.get(attempt["task_id"])
        live = next(j for j in books.jobs if j["id"] == attempt["job_id"])["state"] in {"running", "downloading"}
        if task is not None and task.refunded and attempt["money"] != "none" and not live:
            wrong.append(f"P5 {task.label}: {task.id} was refunded, and counts as {attempt['money']}")
    if not any(j["state"] in {"running", "downloading"} for j in books.jobs):
        wrong += [f"left behind: {p.name}" for p in _files(outputs) if _passing(p)]
        # What an attempt has left that gave fewer files than it should have is complete, and stays.
        names = {j["file"] for j in books.jobs if j["state"] == "succeeded"} | {m["file"] for m in books.media}
        expired = {j["key"] for j in books.jobs if j["error_kind"] == "expired"} if account.outputs > 1 else set()
        wrong += [
            f"nobody's: {p.name}"
            for p in _files(outputs)
            if p.suffix in {".mp4", ".png"} and str(p) not in names and p.name.rpartition("-")[0] not in expired
        ]
    return wrong


def check_code(states: Mapping[str, int], code: int, stop: str | None, unrecorded: int = 0) -> list[str]:
    """P4: the exit code says what is left. Written here once, for the enumeration and for the simulation.

    Args:
        states: how many of the current jobs there are in each state.
        code, stop: exit code, and why the run stopped early.
        unrecorded: how many jobs of the manifest the ledger does not have.
    """
    if stop in SIGNALS:
        expected = SIGNALS[stop]
    elif stop in {"credentials refused", "unreachable"}:
        expected = 6
    elif states.get("unconfirmed"):
        expected = 3
    elif unrecorded or any(states.get(s) for s in ("pending", "submitting", "running", "downloading")):
        expected = 4
    else:
        expected = 1 if states.get("failed") else 0
    return [] if code == expected else [f"P4 exit code {code}, expected {expected} for {states} ({stop})"]


def _check_outcome(job: dict[str, Any], task: Task | None, account: Account) -> list[str]:
    """A job ends as its task did."""
    key, kind = job["key"], job["error_kind"]
    posts = [p for p in account.posts if p.label == key]
    if job["state"] == "succeeded":
        good = task is not None and task.failure is None and task.label == key
        return [] if good else [f"{key} has succeeded with the task {job['task_id']}"]
    if job["state"] != "failed":
        return []
    match kind:
        case "rejected":
            good = bool(posts) and posts[-1].answer == "reject"
        case "provider" | "moderated":
            good = task is not None and task.failure == (80006 if kind == "moderated" else 80001)
            good = good and task is not None and task.refunded != task.kept
        case "lost":
            good = task is not None and task.missing > 1
        case "expired":
            good = task is not None and task.dead > 1
        case "abandoned":
            good = True  # by a person's word: see `check_said`
        case _:
            good = False
    return [] if good else [f"{key} failed({kind}), its task: {task}"]
