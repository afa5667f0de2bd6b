"""What a flipped bit could lead a run astray with stands twice in the ledger; where the two disagree, it is refused."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.core.job import State
from batchrunner.ledger import audit
from batchrunner.ledger.connection import open_reader, open_writer
from batchrunner.ledger.errors import LedgerUnusable
from tests.cli_support import call as cli
from tests.cli_support import make_ledger
from tests.support import path_to, spec

UNGUARDED = "PRAGMA ignore_check_constraints = 1; PRAGMA writable_schema = 1;"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("audit") / "night.db"
    make_ledger(db, [(spec(state.value), path_to(state, f"task_{state.value}")) for state in State], max_credits=99_999)
    return db


def spoiled(sample: Path, folder: Path, sql: str) -> Path:
    """A copy in which something was changed behind the back of the triggers."""
    db = folder / "night.db"
    shutil.copyfile(sample, db)
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.executescript(UNGUARDED + sql)
        for _, create in triggers:
            connection.execute(create)
    return db


CASES = {
    "a task id": ("UPDATE job SET task_id = 'task_x' WHERE state = 'running'", "job running-1"),
    "a task id of the attempt": (
        "UPDATE attempt SET task_id = 'x' WHERE task_id = 'task_succeeded'",
        "job succeeded-1",
    ),
    "a task id of none": ("UPDATE attempt SET task_id = 'x' WHERE job_id = 3", "job unconfirmed-1"),
    "a number": ("UPDATE job SET attempt = 3 WHERE state = 'running'", "job running-1"),
    "a number of the attempt": ("UPDATE attempt SET number = 3 WHERE task_id = 'task_running'", "job running-1"),
    "another's attempt": ("UPDATE attempt SET job_id = 1 WHERE task_id = 'task_failed' OR job_id = 7", "job"),
    "a state": ("UPDATE job SET state = 'submitting', task_id = NULL WHERE state = 'running'", "job running-1"),
    "history": ("UPDATE history SET to_state = 'rumning' WHERE to_state = 'running'", "job running-1"),
    "a price": ("UPDATE attempt SET credits = 631 WHERE task_id = 'task_running'", "batch night"),
    "a sum": ("UPDATE batch SET spent = spent + 1", "batch night"),
    "a legal move": ("UPDATE legal SET to_state = 'failef' WHERE to_state = 'failed'", "legal moves"),
}


def test_the_sample_is_sound(sample: Path) -> None:
    with closing(open_writer(sample)) as connection:
        assert audit.find(connection) is None
        assert audit.find_everywhere(connection) is None


@pytest.mark.parametrize("name", CASES)
def test_a_disagreement(sample: Path, tmp_path: Path, name: str) -> None:
    sql, words = CASES[name]
    db = spoiled(sample, tmp_path, sql)

    with pytest.raises(LedgerUnusable, match=words):
        open_writer(db)

    assert cli("resume", "--db", db).code == 2
    assert "FAIL" in cli("doctor", "--offline", "--db", db).out.upper()


def test_a_weakened_trigger(sample: Path, tmp_path: Path) -> None:
    db = tmp_path / "night.db"
    shutil.copyfile(sample, db)
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, '<>', '= ') "
            "WHERE name = 'attempt_needs_consent'"
        )

    with pytest.raises(LedgerUnusable, match="attempt_needs_consent"):
        open_writer(db)


@pytest.mark.parametrize(("table", "number", "size"), [("batch", 99_999, 3), ("job", 630, 2)])
def test_a_price_or_a_cap(sample: Path, tmp_path: Path, table: str, number: int, size: int) -> None:
    """`quick_check` holds them against their mirrors."""
    db = tmp_path / "night.db"
    whole = sample.read_bytes()
    value, again = (n.to_bytes(size, "big", signed=True) for n in (number, -number))
    found = [at for at in range(len(whole)) if whole.startswith(value + again, at)]
    assert found
    data = bytearray(whole)
    data[found[-1] + size - 1] ^= 1
    db.write_bytes(data)

    with pytest.raises(LedgerUnusable, match=f"CHECK constraint failed in {table}"):
        open_writer(db)


@pytest.mark.parametrize("index", ["job_state", "job_live", "job_due", "sqlite_autoindex_job_1"])
def test_an_index(sample: Path, tmp_path: Path, index: str) -> None:
    """A row id in it is another one."""
    db = tmp_path / "night.db"
    with closing(sqlite3.connect(f"file:{sample}?mode=ro", uri=True)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (index,)).fetchone()[0]
    page = 4096
    data = bytearray(sample.read_bytes())
    start = (root - 1) * page
    cell = int.from_bytes(data[start + 8 : start + 10], "big")  # the first key of a leaf
    end = start + cell + 1 + data[start + cell]
    data[end - 1] ^= 8
    db.write_bytes(data)

    with pytest.raises(LedgerUnusable, match=r"index|missing|job"):
        open_writer(db)


def test_a_request_of_what_has_ended(sample: Path, tmp_path: Path) -> None:
    """A run does not look at it; `doctor` does."""
    db = spoiled(sample, tmp_path, "UPDATE job SET request = replace(request, 'a ', 'o ') WHERE state = 'succeeded'")
    open_writer(db).close()

    told = cli("doctor", "--offline", "--db", db)

    assert "job succeeded-1: its request is not what was recorded" in told.out


def test_a_request_that_is_about_to_be_sent(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is paid for that was not asked for."""
    db = spoiled(sample, tmp_path, "UPDATE job SET request = replace(request, 'a ', 'o ') WHERE state = 'pending'")
    monkeypatch.setenv("REAPI_API_KEY", "rk_never_sent")
    monkeypatch.setenv("REAPI_BASE_URL", "http://127.0.0.1:9")

    ran = cli("resume", "--db", db, "--only", "pending", "--quiet")

    assert ran.code in {3, 4}, ran
    assert "the request of job pending-1 is damaged" in ran.out + ran.err
    with closing(sqlite3.connect(db)) as connection:
        assert (
            connection.execute("SELECT count(*) FROM history WHERE event = 'claimed' AND job_id = 1").fetchone()[0] == 0
        )


def test_beside_a_run_it_looks_at_one_moment(sample: Path) -> None:
    reader = open_reader(sample)
    assert reader is not None
    with closing(reader):
        assert audit.find_everywhere(reader) is None
        assert not reader.in_transaction
