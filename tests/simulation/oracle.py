"""The promise, P1 to P5, judged from outside: the provider's account against the ledger and the disk.

What a run left, however it ended, is looked at by `judge`; how a run ended, by `judge_end`; what it did when, by
`judge_times`. Each returns what is wrong, in words.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from batchrunner.core.job import State
from batchrunner.core.lifecycle import TABLE
from tests.crash.checks import EVENTS, SIGNALS, check_code
from tests.simulation.world import World

EARLY = frozenset({"credentials refused", "unreachable", "ledger", "disk", *SIGNALS})
"""Reasons for which a run may leave tasks running and outputs unfetched."""

Row = dict[str, Any]


class Books:
    """What the ledger says."""

    def __init__(self, db: Path) -> None:
        with closing(sqlite3.connect(db)) as connection:
            connection.row_factory = sqlite3.Row
            self.empty = not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'job'").fetchone()
            if self.empty:
                self.jobs: list[Row] = []
                self.attempts: list[Row] = []
                self.history: list[Row] = []
                self.batches: list[Row] = []
                self.media: list[Row] = []
                self.hold_until = 0.0
                self.unrecorded = 0
                return

            def rows(sql: str) -> list[Row]:
                return [dict(row) for row in connection.execute(sql)]

            self.jobs = rows("SELECT * FROM job ORDER BY id")
            self.attempts = rows("SELECT * FROM attempt ORDER BY job_id, number")
            self.history = rows("SELECT job_id, from_state, to_state, event FROM history ORDER BY id")
            self.batches = rows("SELECT * FROM batch ORDER BY id")
            self.media = rows("SELECT * FROM media ORDER BY job_id, attempt, number")
            hold = connection.execute("SELECT hold_until FROM account").fetchone()
            self.hold_until = hold[0] if hold else 0.0
        self.unrecorded = sum(batch["unrecorded"] for batch in self.batches)
        self.of: dict[int, list[Row]] = {job["id"]: [] for job in self.jobs}
        for attempt in self.attempts:
            self.of[attempt["job_id"]].append(attempt)

    @property
    def files(self) -> dict[str, Row]:
        """The jobs that have succeeded, by the full name of each file that they gave."""
        ended = {(j["id"], j["attempt"]): j for j in self.jobs if j["state"] == "succeeded"}
        found = {m["file"]: ended.get((m["job_id"], m["attempt"])) for m in self.media if m["file"]}
        return {file: job for file, job in found.items() if job is not None}

    @property
    def known(self) -> set[str]:
        return {a["task_id"] for a in self.attempts if a["task_id"]}

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for job in self.jobs:
            found[job["state"]] = found.get(job["state"], 0) + 1
        return found


def judge(books: Books, world: World, outputs: Path, budget: int | None) -> list[str]:
    """What must hold at every moment, also of what a dead run left."""
    return [
        *_once(books, world),
        *_known(books, world),
        *_files(books, world, outputs),
        *_money(books, world, budget),
        *_history(books),
        *_chains(books),
    ]


def _chains(books: Books) -> list[str]:
    """What needs another job's output was sent after that had succeeded, with its URL, as the ledger has it."""
    wrong = []
    for job in books.jobs:
        parent = _parent(books, job)
        for attempt in books.of[job["id"]]:
            sent = attempt["request"]
            if (sent is None) != (parent is None):
                wrong.append(f"{job['key']}: what was sent is not recorded, or needlessly")
            elif parent is not None and (
                "$" in sent or parent["state"] != "succeeded" or parent["task_id"] not in sent
            ):
                wrong.append(f"{job['key']} was sent without what it needs, {parent['key']}: {sent}")
    return wrong


def _parent(books: Books, job: Row) -> Row | None:
    """The job whose output one needs; None where it needs none."""
    found = json.loads(job["request"]).get("first_frame_image")
    if found is None:
        return None
    return next((j for j in books.jobs if j["key"] == found["$output"]["job"]), {"key": "?", "state": "?"})


