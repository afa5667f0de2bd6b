"""The rules that stand in SQL a second time: every CHECK and trigger, tried with raw statements."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.core.adaptive import Learned
from batchrunner.core.job import FailureKind, State
from batchrunner.core.lifecycle import TABLE, Money
from batchrunner.ledger import audit, described, pace
from batchrunner.ledger import connection as opening
from batchrunner.ledger.address import Address
from batchrunner.ledger.connection import LATEST, migrations, open_reader, open_writer
from batchrunner.ledger.errors import LedgerUnusable
from batchrunner.ledger.rows import AMBIGUOUS
from batchrunner.ledger.sql import Connection
from tests.support import dump

BOTH_STORES = True

MOVES = {(start, to) for (start, _), targets in TABLE.items() for to in targets}
S = State

_JOB = (
    "INSERT INTO job (id, batch_id, key, revision, fingerprint, position, shot, take, matrix, tags, provider, model, "
    "request, credits, output, named, created_at, updated_at{more}) "
    "VALUES ({id}, 1, '{key}', {revision}, '{fingerprint}', 0, 's', 1, '{{}}', '[]', 'p', 'm', '{{}}', 400, 'o', 1, "
    "0, 0{values})"
)

FACTS = {
    S.PENDING: "not_before = 0",
    S.SUBMITTING: "not_before = 0",
    S.UNCONFIRMED: "error_kind = 'ambiguous', error_message = 'x'",
    S.RUNNING: "task_id = 't'",
    S.DOWNLOADING: "task_id = 't', urls = '[]'",
    S.SUCCEEDED: "task_id = 't', file = '/f', sha256 = 'aa', bytes = 1",
    S.FAILED: "error_kind = 'rejected', error_message = 'x'",
    S.CANCELLED: "not_before = 0",
}
NOTHING = (
    "task_id = NULL, urls = NULL, error_kind = NULL, error_message = NULL, file = NULL, sha256 = NULL, bytes = NULL"
)
WAY = {
    S.PENDING: (),
    S.CANCELLED: (S.CANCELLED,),
    S.SUBMITTING: (S.SUBMITTING,),
    S.UNCONFIRMED: (S.SUBMITTING, S.UNCONFIRMED),
    S.RUNNING: (S.SUBMITTING, S.RUNNING),
    S.DOWNLOADING: (S.SUBMITTING, S.RUNNING, S.DOWNLOADING),
    S.SUCCEEDED: (S.SUBMITTING, S.RUNNING, S.DOWNLOADING, S.SUCCEEDED),
    S.FAILED: (S.SUBMITTING, S.FAILED),
}


def _job(
    number: int = 1,
    key: str = "k",
    revision: int = 1,
    fingerprint: str = "f",
    more: str = "",
    values: str = "",
) -> str:
    return _JOB.format(id=number, key=key, revision=revision, fingerprint=fingerprint, more=more, values=values)


def _attempt(number: int = 1, *, job: int = 1, credits: int = 400, money: str = "reserved", task: str = "NULL") -> str:  # noqa: A002
    return (
        "INSERT INTO attempt (job_id, number, batch_id, credits, money, intent_at, task_id) "
        f"VALUES ({job}, {number}, 1, {credits}, '{money}', 0, {task})"
    )


def _begin(connection: Connection) -> None:
    """A batch with a job."""
    connection.execute(
        "INSERT INTO batch (id, name, provider, manifest, output_dir, max_credits, submits_per_minute, in_flight, "
        "created_at, updated_at) VALUES (1, 'b', 'p', 'm', 'o', 1000, 60, 20, 0, 0)"
    )
    connection.execute(_job())


@pytest.fixture(autouse=True)
def _schema_anew() -> Iterator[None]:
    """What a ledger is held against is built once a process; here it is built from other migrations too."""
    audit._ours.cache_clear()
    yield
    audit._ours.cache_clear()


@pytest.fixture
def db(path: Address) -> Iterator[Connection]:
    connection: Connection
    if isinstance(path, Path):
        connection = open_writer(path)
    else:
        from batchrunner.ledger.postgres import opening as server

        connection = server.open_writer(path)
    _begin(connection)
    yield connection
    connection.close()


FILE_ONLY = pytest.mark.store(["sqlite"])


def _move(db: Connection, to: State) -> None:
    """Everything that the move needs, apart from being legal."""
    attempt = db.execute("SELECT attempt FROM job WHERE id = 1").fetchone()[0]
    if to is S.SUBMITTING:
        db.execute("UPDATE attempt SET consent = 'yes'")
        db.execute(_attempt(attempt + 1, credits=0))
        attempt += 1
    clean = ", ".join(c for c in NOTHING.split(", ") if c.split(" = ")[0] not in FACTS[to])
    db.execute(f"UPDATE job SET {clean}, {FACTS[to]}, state = '{to.value}', attempt = {attempt} WHERE id = 1")


def _into(db: Connection, state: State) -> None:
    for step in WAY[state]:
        _move(db, step)
    assert db.execute("SELECT state FROM job WHERE id = 1").fetchone()[0] == state.value


def refuses(db: Connection, sql: str, message: str) -> None:
    before = dump(db)
    with pytest.raises(sqlite3.IntegrityError, match=message):
        db.execute(sql)
    assert dump(db) == before


# --- The same as the code --------------------------------------------------------------------------------


def test_legal_moves_are_the_table_without_events(db: Connection) -> None:
    assert {(State(a), State(b)) for a, b in db.execute("SELECT from_state, to_state FROM legal")} == MOVES


def _words_after(sql: str, start: str) -> set[str]:
    found = re.search(re.escape(start) + r"\s*\(([^)]*)\)", sql)
    assert found is not None
    return set(re.findall(r"'([a-z_]+)'", found[1]))


@FILE_ONLY
def test_lists_in_checks_are_the_enums(db: sqlite3.Connection) -> None:
    job, attempt = (
        db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (n,)).fetchone()[0] for n in ("job", "attempt")
    )
    assert _words_after(job, "CHECK (state IN") == {s.value for s in State}
    assert _words_after(job, "state <> 'failed' OR error_kind IN") == {k.value for k in FailureKind}
    assert _words_after(attempt, "CHECK (money IN") == {m.value for m in Money}
    assert f"error_kind = '{AMBIGUOUS}'" in job


# --- Moves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("start", State)
def test_every_move(db: Connection, start: State, to: State) -> None:
    _into(db, start)
    if (start, to) in MOVES:
        _move(db, to)
        assert db.execute("SELECT state FROM job").fetchone()[0] == to.value
    else:
        with pytest.raises(sqlite3.IntegrityError, match=r"^illegal transition$"):
            _move(db, to)
        assert db.execute("SELECT state FROM job").fetchone()[0] == start.value


@pytest.mark.parametrize("state", [s for s in State if s is not S.PENDING])
def test_born_pending(db: Connection, state: State) -> None:
    facts = dict(pair.split(" = ") for pair in FACTS[state].split(", "))
    facts.pop("not_before", None)
    more = "".join(f", {name}" for name in ("state", *facts))
    values = "".join(f", {value}" for value in (f"'{state.value}'", *facts.values()))
    refuses(db, _job(2, "k2", more=more, values=values), "^a job is born pending$")


def test_born_without_attempts(db: Connection) -> None:
    refuses(db, _job(2, "k2", more=", attempt", values=", 1"), "^a job is born pending$")


COUNTS = "^the attempt number moves with a submission only$"


def test_attempt_number(db: Connection) -> None:
    refuses(db, "UPDATE job SET attempt = 1", COUNTS)
    refuses(db, "UPDATE job SET attempt = 1, state = 'cancelled'", COUNTS)
    db.execute(_attempt())
    refuses(db, "UPDATE job SET state = 'submitting', attempt = 2", f"{COUNTS}|no submission")
    refuses(db, "UPDATE job SET state = 'submitting'", f"{COUNTS}|no submission")
    db.execute("UPDATE job SET state = 'submitting', attempt = 1")
    refuses(db, "UPDATE job SET state = 'running', attempt = 2, task_id = 't'", COUNTS)
    refuses(db, "UPDATE job SET state = 'pending', attempt = 0", COUNTS)


@pytest.mark.parametrize(
    "change",
    [
        "batch_id = 1",
        "key = 'x'",
        "revision = 2",
        "fingerprint = 'x'",
        "request = '{\"a\":1}'",
        "model = 'x'",
        "provider = 'x'",
    ],
)
def test_what_a_job_asks_for_never_changes(db: Connection, change: str) -> None:
    refuses(db, f"UPDATE job SET {change}", "^what a job asks for never changes; a change is a new revision$")


def test_nothing_is_deleted(db: Connection) -> None:
    db.execute(_attempt())
    db.execute("INSERT INTO history (job_id, at, attempt, to_state, event) VALUES (1, 0, 0, 'pending', 'recorded')")
    refuses(db, "DELETE FROM job", "^jobs are never deleted$")
    refuses(db, "DELETE FROM attempt", "^attempts are never deleted$")
    refuses(db, "DELETE FROM history", "^history is never deleted$")
    for change in ("at = 1", "reason = 'x'", "to_state = 'failed'", "job_id = 1"):
        refuses(db, f"UPDATE history SET {change}", "^history is never changed$")
    refuses(db, "DELETE FROM batch", "FOREIGN KEY constraint failed")


def test_no_submission_without_a_reserved_attempt(db: Connection) -> None:
    message = "^no submission without a reserved attempt$"
    submit = "UPDATE job SET state = 'submitting', attempt = attempt + 1 WHERE id = 1"
    refuses(db, submit, message)
    db.execute(_attempt())
    db.execute("UPDATE attempt SET money = 'none'")
    refuses(db, submit, message)
    db.execute(_attempt(2))
    refuses(db, submit, message)  # the attempt of another number
    db.execute("UPDATE attempt SET money = 'reserved' WHERE number = 1")
    db.execute(submit)


# --- Money -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("money", [m for m in Money if m is not Money.NONE])
def test_another_submission_needs_consent(db: Connection, money: Money) -> None:
    db.execute(_attempt(1, credits=0))
    db.execute("UPDATE attempt SET money = ?", (money.value,))
    refuses(db, _attempt(2, credits=0), "^another submission needs consent$")
    db.execute("UPDATE attempt SET consent = 'me: yes'")
    db.execute(_attempt(2, credits=0))
    refuses(db, _attempt(3, credits=0), "^another submission needs consent$")  # one word, one submission


def test_a_refunded_attempt_needs_no_consent(db: Connection) -> None:
    for number in (1, 2, 3):
        db.execute(_attempt(number))
        db.execute("UPDATE attempt SET money = 'none' WHERE number = ?", (number,))


def test_budget_to_the_credit(db: Connection) -> None:
    db.execute(_job(2, "k2"))
    db.execute(_job(3, "k3"))
    db.execute(_attempt(1, job=1, credits=400))
    db.execute("UPDATE attempt SET money = 'spent'")
    refuses(db, _attempt(1, job=2, credits=601), "^budget$")
    db.execute(_attempt(1, job=2, credits=300))
    db.execute("UPDATE attempt SET money = 'at_risk' WHERE job_id = 2")
    refuses(db, _attempt(1, job=3, credits=301), "^budget$")
    db.execute(_attempt(1, job=3, credits=300))
    assert db.execute("SELECT spent, at_risk, reserved FROM batch").fetchone() == (400, 300, 300)
    refuses(db, _attempt(2, job=3, credits=1), "^budget$|consent")


def test_no_cap_no_budget(db: Connection) -> None:
    db.execute("UPDATE batch SET max_credits = NULL")
    db.execute(_attempt(1, credits=10**15))


@pytest.mark.parametrize("money", ["at_risk", "spent", "none"])
def test_an_attempt_is_born_reserved(db: Connection, money: str) -> None:
    refuses(db, _attempt(money=money), "^an attempt is born reserved$")


def test_sums_follow_every_change(db: Connection) -> None:
    db.execute(_attempt(credits=400))

    def sums() -> tuple[int, int, int]:
        found: tuple[int, int, int] = db.execute("SELECT reserved, spent, at_risk FROM batch").fetchone()
        return found

    assert sums() == (400, 0, 0)
    for sql, expected in [
        ("money = 'at_risk'", (0, 0, 400)),
        ("money = 'reserved'", (400, 0, 0)),
        ("credits = 350", (350, 0, 0)),
        ("money = 'spent', credits = 410", (0, 410, 0)),
        ("credits = credits", (0, 410, 0)),
        ("money = 'none'", (0, 0, 0)),
        ("credits = 9", (0, 0, 0)),
    ]:
        db.execute(f"UPDATE attempt SET {sql}")
        assert sums() == expected, sql


# --- CHECKs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (S.PENDING, "state = 'nonsense'"),
        (S.SUBMITTING, "state = 'running'"),
        (S.RUNNING, "task_id = NULL"),
        (S.RUNNING, "urls = '[]'"),
        (S.RUNNING, "state = 'downloading'"),
        (S.RUNNING, "error_kind = 'lost'"),
        (S.RUNNING, "file = '/f', sha256 = 'a', bytes = 1"),
        (S.DOWNLOADING, "urls = NULL"),
        (S.DOWNLOADING, "state = 'succeeded', urls = NULL"),
        (S.DOWNLOADING, "state = 'succeeded', urls = NULL, file = '/f', bytes = 1"),
        (S.DOWNLOADING, "state = 'succeeded', urls = NULL, file = '/f', sha256 = 'a'"),
        (S.SUCCEEDED, "file = NULL, sha256 = NULL, bytes = NULL"),
        (S.SUCCEEDED, "task_id = NULL"),
        (S.SUBMITTING, "state = 'failed'"),
        (S.SUBMITTING, "state = 'failed', error_kind = 'ambiguous'"),
        (S.SUBMITTING, "state = 'unconfirmed'"),
        (S.SUBMITTING, "state = 'unconfirmed', error_kind = 'lost'"),
        (S.FAILED, "error_kind = 'other'"),
        (S.PENDING, "current = 2"),
        (S.PENDING, "named = 2"),
        (S.PENDING, "credits = -1"),
    ],
)
def test_checks_of_a_job(db: Connection, start: State, change: str) -> None:
    _into(db, start)
    refuses(db, f"UPDATE job SET {change}", "CHECK constraint failed|illegal transition")


@pytest.mark.parametrize(
    "change",
    [
        *("max_credits = -1", "submits_per_minute = 0", "in_flight = 0", "retry_provider = -1", "retry_moderated = -1"),
        *("reserved = -1", "spent = -1", "at_risk = -1"),
    ],
)
def test_checks_of_a_batch(db: Connection, change: str) -> None:
    refuses(db, f"UPDATE batch SET {change}", "CHECK constraint failed")


@pytest.mark.parametrize(
    "sql",
    [
        _attempt(0),
        _attempt(credits=-1),
        "UPDATE attempt SET money = 'other'",
        "INSERT INTO latency (model, took) VALUES ('m', -0.1)",
        _job(2, "k2", revision=0),
    ],
)
def test_other_checks(db: Connection, sql: str) -> None:
    if sql.startswith("UPDATE attempt"):
        db.execute(_attempt())
    refuses(db, sql, "CHECK constraint failed|an attempt is born reserved")


@FILE_ONLY
def test_tables_are_strict(db: sqlite3.Connection) -> None:
    refuses(db, "UPDATE batch SET max_credits = 'much'", "cannot store TEXT value in INTEGER column")
    refuses(db, "UPDATE job SET tags = x'00'", "cannot store BLOB value in TEXT column")
    tables = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert all("STRICT" in sql.rpartition(")")[2] for _, sql in tables)


def test_uniqueness(db: Connection) -> None:
    refuses(db, _job(2, revision=2, fingerprint="g"), "UNIQUE constraint failed: job.batch_id, job.key")
    db.execute("UPDATE job SET current = 0")
    refuses(db, _job(2, revision=1, fingerprint="g"), "UNIQUE .*revision")
    refuses(db, _job(2, revision=2, fingerprint="f"), "UNIQUE .*fingerprint")
    db.execute(_job(2, revision=2, fingerprint="g"))
    db.execute(_attempt(job=1, task="'t'"))
    refuses(db, _attempt(job=2, task="'t'"), "UNIQUE constraint failed: attempt.task_id")


def test_strangers(db: Connection) -> None:
    refuses(db, _attempt(job=99), "FOREIGN KEY constraint failed")
    refuses(
        db,
        "INSERT INTO history (job_id, at, attempt, to_state, event) VALUES (99, 0, 0, 'pending', 'x')",
        "FOREIGN KEY constraint failed",
    )


# --- Migrations ------------------------------------------------------------------------------------------

SNAPSHOT = {
    "account": ("provider:TEXT! origin:TEXT! hold_until:REAL!=0",),
    "attempt": (
        "job_id:INTEGER! number:INTEGER! batch_id:INTEGER! credits:INTEGER! money:TEXT! consent:TEXT",
        "intent_at:REAL! answered_at:REAL ended_at:REAL outcome:TEXT task_id:TEXT request_id:TEXT request:TEXT",
    ),
    "batch": (
        "id:INTEGER name:TEXT! provider:TEXT! manifest:TEXT! profile:TEXT output_dir:TEXT!",
        "max_credits:INTEGER submits_per_minute:REAL! in_flight:INTEGER! retry_provider:INTEGER!=0",
        "retry_moderated:INTEGER!=0 reserved:INTEGER!=0 spent:INTEGER!=0 at_risk:INTEGER!=0 created_at:REAL!",
        "updated_at:REAL! unrecorded:INTEGER!=0 notify:TEXT!='[]' limits:TEXT!='{}'",
    ),
    "history": (
        "id:INTEGER job_id:INTEGER! at:REAL! attempt:INTEGER! from_state:TEXT to_state:TEXT! event:TEXT!",
        "reason:TEXT!='' who:TEXT!=''",
    ),
    "job": (
        "id:INTEGER batch_id:INTEGER! key:TEXT! revision:INTEGER! fingerprint:TEXT! current:INTEGER!=1",
        "position:INTEGER! shot:TEXT! take:INTEGER! matrix:TEXT! tags:TEXT! provider:TEXT! model:TEXT!",
        "request:TEXT! seconds:INTEGER credits:INTEGER output:TEXT! named:INTEGER! state:TEXT!='pending'",
        "attempt:INTEGER!=0 not_before:REAL!=0 task_id:TEXT urls:TEXT renewals:INTEGER!=0 error_kind:TEXT",
        "error_code:ANY error_message:TEXT error_status:INTEGER error_request_id:TEXT file:TEXT sha256:TEXT",
        "bytes:INTEGER retries_provider:INTEGER!=0 retries_moderated:INTEGER!=0 next_poll_at:REAL",
        "polls:INTEGER!=0 created_at:REAL! updated_at:REAL!",
    ),
    "media": (
        "job_id:INTEGER! attempt:INTEGER! number:INTEGER! kind:TEXT! url:TEXT! file:TEXT sha256:TEXT bytes:INTEGER",
        "facts:TEXT! warnings:TEXT! checked_at:REAL!",
    ),
    "need": ("job_id:INTEGER! parent:TEXT! fingerprint:TEXT! problem:TEXT!=''",),
    "latency": ("id:INTEGER model:TEXT! seconds:INTEGER took:REAL!",),
    "legal": ("from_state:TEXT! to_state:TEXT!",),
    "pace": ("provider:TEXT! submits_per_minute:REAL in_flight:INTEGER calls_per_minute:REAL learned_at:REAL!",),
    "promotion": ("job_id:INTEGER from_job:INTEGER! profile:TEXT! at:REAL! who:TEXT!",),
    "run": (
        "id:INTEGER started_at:REAL! ended_at:REAL heartbeat_at:REAL! pid:INTEGER! host:TEXT! batches:TEXT!",
        "progress:TEXT!='{}' stop:TEXT exit_code:INTEGER",
    ),
    "throttle": ("run_id:INTEGER! minute:INTEGER! at:REAL! polls:INTEGER!",),
    "verdict": ("id:INTEGER job_id:INTEGER! at:REAL! verdict:TEXT! note:TEXT!='' who:TEXT!",),
}
"""Table -> its columns: name, type, `!` where NOT NULL, `=` and the default."""


def columns(connection: sqlite3.Connection, table: str) -> str:
    rows = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return " ".join(f"{r[1]}:{r[2]}{'!' * r[3]}{'' if r[4] is None else '=' + r[4]}" for r in rows)


@FILE_ONLY
def test_all_migrations_make_the_schema(db: sqlite3.Connection) -> None:
    """A changed migration breaks ledgers that are out there: add a new one, and this list's new state."""
    tables = [r[0] for r in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    assert {t: columns(db, t).split() for t in tables} == {t: " ".join(c).split() for t, c in SNAPSHOT.items()}


def test_latest_is_the_last_migration() -> None:
    found = migrations()
    numbers = [number for number, _, _ in found]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == LATEST
    assert all(name and sql for _, name, sql in found)


def test_a_migration_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    open_writer(path).close()
    before = _file_dump(path)
    real = migrations()
    broken = (LATEST + 1, "broken", "CREATE TABLE half (a); INSERT INTO half VALUES (1); CREATE TABLE job (a);")
    monkeypatch.setattr(opening, "migrations", lambda: [*real, broken])
    with pytest.raises(LedgerUnusable, match="table job already exists"):
        open_writer(path)
    assert _file_dump(path) == before
    monkeypatch.undo()
    open_writer(path).close()


def test_a_first_migration_that_fails_leaves_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    monkeypatch.setattr(opening, "migrations", lambda: [(1, "x", "CREATE TABLE a (b); nonsense;")])
    with pytest.raises(LedgerUnusable, match="syntax error"):
        open_writer(path)
    assert _file_dump(path) == (0, 0, ["BEGIN TRANSACTION;", "COMMIT;"])
    monkeypatch.undo()
    connection = open_writer(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == LATEST
    connection.close()


def test_a_later_migration_is_applied_to_an_older_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    open_writer(path).close()
    real = migrations()
    monkeypatch.setattr(opening, "migrations", lambda: [*real, (LATEST + 1, "more", "CREATE TABLE more (a);")])
    monkeypatch.setattr(opening, "LATEST", LATEST + 1)
    connection = open_writer(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == LATEST + 1
    assert connection.execute("SELECT count(*) FROM more").fetchone()[0] == 0
    connection.close()
    open_writer(path).close()  # and not a second time


def test_a_ledger_of_version_1_is_upgraded_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    real = migrations()
    monkeypatch.setattr(opening, "migrations", lambda: real[:1])
    with closing(open_writer(path)) as connection:
        connection.execute("INSERT INTO account (provider, origin, hold_until) VALUES ('reapi', 'https://x', 7)")
        connection.execute("INSERT INTO latency (model, seconds, took) VALUES ('m', 5, 61.5)")
    assert _file_dump(path)[0] == 1
    with closing(open_reader(path) or pytest.fail("no reader")) as reader:
        assert pace.known(reader, "reapi") is None, "a reader beside an older ledger changes nothing"
    assert _file_dump(path)[0] == 1
    monkeypatch.undo()

    with closing(open_writer(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == LATEST
        assert connection.execute("SELECT * FROM account").fetchall() == [("reapi", "https://x", 7.0)]
        assert connection.execute("SELECT model, seconds, took FROM latency").fetchall() == [("m", 5, 61.5)]
        assert pace.read("reapi", connection) == Learned()
        learned = Learned(submits=7.0, in_flight=40, calls=None)
        connection.execute(pace.SAVE, pace.row("reapi", learned, 9.0))
        assert pace.read("reapi", connection) == learned
        assert pace.known(connection, "reapi") == {
            "submits_per_minute": 420.0,
            "in_flight": 40,
            "calls_per_minute": None,
            "learned_at": 9.0,
        }


@pytest.mark.parametrize("values", ["0, 1, 1", "1, 0, 1", "1, 1, 0"])
def test_a_learned_limit_is_more_than_nothing(db: Connection, values: str) -> None:
    db.execute("INSERT INTO account (provider, origin) VALUES ('reapi', 'https://x')")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        db.execute(f"INSERT INTO pace VALUES ('reapi', {values}, 0)")


def _file_dump(path: Path) -> tuple[int, int, list[str]]:
    connection = sqlite3.connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        return version, application, list(connection.iterdump())
    finally:
        connection.close()


# --- Verdicts and lineage --------------------------------------------------------------------------------

_VERDICT = "INSERT INTO verdict (job_id, at, verdict, who) VALUES (1, 0, '{}', 'me')"
_PROMOTION = "INSERT INTO promotion (job_id, from_job, profile, at, who) VALUES (2, 1, 'final', 0, 'me')"


@pytest.mark.parametrize("state", sorted(set(State) - {State.SUCCEEDED}))
def test_only_a_finished_clip_is_judged(db: Connection, state: State) -> None:
    _into(db, state)
    refuses(db, _VERDICT.format("approved"), "only a finished clip")


def test_verdicts_and_lineage_are_kept_as_they_are(db: Connection) -> None:
    _into(db, State.SUCCEEDED)
    db.execute(_job(2, "k@final"))
    for verdict in ("", "rejected", "approved"):
        if verdict:
            db.execute(_VERDICT.format(verdict))
        if verdict != "approved":
            refuses(db, _PROMOTION, "only an approved job")
    refuses(db, _VERDICT.format("nice"), "CHECK")
    db.execute(_PROMOTION)
    for sql in (
        "UPDATE verdict SET note = 'x'",
        "DELETE FROM verdict",
        "UPDATE promotion SET from_job = 2",
        "DELETE FROM promotion",
    ):
        refuses(db, sql, "never")


def test_a_reader_of_an_older_ledger_sees_nothing_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"
    older = [m for m in migrations() if m[0] < 3]
    with monkeypatch.context() as before:
        before.setattr(opening, "migrations", lambda: older)
        with closing(open_writer(path)) as old:
            _begin(old)
    reader = open_reader(path)
    assert reader is not None
    with closing(reader):
        (job,) = described.jobs(reader)
        assert (job["verdict"], job["promoted_from"]) == (None, None)
        assert described.show(reader, 1)["verdicts"] == []
    with closing(open_writer(path)) as new:
        assert new.execute("SELECT count(*) FROM verdict").fetchone() == (0,)
