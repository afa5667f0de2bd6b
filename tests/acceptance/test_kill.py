"""`kill -9` on the real command line, again and again, against a server that keeps its own account."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from batchrunner.simulator import SimulatorSettings
from batchrunner.simulator.store import Store
from batchrunner.simulator.world import World
from tests.crash.checks import Books, check_end, check_now
from tests.crash.command_line import PATIENCE, CommandLine
from tests.double import Account, Double, Plan, Rule

JOBS = 70
FAULTS = (
    Rule("post", "throttle", first=5, last=5),
    Rule("post", "reset_after", first=11, last=11),
    Rule("post", "error500", first=23, last=23),
    Rule("post", "slow", first=30, last=40, delay=0.2),
    Rule("task", "fail", first=8, last=8),
    Rule("task", "moderate", first=9, last=9),
    Rule("poll", "reset", task=12),
    Rule("media", "gone", task=15),
    Rule("media", "truncated", task=16),
)


def scenario(tmp_path: Path) -> str:
    """A name that no other test has."""
    return re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")


def look(line: CommandLine, account: Account, code: int | None = None, stop: str | None = None) -> Books:
    """Hold the ledger, the files and the account against each other; with a code: at the end of a run."""
    books = Books(line.db, line.folder / "copy")
    assert check_now(books, account, line.outputs, None) == []
    if code is not None:
        assert check_end(books, account, line.outputs, code, stop) == []
    return books


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_night_that_is_killed_again_and_again(double: Double, tmp_path: Path, seed: int) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan(FAULTS, polls=1)))
    line.write(JOBS, in_flight=40)
    dice = random.Random(seed)
    kills: list[str] = []
    while len(kills) < 10:
        run = line.start("run", "night.yaml")
        for _ in range(dice.randrange(1, 60)):
            if run.next() is None:
                break
        run.kill()
        kills.append(f"{len(run.events)} {run.events[-1]['event'] if run.events else '-'}")
        print(f"seed {seed}: killed after {kills[-1]}")
        if line.db.exists():
            look(line, double.account(name))

    code = line.call("run", "night.yaml")

    account = double.account(name)
    books = look(line, account, code)
    assert code in {1, 3}  # one task was moderated; the dead may have left doubts
    known = {a["task_id"] for a in books.attempts}
    held = {j["key"] for j in books.jobs if j["state"] == "unconfirmed"}
    assert all(t.id in known or t.label in held for t in account.tasks)
    assert books.states().get("succeeded", 0) >= JOBS - len(held) - 2
    assert line.call("run", "night.yaml") == code
    assert len(double.account(name).calls) == len(account.calls), "nothing to do is nothing sent"


@pytest.mark.slow
def test_a_simulated_night_that_is_killed(tmp_path: Path) -> None:
    """The simulator dies with the run, and comes back with the account that it had."""
    line = CommandLine.at(tmp_path)
    line.write(6)
    db = tmp_path / "batchrunner.sim.db"
    for event, count in (("accepted", 2), ("accepted", 2), ("completed", 1), ("stored", 1)):
        run = line.start("run", "night.yaml", "--simulate")
        while (told := run.next()) is not None and count:
            count -= told["event"] == event
        run.kill()

    code = line.call("run", "night.yaml", "--simulate")

    books = Books(db, tmp_path / "copy")
    account = simulated(db.with_name(db.name + ".account"))
    assert code in {0, 3}
    unknown = [t for t in account if t["id"] not in {a["task_id"] for a in books.attempts}]
    assert {t["label"] for t in unknown} <= {j["key"] for j in books.jobs if j["state"] == "unconfirmed"}
    assert len({t["label"] for t in account}) == len(account), "nothing was accepted twice"
    states = books.states()
    assert set(states) <= {"succeeded", "unconfirmed"}
    charged = sum(t["credits"] for t in account)
    assert charged <= sum(b["spent"] + b["at_risk"] for b in books.batches)
    assert charged >= sum(b["spent"] for b in books.batches)
    for job in books.jobs:
        if job["state"] == "succeeded":
            assert Path(job["file"]).stat().st_size == job["bytes"]


def simulated(state: Path) -> list[dict[str, Any]]:
    """The tasks of a simulator that is not running."""
    settings = SimulatorSettings(state=state)
    store = Store(state)
    try:
        tasks: list[dict[str, Any]] = World(settings, store, lambda: 0.0).account()["tasks"]
        return tasks
    finally:
        store.close()


def test_a_second_runner_leaves_and_readers_work_beside(double: Double, tmp_path: Path) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold")], polls=1)))
    line.write(2)
    first = line.start("run", "night.yaml")
    first.until("accepted")  # the other job's POST is held back: the first runner can't end now

    assert line.call("run", "night.yaml") == 5
    assert line.call("resume") == 5
    status = line.ask("status", "night")
    assert status["jobs"] == 2
    assert sum(status["states"][s] for s in ("submitting", "running", "downloading", "succeeded")) == 2
    assert len(line.ask("jobs", "night")) == 2
    assert line.ask("plan", "night.yaml")["summary"]["new"] == 0

    patient = line.start("run", "night.yaml", "--wait-lock", "60s")
    double.release(name)
    assert first.end() == 0
    assert patient.end() == 0
    assert len(double.account(name).posts) == 2


def test_of_many_runners_at_once_one_runs(double: Double, tmp_path: Path) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=2)], polls=1)))
    line.write(2)
    runs = [line.start("run", "night.yaml") for _ in range(4)]
    end = time.monotonic() + PATIENCE
    while sum(run.process.poll() is not None for run in runs) < 3 and time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            next(run for run in runs if run.process.poll() is None).process.wait(0.05)
    double.release(name)

    assert sorted(run.end() for run in runs) == [0, 5, 5, 5]
    assert len(double.account(name).posts) == 2


def test_the_lock_of_a_dead_runner_is_gone(double: Double, tmp_path: Path) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=3)], polls=1)))
    line.write(3)
    run = line.start("run", "night.yaml")
    run.until("claimed", 3)
    run.kill()
    double.release(name)

    assert line.call("resume", "night") == 3
    with closing(sqlite3.connect(line.db)) as connection:
        states = connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
    assert states == [("unconfirmed", 3)]