def judge_waiting(books: Books, world: World) -> list[str]:
    """The end of a calm night: nothing waits but for what did not succeed, or for what the service has forgotten."""
    wrong = []
    for job in books.jobs:
        parent = _parent(books, job)
        if job["state"] != "pending" or parent is None or parent["state"] != "succeeded":
            continue
        if world.account.tasks[parent["task_id"]].fate != "vanish":
            wrong.append(f"liveness: {job['key']} waits, and {parent['key']} has succeeded")
    return wrong


def _once(books: Books, world: World) -> list[str]:
    """P1: no POST without an intent of its own in the ledger."""
    wrong = []
    counts: dict[str, int] = {}
    for post in world.account.posts:
        counts[post.label] = counts.get(post.label, 0) + 1
    jobs = {job["key"]: job for job in books.jobs}
    for label, count in counts.items():
        job = jobs.get(label)
        if job is None:
            wrong.append(f"P1 {label}: a POST for a job that the ledger does not have")
        elif count > len(books.of[job["id"]]):
            wrong.append(f"P1 {label}: {count} POSTs, {len(books.of[job['id']])} recorded intents")
        elif sum(a["consent"] is not None for a in books.of[job["id"]]) > world.consents.get(label, 0):
            wrong.append(f"P1 {label}: a consent that nobody gave")
    return wrong


def _known(books: Books, world: World) -> list[str]:
    """P2: every accepted task is known, or its job is in doubt."""
    wrong = []
    tasks = world.account.tasks
    unknown: dict[str, list[str]] = {}
    known = books.known
    for task in tasks.values():
        if task.id not in known:
            unknown.setdefault(task.label, []).append(task.id)
    for job in books.jobs:
        for attempt in books.of[job["id"]]:
            if attempt["task_id"] and (
                attempt["task_id"] not in tasks or tasks[attempt["task_id"]].label != job["key"]
            ):
                wrong.append(f"P2 {job['key']}: the ledger names {attempt['task_id']}, which is another's")
        lost = unknown.get(job["key"], [])
        doubts = [a for a in books.of[job["id"]] if a["task_id"] is None and a["money"] in {"at_risk", "reserved"}]
        if len(lost) > len(doubts):
            wrong.append(f"P2 {job['key']}: {len(lost)} tasks that nobody knows, {len(doubts)} attempts in doubt")
        consented = sum(a["consent"] is not None for a in books.of[job["id"]])
        if len(lost) > consented and job["state"] not in {"unconfirmed", "submitting"}:
            wrong.append(f"P2 {job['key']} is {job['state']}, and {lost} are not recorded")
    return wrong


def _files(books: Books, world: World, outputs: Path) -> list[str]:
    """P3: what has a final name is what was served, to the byte, with its sidecar."""
    wrong = []
    tasks = world.account.tasks
    recorded, digests = books.files, {m["file"]: (m["number"], m["sha256"], m["bytes"]) for m in books.media}
    seen: set[str] = set()
    for path in sorted(outputs.iterdir()) if outputs.exists() else []:
        name = path.name
        if name.endswith(".part") or name.startswith(".batchrunner-"):
            continue
        if name.endswith(".json"):
            try:
                facts = json.loads(path.read_bytes())
            except ValueError:
                wrong.append(f"P3 {name} is torn")
                continue
            if facts.get("task_id") not in tasks or not facts.get("sha256"):
                wrong.append(f"P3 {name} is incomplete")
            continue
        sidecar = path.with_name(name + ".json")
        if not sidecar.exists():
            wrong.append(f"P3 {name} has no sidecar")
            continue
        facts, data = json.loads(sidecar.read_bytes()), path.read_bytes()
        task = tasks.get(facts["task_id"])
        number = 0 if facts.get("role") == "last_frame" else facts.get("output", 1)
        if task is None or number not in task.served or data != world.content(task.id, number):
            wrong.append(f"P3 {name} is not what was served")
            continue
        digest = hashlib.sha256(data).hexdigest()
        if task.label != facts["job"] or facts["sha256"] != digest or facts["bytes"] != len(data):
            wrong.append(f"P3 {name}: its sidecar says something else")
        job = recorded.get(str(path))
        seen.add(str(path))
        told = digests.get(str(path))
        if job is not None and (
            told != (number, digest, len(data)) or job["task_id"] != task.id or job["key"] != task.label
        ):
            wrong.append(f"P3 {name} is recorded as something else")
    wrong += [f"P3 {job['key']} has succeeded, and {f} is not there" for f, job in recorded.items() if f not in seen]
    return [*wrong, *_all_of_them(books, world)]


