"""The simulator's account against the ledger and the disk, after the last run: exact, to the credit and the byte.

Everything is asked of the files and of the other side, nothing of the engine. An empty list is a kept promise.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchrunner.simulator.tiny import mp4

SECONDS = 5
"""Length of every clip that the manifest asks for."""

SHOWN = 5
"""Most findings of one kind that are told."""


@dataclass(slots=True)
class Verdict:
    """What was counted, and what is wrong."""

    counts: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _told: Counter[str] = field(default_factory=Counter)

    def say(self, kind: str, what: str) -> None:
        self._told[kind] += 1
        if self._told[kind] <= SHOWN:
            self.wrong.append(f"{kind}: {what}")


@dataclass(frozen=True, slots=True)
class _Attempt:
    key: str
    number: int
    task_id: str | None
    money: str
    credits: int
    consent: str | None


def check(db: Path, outputs: Path, account: dict[str, Any]) -> Verdict:
    """Hold all three against each other. Nothing may be running any more."""
    verdict = Verdict()
    tasks: dict[str, dict[str, Any]] = {t["id"]: t for t in account["tasks"]}
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if sound != "ok":
            verdict.say("ledger", sound)
        attempts = [
            _Attempt(*row)
            for row in connection.execute(
                "SELECT j.key, a.number, a.task_id, a.money, a.credits, a.consent "
                "FROM attempt a JOIN job j ON j.id = a.job_id"
            )
        ]
        jobs = connection.execute("SELECT key, state, task_id, file, sha256, bytes FROM job").fetchall()
        batch = connection.execute("SELECT sum(spent), sum(reserved), sum(at_risk) FROM batch").fetchone()
    states = Counter(state for _, state, *_ in jobs)
    verdict.counts = {
        "jobs": len(jobs),
        "states": dict(states),
        "posts": account["posts"],
        "accepted": len(tasks),
        "refunded": sum(t["refunded"] for t in tasks.values()),
        "polls": account["polls"],
        "downloads": account["downloads"],
        "throttled": account["throttled"],
        "spent": batch[0],
        "at_risk": batch[2],
    }
    for state in ("pending", "submitting", "running", "downloading"):
        if states[state]:
            verdict.say("left over", f"{states[state]} jobs are {state}")
    _accepted(verdict, tasks, attempts)
    _paid_once(verdict, tasks, attempts)
    _money(verdict, tasks, attempts, batch, account)
    _files(verdict, outputs, jobs)
    return verdict


def _accepted(verdict: Verdict, tasks: dict[str, dict[str, Any]], attempts: list[_Attempt]) -> None:
    """What the provider accepted is what the ledger knows, but for the submissions that it lists as doubtful."""
    known = {a.task_id: a for a in attempts if a.task_id is not None}
    for task_id, attempt in known.items():
        task = tasks.get(task_id)
        if task is None or task["label"] != attempt.key:
            verdict.say("accepted", f"{attempt.key} names {task_id}, which is {task and task['label']}'s")
    doubts = Counter(a.key for a in attempts if a.money == "at_risk" and a.task_id is None)
    unknown = Counter(t["label"] for t in tasks.values() if t["id"] not in known)
    for key, count in unknown.items():
        if count > doubts[key]:
            verdict.say("accepted", f"{count} tasks of {key} are not in the ledger, which doubts {doubts[key]}")
    verdict.counts |= {"accepted_unread": unknown.total(), "doubtful": doubts.total()}


def _paid_once(verdict: Verdict, tasks: dict[str, dict[str, Any]], attempts: list[_Attempt]) -> None:
    """A second task of a job only where the first was refunded, or a person asked for it."""
    consents = Counter(a.key for a in attempts if a.consent is not None)
    kept = Counter(t["label"] for t in tasks.values() if not t["refunded"])
    for key, count in kept.items():
        if count > 1 + consents[key]:
            verdict.say("paid twice", f"{key} has {count} tasks that were not refunded, and {consents[key]} consents")
    verdict.counts |= {"consents": consents.total(), "paid_again_on_request": sum(n - 1 for n in kept.values())}


def _money(
    verdict: Verdict,
    tasks: dict[str, dict[str, Any]],
    attempts: list[_Attempt],
    batch: tuple[int, int, int],
    account: dict[str, Any],
) -> None:
    """To the credit: what was charged and kept is what the ledger calls spent, and what it has in doubt."""
    sums: Counter[str] = Counter()
    for attempt in attempts:
        sums[attempt.money] += attempt.credits
        task = tasks.get(attempt.task_id or "")
        if task is None:
            continue
        proper = "none" if task["refunded"] else "spent"
        if (attempt.money, attempt.credits) != (proper, task["credits"]):
            verdict.say("money", f"{task['id']} is {proper} {task['credits']}, not {attempt.money} {attempt.credits}")
    if tuple(batch) != (sums["spent"], 0, sums["at_risk"]) or sums["reserved"]:
        verdict.say("money", f"the batch says {batch}, its attempts {dict(sums)}")
    known = {a.task_id for a in attempts}
    unread = sum(t["credits"] for t in tasks.values() if t["id"] not in known and not t["refunded"])
    net = account["charged"] - account["refunded"]
    if net != batch[0] + unread:
        verdict.say("money", f"{net} credits were kept, {batch[0]} are spent, {unread} were never told")
    if unread > batch[2]:
        verdict.say("money", f"{unread} credits were never told, only {batch[2]} are at risk")


def _files(verdict: Verdict, outputs: Path, jobs: list[tuple[str, str, str, str, str, int]]) -> None:
    """Every succeeded job has its file, to the byte, with a sidecar; and there is no other file."""
    expected = set()
    size = 0
    for key, state, task_id, file, sha256, length in jobs:
        if state != "succeeded":
            continue
        expected |= {file, f"{file}.json"}
        data = Path(file).read_bytes() if Path(file).is_file() else b""
        size += len(data)
        if data != mp4(task_id, SECONDS):
            verdict.say("file", f"{key}: {file} is not what was served for {task_id}")
        if (hashlib.sha256(data).hexdigest(), len(data)) != (sha256, length):
            verdict.say("file", f"{key}: the ledger has another hash or size")
    there = defaultdict(list)
    for path in outputs.rglob("*"):
        if path.is_file():
            there[str(path) in expected].append(str(path))
    if len(there[True]) != len(expected):
        verdict.say("file", f"{len(expected) - len(there[True])} files or sidecars are missing")
    for path_name in there[False][:SHOWN]:
        verdict.say("file", f"nobody's: {path_name}")
    verdict.counts |= {"files": len(expected) // 2, "bytes": size}
