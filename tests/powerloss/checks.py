"""What must hold after a power cut: the image is opened by the real recovery, and held against what had been told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from batchrunner.core.job import State
from batchrunner.engine.files import Occupied, find_placed, part_path, placing, sidecar_path
from batchrunner.engine.ports import Books
from batchrunner.engine.recover import recover
from batchrunner.engine.spool import Spool
from batchrunner.ledger import queries
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.errors import LedgerError
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.writer import InlineDatabase
from batchrunner.providers.disk import at_once
from tests.crash.checks import check_history
from tests.double import Account
from tests.powerloss.disk import Image
from tests.powerloss.record import Said, Sent, Step
from tests.support import FakeClock

DB = "batchrunner.db"


@dataclass(slots=True)
class Told:
    """What the rest of the world had heard of a run before the cut: it must not be forgotten.

    Attributes:
        events: of each job, in order, as they were printed.
        posts: POSTs of which the first byte was on the wire, by job.
        polled, fetched: task ids that were asked about, and whose outputs were asked for.
        spooled: (job, task id) that were said to stand in the spool.
        jobs: how many there are, once the run has said that it began.
        states: of the jobs, as the last run's summary has them; empty while a run is alive.
    """

    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    polled: set[str] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)
    spooled: set[tuple[str, str]] = field(default_factory=set)
    jobs: int = 0
    states: dict[str, int] = field(default_factory=dict)
    count: int = 0
    _line: bytes = b""

    def hear(self, step: Step) -> bool:
        """Whether the step told anything."""
        before = self.count
        match step:
            case Said(text=text):
                *lines, self._line = (self._line + text).split(b"\n")
                for line in lines:
                    self._event(json.loads(line))
            case Sent(data=data):
                self._sent(data)
        return self.count > before

    def _event(self, event: dict[str, Any]) -> None:
        self.count += 1
        if "job" in event and "state" in event:
            self.events.setdefault(event["job"], []).append(event)
        if event["event"] == "unrecorded" and event["spooled"]:
            self.spooled.add((event["job"], event["task_id"]))
        if event["event"] == "run_started":
            self.jobs = sum(event["states"].values())
            self.states = {}
        if event["event"] == "summary":
            self.states = event["states"]

    def _sent(self, data: bytes) -> None:
        if data.startswith(b"POST "):
            label = re.search(rb"X-Batchrunner-Job: (\S+)\r\n", data)
            assert label is not None, "a POST that names no job"
            self.posts[label[1].decode()] += 1
            self.count += 1
        elif match := re.match(rb"GET /api/v1/tasks/(\S+) ", data):
            self.polled.add(match[1].decode())
            self.count += 1
        elif match := re.match(rb"GET /media/[^/]+/([^/\s~]+)(~\d+)?\.\w+\?", data):
            self.fetched.add(match[1].decode())
            self.count += 1


def write(image: Image, folder: Path) -> None:
    """Put an image where nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in image.folders:
        (folder / name).mkdir()
    for name, data in image.files.items():
        (folder / name).write_bytes(data)


def check(folder: Path, told: Told, account: Account, home: str, out: str) -> list[str]:
    """Open an image as the next run would, and say what is wrong with it.

    Args:
        folder: where the image is.
        told: what had been told before the cut.
        account: the provider's own, at the end of the night.
        home: the folder that was recorded.
        out: the output folder in it.
    """
    db = folder / DB
    wrong = check_files(folder / out, account)
    try:
        connection = open_writer(db)
    except LedgerError as error:
        return [*wrong, f"the ledger doesn't open: {error}"]
    try:
        asyncio.run(_recover(db, connection))
        connection.row_factory = sqlite3.Row
        seen = _Seen(connection)
        wrong += [] if seen.sound == "ok" else [f"the ledger is damaged: {seen.sound}"]
        wrong += check_told(seen, told) + check_books(seen) + check_outputs(seen, folder, home, out, account)
    except (LedgerError, sqlite3.Error) as error:
        wrong.append(f"recovery fails: {error}")
    finally:
        connection.close()
    return wrong


