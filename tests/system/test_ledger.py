"""Ledgers that are not ours, newer, or damaged; and two runners at once."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.ledger.connection import LATEST
from batchrunner.ledger.errors import LedgerBusy
from batchrunner.ledger.files import RunLock
from tests.cli_support import call as cli
from tests.cli_support import make_ledger
from tests.crash.command_line import CommandLine
from tests.double import Double, Plan, Rule
from tests.support import path_to, spec


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ledger."""
    folder = tmp_path_factory.mktemp("sample")
    db = folder / "night.db"
    jobs: list[tuple[object, tuple[e.Event, ...]]] = []
    for number in range(6):
        for state in State:
            if state is not State.PENDING:
                name = f"{state.value}-{number}"
                jobs.append((spec(name), path_to(state, f"task_{name}")))
    make_ledger(db, jobs, output_dir=str(folder / "out"))  # type: ignore[arg-type]
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("INSERT INTO account VALUES ('reapi', 'a server on this machine', 0)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return db


# --- With the real command line ------------------------------------------------------------------------------


def scenario(tmp_path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")


def call(line: CommandLine, *words: str) -> tuple[int, str]:
    """Exit code and stderr of a call."""
    code = line.call(*words)
    return code, (line.folder / "stderr").read_text()


def of_another_program(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")


def of_a_newer_version(db: Path) -> None:
    make_ledger(db, [(spec(), ())])
    with closing(sqlite3.connect(db)) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST + 1}")


def no_database(db: Path) -> None:
    db.write_bytes(b"This is my diary, and no ledger. " * 100)


@pytest.mark.parametrize(
    ("make", "words"),
    [(of_another_program, "another program"), (of_a_newer_version, "newer"), (no_database, "not a usable ledger")],
)
def test_a_ledger_that_is_not_ours(double: Double, tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name))
    line.write(1)
    make(line.db)
    before = line.db.read_bytes()

    for verb in (("run", "night.yaml"), ("resume",), ("status",)):
        code, told = call(line, *verb)
        assert code == 2
        assert words in told
        assert told.startswith("error: ")
        assert "Traceback" not in told

    assert line.db.read_bytes() == before, "not a byte of it was changed"
    assert double.account(name).posts == []


def damaged(sample: Path, folder: Path, old: bytes, new: bytes) -> Path:
    """A copy of the sample with one text replaced by another of its length, everywhere."""
    assert len(old) == len(new)
    data = sample.read_bytes()
    assert old in data
    db = folder / "damaged.db"
    db.write_bytes(data.replace(old, new))
    return db


def test_a_reader_of_a_damaged_ledger_says_so(sample: Path, tmp_path: Path) -> None:
    """Readers don't check the whole file first: they find it where they read."""
    db = damaged(sample, tmp_path, b'"prompt"', b'"pr\xffmpt"')

    ran = cli("jobs", "--json", "--db", db)

    assert ran.code == 2
    assert "the ledger can't be read" in ran.err


def test_a_reader_of_damaged_json_says_so(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    db = damaged(sample, tmp_path, b'{"duration"', b'["duration"')

    assert cli("jobs", "--json", "--db", db).code == 2


def test_two_command_lines_at_once(double: Double, tmp_path: Path) -> None:
    """Started together, again and again: one works, the others leave with 5."""
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=9)], polls=1)))
    line.write(2)
    environment = line._environment()
    command = [sys.executable, "-m", "batchrunner", "run", "night.yaml", "--json"]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    while all(process.poll() is None for process in both):  # the loser leaves; the winner's POSTs are held
        try:
            both[0].wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    double.release(name)
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in both]

    assert sorted(code for _, code in ends) == [0, 5]
    loser = next(told for told, code in ends if code == 5)
    assert "another batchrunner" in loser
    assert "Traceback" not in loser
    assert len(double.account(name).posts) == 2


# --- Two runners, many times -----------------------------------------------------------------------------------

LOCKER = """
import sys
from pathlib import Path
from tests.system.test_ledger import race
print(race(Path(sys.argv[1]), int(sys.argv[2])))
"""


def race(folder: Path, tries: int) -> int:
    """How often exactly one of two got the lock."""
    good = 0
    for turn in range(tries):
        ledger = folder / f"{turn % 5}.db"  # new locks and old ones
        start, told, leave = os.pipe(), os.pipe(), os.pipe()
        children = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                os.close(start[1])
                os.close(leave[1])
                os.read(start[0], 1)  # both go when the other end is closed
                lock = RunLock(ledger)
                try:
                    lock.acquire()
                    os.write(told[1], b"w")
                except LedgerBusy:
                    os.write(told[1], b"b")
                os.read(leave[0], 1)  # held until both have tried
                os._exit(0)
            children.append(pid)
        os.close(start[0])
        os.close(leave[0])
        os.close(start[1])
        heard = b""
        while len(heard) < 2:
            heard += os.read(told[0], 2)
        os.close(leave[1])
        for pid in children:
            os.waitpid(pid, 0)
        os.close(told[0])
        os.close(told[1])
        good += sorted(heard) == sorted(b"wb")
    return good


def test_two_runners_on_one_ledger(tmp_path: Path) -> None:
    """200 tries, in a process that may fork: each time one wins, and the lock goes with the dead."""
    done = subprocess.run(
        [sys.executable, "-c", LOCKER, str(tmp_path), "200"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "200"
