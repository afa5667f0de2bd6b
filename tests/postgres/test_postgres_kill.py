"""`kill -9` on the real command line with its ledger in PostgreSQL, held against the account of the service."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner.ledger.address import Server
from batchrunner.ledger.copying import copy
from tests.acceptance.test_kill import FAULTS, scenario
from tests.crash.checks import Books, check_end, check_now
from tests.crash.command_line import PATIENCE, CommandLine
from tests.double import Account, Double, Plan
from tests.postgres.server import Postgres

JOBS = 40

POINTS = (
    ("start.recorded", 1),
    ("submit.intent", 2),
    ("commit.ready", 6),
    ("submit.answered", 2),
    ("commit.sent", 6),
    ("submit.recorded", 2),
    ("poll.answered", 2),
    ("download.placed", 2),
    ("download.recorded", 2),
)


def _line(tmp_path: Path, server: Server, environment: dict[str, str]) -> CommandLine:
    more = {"BATCHRUNNER_DB": f"{server.url}?schema={server.schema}", "XDG_STATE_HOME": str(tmp_path / "state")}
    return CommandLine(tmp_path, {**environment, **more})


def look(server: Server, line: CommandLine, account: Account, code: int | None = None) -> Books:
    """As `tests.acceptance.test_kill.look`, on a copy in a file."""
    file = line.folder / "looked-at.db"
    for old in line.folder.glob("looked-at.db*"):
        old.unlink()
    copy(server, file, lambda _spool: False)
    books = Books(file, line.folder / "copy")
    assert check_now(books, account, line.outputs, None) == []
    if code is not None:
        assert check_end(books, account, line.outputs, code, None) == []
    return books


@pytest.mark.slow
def test_a_night_in_postgresql_that_is_killed_again_and_again(
    double: Double, postgres: Postgres, tmp_path: Path
) -> None:
    name, server = scenario(tmp_path), postgres.ledger()
    line = _line(tmp_path, server, dict(double.open(name, Plan(FAULTS, polls=1)).environment))
    line.write(JOBS, in_flight=3)
    for point, number in POINTS:
        with (tmp_path / "stderr").open("w") as errors:
            run = subprocess.run(
                [sys.executable, "-m", "tests.postgres.dies", point, str(number), "run", "night.yaml", "--quiet"],
                cwd=tmp_path,
                env={**line._environment(), "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=PATIENCE,
                check=False,
            )
        assert run.returncode == -signal.SIGKILL, (point, run.returncode, (tmp_path / "stderr").read_text())
        look(server, line, double.account(name))
    dice = random.Random(1)
    for _ in range(2):
        running = line.start("run", "night.yaml")
        for _ in range(dice.randrange(1, 20)):
            if running.next() is None:
                break
        running.kill()
        look(server, line, double.account(name))

    code = line.call("resume", "night")

    account = double.account(name)
    books = look(server, line, account, code)
    assert code in {1, 3}  # one task was moderated; the dead may have left doubts
    known = {a["task_id"] for a in books.attempts}
    held = {j["key"] for j in books.jobs if j["state"] == "unconfirmed"}
    assert all(t.id in known or t.label in held for t in account.tasks)
    assert books.states().get("succeeded", 0) >= JOBS - len(held) - 2
    assert line.call("run", "night.yaml") == code
    assert len(double.account(name).calls) == len(account.calls), "nothing to do is nothing sent"