async def _recover(db: Path, connection: sqlite3.Connection) -> None:
    """What `Night.run` does first."""
    clock = FakeClock()
    ledger = Ledger(InlineDatabase(connection), clock.wall)
    spool = Spool(db)
    try:
        every = await ledger.batches()
        await recover(Books(ledger=ledger, spool=spool, clock=clock), [b.id for b in every])
        for batch in every:
            await ledger.query(partial(queries.status, batch=batch.name, now=clock.wall()))
        for state in State:
            await ledger.in_state([b.id for b in every], state)
    finally:
        spool.close()


class _Seen:
    """What the ledger says after the recovery. Looks like `tests.crash.checks.Books`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        self.jobs = _rows(connection, "SELECT * FROM job ORDER BY id")
        self.attempts = _rows(connection, "SELECT * FROM attempt ORDER BY job_id, number")
        self.history = _rows(connection, "SELECT * FROM history ORDER BY id")
        self.batches = _rows(connection, "SELECT * FROM batch ORDER BY id")
        self.media = _rows(connection, "SELECT * FROM media ORDER BY job_id, attempt, number")

    def of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [a for a in self.attempts if a["job_id"] == job["id"]]

    def events(self, key: str) -> list[str]:
        return [h["event"] for j in self.jobs if j["key"] == key for h in self.history if h["job_id"] == j["id"]]

    def ids(self, key: str) -> set[str]:
        return {a["task_id"] for j in self.jobs if j["key"] == key for a in self.of(j) if a["task_id"]}


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql)]


def _in_order(wanted: Sequence[str], there: Sequence[str]) -> bool:
    rest = iter(there)
    return all(name in rest for name in wanted)


def check_told(seen: _Seen, told: Told) -> list[str]:
    """No acknowledged transition is lost."""
    wrong = []
    if len(seen.jobs) < told.jobs:
        wrong.append(f"lost: {told.jobs} jobs had been recorded, {len(seen.jobs)} are there")
    for key, events in told.events.items():
        names = [e["event"] for e in events if e["event"] != "unrecorded"]
        if not _in_order(names, seen.events(key)):
            wrong.append(f"lost: {key} had told {names}, its history is {seen.events(key)}")
        ids = {e["task_id"] for e in events if e["event"] == "accepted"}
        if not ids <= seen.ids(key):
            wrong.append(f"lost: the ids {ids - seen.ids(key)} of {key}")
    for key, count in told.posts.items():
        intents = seen.events(key).count("claimed")
        if intents < count:
            wrong.append(f"P1 {key}: {count} POSTs were on the wire, {intents} intents are there")
    wrong += [f"lost: the id {task} of {key} stood in the spool" for key, task in told.spooled - _pairs(seen)]
    known = {task for _, task in _pairs(seen)}
    wrong += [f"P2 lost: {task} had been polled" for task in told.polled - known]
    completed = {a["task_id"] for j in seen.jobs for a in seen.of(j) if "completed" in seen.events(j["key"])}
    wrong += [f"lost: {task} was completed, its output had been asked for" for task in told.fetched - completed]
    if told.states:
        states = Counter(j["state"] for j in seen.jobs)
        if any(states[s] != n for s, n in told.states.items()):
            wrong.append(f"lost: the summary said {told.states}, the ledger says {dict(states)}")
    return wrong


def _pairs(seen: _Seen) -> set[tuple[str, str]]:
    return {(j["key"], task) for j in seen.jobs for task in seen.ids(j["key"])}


def check_books(seen: _Seen) -> list[str]:
    """The ledger agrees with itself, and nothing is on the wire after the recovery."""
    wrong = [f"{j['key']} is submitting after the recovery" for j in seen.jobs if j["state"] == "submitting"]
    for batch in seen.batches:
        sums: Counter[str] = Counter()
        for attempt in seen.attempts:
            sums[attempt["money"]] += attempt["credits"]
        if any(sums[kind] != batch[kind] for kind in ("reserved", "spent", "at_risk")):
            wrong.append(f"P5 the sums of {batch['name']} are wrong")
    return wrong + check_history(seen)  # type: ignore[arg-type]  # the same rows by another class


# --- Files -----------------------------------------------------------------------------------------------


def _names(key: str, account: Account) -> dict[str, int]:
    """The files that a job's task gives: name to the number by which the account has it."""
    several = account.outputs > 1
    names = {f"{key}-{n}.mp4" if several else f"{key}.mp4": n for n in range(1, account.outputs + 1)}
    return names | ({f"{key}-last-frame.png": 0} if account.last_frame else {})