def _all_of_them(books: Books, world: World) -> list[str]:
    """P3: a job that has succeeded has every file of its task; only a last frame may be missing."""
    wrong = []
    told: dict[tuple[int, int], dict[int, Row]] = {}
    for row in books.media:
        told.setdefault((row["job_id"], row["attempt"]), {})[row["number"]] = row
    for job in (j for j in books.jobs if j["state"] == "succeeded"):
        task, rows = world.account.tasks.get(job["task_id"]), told.get((job["id"], job["attempt"]), {})
        if task is not None and set(rows) != set(task.files):
            wrong.append(f"P3 {job['key']} has succeeded with {sorted(rows)} of the files {sorted(task.files)}")
        first = rows.get(1)
        if first is None or (first["file"], first["sha256"]) != (job["file"], job["sha256"]):
            wrong.append(f"P3 {job['key']} names another file than the first it was given")
    return wrong


def _money(books: Books, world: World, budget: int | None) -> list[str]:
    """P5, and that every attempt counts as what became of it."""
    wrong = []
    sums = {"spent": 0, "reserved": 0, "at_risk": 0, "none": 0}
    tasks = world.account.tasks
    for attempt in books.attempts:
        sums[attempt["money"]] += attempt["credits"]
        task = tasks.get(attempt["task_id"])
        if task is None:
            continue
        if attempt["money"] == "none" and not task.refunded:
            wrong.append(f"P5 {task.label}: {task.id} was charged, and counts as free")
        refunded = task.fate in {"fail", "moderate"} and attempt["outcome"] != "vanished"  # then nobody could tell
        if attempt["money"] == "spent" and (refunded or attempt["credits"] != task.credits):
            wrong.append(f"P5 {task.label}: {task.id} counts as {attempt['credits']} spent")
    for name in ("spent", "reserved", "at_risk"):
        told = sum(b[name] for b in books.batches)
        if told != sums[name]:
            wrong.append(f"P5 the batch says {name} {told}, its attempts {sums[name]}")
    committed = sums["spent"] + sums["reserved"] + sums["at_risk"]
    if world.account.net > committed:
        wrong.append(f"P5 {world.account.net} credits are charged, the ledger counts {committed}")
    if budget is not None and committed > budget:
        wrong.append(f"P5 the budget is {budget}, the ledger counts {committed}")
    return wrong


def _history(books: Books) -> list[str]:
    """Every transition is one of the table's, and the last one leads to where the job is."""
    wrong = []
    here: dict[int, str] = {}
    claims: dict[int, int] = {}
    for row in books.history:
        job, before, after = row["job_id"], row["from_state"], row["to_state"]
        if before != here.get(job):
            wrong.append(f"history of job {job}: from {before} while {here.get(job)}")
        elif before is not None and State(after) not in TABLE.get((State(before), EVENTS[row["event"]]), frozenset()):
            wrong.append(f"history of job {job}: {before}, {row['event']}, {after}")
        here[job] = after
        claims[job] = claims.get(job, 0) + (row["event"] == "claimed")
    for job in books.jobs:
        if here.get(job["id"]) != job["state"]:
            wrong.append(f"history of {job['key']} ends {here.get(job['id'])}, the job is {job['state']}")
        if not claims.get(job["id"], 0) == len(books.of[job["id"]]) == job["attempt"]:
            wrong.append(f"history of {job['key']}: {claims.get(job['id'], 0)} claims, attempt {job['attempt']}")
    return wrong


def judge_recorded(books: Books, jobs: int) -> list[str]:
    """The ledger has the manifest, or says how much of it is missing."""
    if not books.batches or len(books.jobs) + books.unrecorded == jobs:
        return []
    return [f"P4 {len(books.jobs)} of {jobs} jobs are there, {books.unrecorded} are said to be missing"]


