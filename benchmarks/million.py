"""A ledger of one million jobs: every command on it."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import ledgers, manifests
from .harness import Context, Double, Result, Run, measure, median

BATCHES = 10


def run(context: Context) -> Result:
    each = context.pick(100_000, 2_000)
    folder = context.room("million")
    to_do = manifests.write(folder / "night9.yaml", each, in_flight=100, batch="night9")
    db = folder / "ledger.db"
    with Double.started() as double:
        began = time.monotonic()
        ledgers.recorded(context, double, to_do, db)
        jobs = grow(db, folder)
        made = time.monotonic() - began
        result = Result("million", f"{jobs:,} jobs in the ledger ({db.stat().st_size / 1e9:.1f} GB), {BATCHES} batches")
        result.table = [("command", "s", "CPU s", "peak MB", "target")]
        asked = Commands(context, double, result, folder, db)
        asked.ask("status", "status", most=1)
        asked.ask("status --json", "status", "--json", most=1)
        asked.ask("status of one batch", "status", "night8", most=1)
        asked.ask("jobs, of one batch by state", "jobs", "night8", "--state", "failed")
        asked.ask("jobs --state unconfirmed, all batches", "jobs", "--state", "unconfirmed")
        asked.ask("jobs --json, all of them", "jobs", "--json")
        asked.ask("show one job", "show", "night8/shot-0000005-1")
        asked.ask("plan, 10 new shots", "plan", asked.manifest("small", 10))
        asked.ask("plan, a batch that is to do", "plan", to_do)
        asked.ask("doctor", "doctor", codes=(0, 1, 4, 6))
        asked.ask("retry, nothing to retry", "retry", "night9")
        asked.first_post("run, 10 new shots", lambda n: ("run", asked.manifest(f"small{n}", 10)))
        asked.first_post(f"run, {each:,} new shots", lambda n: ("run", asked.manifest(f"fresh{n}", each)))
        asked.first_post(f"run, a batch of {each:,} that is to do", lambda _: ("run", to_do))
        asked.first_post(f"resume, a batch of {each:,} that is to do", lambda _: ("resume", "night9"))
    result.at_most("peak memory of the largest", max(asked.peaks), 600, " MB")
    result.notes.append(
        f"Made in {made:.0f} s: one batch recorded by batchrunner and nine copies of it: eight finished, one "
        "that stopped half-way (0.2 % each failed, running and unconfirmed), one to do. Every command is a process of "
        "its own. For `run` and `resume` the seconds are those to the first POST, CPU and memory of the whole process."
    )
    return result


class Commands:
    """Runs commands on the ledger, and notes what they took."""

    def __init__(self, context: Context, double: Double, result: Result, folder: Path, db: Path) -> None:
        self._context = context
        self._double = double
        self._result = result
        self._folder = folder
        self._db = db
        self.peaks: list[float] = []

    def manifest(self, batch: str, shots: int) -> Path:
        """A manifest of a batch that the ledger does not know yet."""
        return manifests.write(self._folder / f"{batch}.yaml", shots, in_flight=100, batch=batch)

    def ask(self, what: str, *arguments: object, most: float | None = None, codes: Sequence[int] = (0,)) -> None:
        """A command from its start to its end."""
        runs = [self._measure(arguments, codes) for _ in range(self._context.rounds)]
        self._note(what, median(runs, "wall"), runs, most)

    def first_post(self, what: str, arguments: Callable[[int], Sequence[object]]) -> None:
        """From the start to the first POST."""
        rounds = range(self._context.rounds)
        runs = [self._measure((*arguments(number), "--quiet", "--limit", 1), (0, 3, 4)) for number in rounds]
        self._note(what, statistics.median(r.told["first_post"] - r.began for r in runs), runs, 15)

    def _measure(self, arguments: Sequence[object], codes: Sequence[int]) -> Run:
        command = self._context.batchrunner(*arguments, "--db", self._db)
        return measure(command, self._folder, self._context.env(self._double), codes=codes, double=self._double)

    def _note(self, what: str, seconds: float, runs: list[Run], most: float | None) -> None:
        rss, cpu = median(runs, "rss"), median(runs, "cpu")
        goal = f"<= {most:g} s" if most else ""
        self._result.table.append((what, f"{seconds:.2f}", f"{cpu:.2f}", f"{rss:.0f}", goal))
        self._result.data[f"{what}: details"] = {"seconds": seconds, "cpu": cpu, "rss": rss}
        self.peaks.append(rss)
        if most:
            self._result.at_most(what, seconds, most, " s")


def grow(db: Path, folder: Path) -> int:
    """Nine more batches, and what nights did to nine of the ten. Returns how many jobs there are."""
    with ledgers.opened(db) as connection:
        night = ledgers.Night(connection)
        columns = _columns(connection, "job")
        shared = ", ".join(c for c in columns if c != "batch_id")
        for number in range(BATCHES - 1):
            batch = _copy_batch(connection, f"night{number}", folder / f"outputs{number}")
            connection.execute(
                f"INSERT INTO job (batch_id, {shared}) SELECT {batch}, {shared} FROM job "
                "WHERE batch_id = 1 AND state = 'pending' ORDER BY id"
            )
            mine = f"batch_id = {batch}"
            connection.execute(
                "INSERT INTO history (job_id, at, attempt, from_state, to_state, event, reason) "
                f"SELECT id, {ledgers.LONG_AGO}, 0, NULL, 'pending', 'recorded', 'revision 1' FROM job WHERE {mine}"
            )
            if number < BATCHES - 2:
                night.finished(mine)
            else:
                _stopped(connection, night, mine)
        (jobs,) = connection.execute("SELECT count(*) FROM job").fetchone()
    return int(jobs)


def _stopped(connection: sqlite3.Connection, night: ledgers.Night, mine: str) -> None:
    """A batch that stopped half-way."""
    (first, last) = connection.execute(f"SELECT min(id), max(id) FROM job WHERE {mine}").fetchone()
    middle = (first + last) // 2
    part = (last - first) // 500
    night.finished(f"{mine} AND id < {middle - 4 * part}")
    night.running(f"{mine} AND id < {middle - 2 * part}", first_task=99 * ledgers.FAR)
    night.failed(f"{mine} AND id >= {middle - 4 * part} AND id < {middle - 3 * part}")
    night.unconfirmed(f"{mine} AND id >= {middle} AND id < {middle + part}")


def _copy_batch(connection: sqlite3.Connection, name: str, outputs: Path) -> int:
    shared = [
        c for c in _columns(connection, "batch") if c not in {"name", "output_dir", "reserved", "spent", "at_risk"}
    ]
    cursor = connection.execute(
        f"INSERT INTO batch (name, output_dir, {', '.join(shared)}) SELECT ?, ?, {', '.join(shared)} FROM batch "
        "WHERE id = 1",
        (name, str(outputs)),
    )
    return int(cursor.lastrowid or 0)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Every column but the row id."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