def check_files(out: Path, account: Account) -> list[str]:
    """P3: every file under a final name is complete, and what was served; so is every sidecar."""
    wrong = []
    served: dict[str, dict[str, bytes]] = {}
    for task in account.tasks:
        for name, number in _names(task.label, account).items():
            served.setdefault(name, {})[task.id] = account.clip(task.id, number)
    for path in sorted(out.glob("*")):
        if path.suffix == ".part" or path.name.startswith(".batchrunner-"):
            continue
        if path.suffix == ".json":
            wrong += _check_sidecar(path, served.get(path.stem, {}))
        elif path.name not in served:
            wrong.append(f"P3 {path.name} is nobody's")
        elif (data := path.read_bytes()) not in served[path.name].values():
            wrong.append(f"P3 {path.name} has {len(data)} bytes, and not those that were served")
    return wrong


def _check_sidecar(path: Path, served: dict[str, bytes]) -> list[str]:
    try:
        facts = json.loads(path.read_bytes())
        good = facts["sha256"] == hashlib.sha256(served[facts["task_id"]]).hexdigest()
    except (ValueError, KeyError, TypeError):
        good = False
    return [] if good else [f"P3 {path.name} is not complete"]


def check_outputs(seen: _Seen, folder: Path, home: str, out: str, account: Account) -> list[str]:
    """What has succeeded is there, with its sidecars; what is to be fetched can be placed under its own names."""
    wrong = []
    for job in seen.jobs:
        key = job["key"]
        if job["state"] == "succeeded":
            rows = [m for m in seen.media if (m["job_id"], m["attempt"]) == (job["id"], job["attempt"])]
            if sorted(Path(m["file"]).name for m in rows) != sorted(_names(key, account)):
                wrong.append(f"lost: {key} has succeeded with the files {[m['file'] for m in rows]}")
            wrong += [text for m in rows for text in _check_kept(key, folder / Path(m["file"]).relative_to(home), m)]
        if job["state"] == "downloading":
            for name, number in _names(key, account).items():
                data = account.clip(job["task_id"], number)
                wrong += _fetch_again(folder / out, name, data, job["task_id"], sorted(seen.ids(key)))
    return wrong


def _check_kept(key: str, file: Path, told: dict[str, Any]) -> list[str]:
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != told["sha256"]:
        return [f"lost: {key} has succeeded, and {file.name} is not there or not complete"]
    return [] if sidecar_path(file).is_file() else [f"lost: {key} has succeeded, and its sidecar is not there"]


def _fetch_again(out: Path, name: str, data: bytes, task: str, ids: Sequence[str]) -> list[str]:
    """What the next run does for a file of a job that is `downloading`."""
    target, digest = out / name, hashlib.sha256(data).hexdigest()
    placed = find_placed(target, out, task)
    if placed is None:
        out.mkdir(parents=True, exist_ok=True)
        part_path(target).write_bytes(data)
        try:
            sidecar = {"task_id": task, "sha256": digest, "bytes": len(data)}
            placed = at_once(placing(part_path(target), target, out, sidecar, replaces=ids))
        except Occupied as occupied:
            return [f"{name} can't be placed again: {occupied}"]
    good = placed.sha256 == digest and target.read_bytes() == data and sidecar_path(target).is_file()
    return [] if good else [f"{name} was placed wrongly"]