def judge_whole(books: Books, stop: str | None) -> list[str]:
    """A run of a manifest that was not asked to leave has recorded all of it."""
    allowed = stop in {"ledger", *SIGNALS} or not books.unrecorded
    return [] if allowed else [f"P4 {books.unrecorded} jobs were left unrecorded ({stop})"]


# --- The end of a run ------------------------------------------------------------------------------------


def judge_end(
    books: Books, world: World, outputs: Path, code: int, stop: str | None, left: int, lost_after: float
) -> list[str]:
    """P4, and that everything that could come home did: for a run that died of nothing.

    Args:
        code, stop: exit code, and why it stopped early.
        left: downloads that it said it left to the next run.
        lost_after: the setting.
    """
    wrong = check_code(books.states(), code, stop, books.unrecorded)
    passing = [j for j in books.jobs if j["state"] in {"running", "downloading"}]
    if any(j["state"] == "submitting" for j in books.jobs):
        wrong.append("P4 a job was left submitting")
    if stop not in EARLY and len(passing) > left:
        wrong.append(f"P4 {len(passing)} jobs were left running or downloading, {left} of them knowingly ({stop})")
    if code == 4 and stop is None and not left and not books.unrecorded:
        wrong.append(f"P4 work was left for no reason: {books.states()}")
    for job in books.jobs:
        wrong += _outcome(job, world, lost_after)
    if not passing and outputs.exists():
        names = set(books.files)
        # Of several files some may have come home before the links of the others died for good: they stay.
        partly = {j["task_id"] for j in books.jobs if j["error_kind"] in {"expired", "lost"}}
        for path in sorted(outputs.iterdir()):
            file = path.with_name(path.name.removesuffix(".json"))
            if path.name.endswith(".part") or path.name.startswith(".batchrunner-"):
                wrong.append(f"left behind: {path.name}")
            elif str(file) not in names and _task_of(file) not in partly:
                wrong.append(f"nobody's: {path.name}")
    return wrong


def _task_of(file: Path) -> str | None:
    """The task whose output a file is, as its sidecar has it."""
    sidecar = file.with_name(file.name + ".json")
    if not file.exists() or not sidecar.exists():
        return None
    return str(json.loads(sidecar.read_bytes())["task_id"])


def _outcome(job: Row, world: World, lost_after: float) -> list[str]:
    """A job ends as its task did."""
    key, task = job["key"], world.account.tasks.get(job["task_id"])
    if job["state"] == "succeeded":
        good = task is not None and task.label == key and task.fate in {"good", "vanish"}
        return [] if good else [f"{key} has succeeded with {task}"]
    if job["state"] != "failed":
        return []
    match job["error_kind"]:
        case "rejected":
            good = any(p.label == key and p.answer == "reject" and p.delivered for p in world.account.posts)
        case "provider" | "moderated":
            fate = "moderate" if job["error_kind"] == "moderated" else "fail"
            good = task is not None and task.fate == fate and task.failure_read and task.refunded
        case "lost":
            good = (
                task is not None
                and task.missing_since is not None
                and task.last_missing - task.missing_since >= lost_after - 1.0
            )
        case "expired":
            good = task is not None and task.bad > 1
        case _:
            good = False
    return [] if good else [f"{key} failed({job['error_kind']}), its task: {task}"]


# --- When ------------------------------------------------------------------------------------------------


def judge_times(world: World, life: int, per_minute: float) -> list[str]:
    """The rate (GCRA with a burst of one second's worth or one) and the holds of 429, in one run."""
    wrong = []
    interval = 60.0 / per_minute
    tolerance = (max(1.0, per_minute / 60.0) - 1.0) * interval + 1e-3
    due = 0.0
    for at in sorted(world.sent.get(life, [])):
        if at < due - tolerance:
            wrong.append(f"the rate: a POST at {at:.4f}, which was due at {due - tolerance:.4f}")
        due = max(due, at) + interval
    calls = [(at, what) for number, at, what in world.calls if number == life]
    for hold in (h for h in world.holds if h.life == life):
        wrong += [
            f"{what} began at {at:.4f}, held from {hold.start:.4f} until {hold.end:.4f}"
            for at, what in calls
            if hold.start + 0.01 < at < hold.end - 0.01
        ]
    return wrong
