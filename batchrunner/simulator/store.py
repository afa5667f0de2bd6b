"""The simulator's account: what it accepted, charged, refunded and served. All of its SQL.

It is one plain connection, used in the event loop: a statement takes some 10 us, a thread hop 50.
WAL with `synchronous=OFF` is right here and nowhere else in this project: the state must survive the death of the
process (a user kills `run --simulate` and runs it again), which the page cache does; only a power cut could lose
commits, and then nothing of value is lost. Every change is committed before its answer is sent.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x62725349  # "brSI"
VERSION = 1
NEVER = 9e15
"""Due time of a task that never ends, unix seconds."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE users (user TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT, WITHOUT ROWID;
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user TEXT NOT NULL REFERENCES users(user),
  model TEXT NOT NULL,
  label TEXT NOT NULL,
  request TEXT NOT NULL,
  request_sha256 TEXT NOT NULL,
  credits INTEGER NOT NULL CHECK (credits >= 0),
  created_at REAL NOT NULL,
  due_at REAL NOT NULL,
  odd_until REAL NOT NULL,
  error_code INTEGER,
  refunded INTEGER NOT NULL DEFAULT 0 CHECK (refunded IN (0, 1)),
  polls INTEGER NOT NULL DEFAULT 0,
  downloads INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tasks_running ON tasks(user, due_at);
CREATE INDEX tasks_owed ON tasks(due_at) WHERE error_code IS NOT NULL AND refunded = 0;
"""


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be accepted. Times are unix seconds; `error_code` is how it will fail, None if it will not."""

    number: int
    id: str
    user: str
    model: str
    label: str
    request: str
    request_sha256: str
    credits: int
    created_at: float
    due_at: float
    odd_until: float = 0.0
    error_code: int | None = None


@dataclass(frozen=True, slots=True)
class Task(NewTask):
    """A task of the account."""

    refunded: int = 0
    polls: int = 0
    downloads: int = 0

    def status(self, now: float) -> str:
        """The documented status word at `now`."""
        if now < self.due_at:
            return "processing"
        return "completed" if self.error_code is None else "failed"


_COLUMNS = (
    "number, id, user, model, label, request, request_sha256, credits, created_at, due_at, odd_until, error_code, "
    "refunded, polls, downloads"
)


class Store:
    """The account in a SQLite file, or in memory."""

    def __init__(self, path: Path | None) -> None:
        """Open the account, or create it (0600: it holds prompts).

        Raises:
            ValueError: the file is not a simulator's state, or another version's.
            sqlite3.Error: it can't be read or written.
        """
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=5.0)
        try:
            self._open(path)
        except BaseException:
            self._db.close()
            raise

    def _open(self, path: Path | None) -> None:
        try:
            found = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            empty = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is not a simulator's state file: {error}") from error
        if not empty and (found, version) != (APPLICATION_ID, VERSION):
            raise ValueError(f"{path} is not a state file of this simulator (version {VERSION})")
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON", "cache_size=-16384"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE IF NOT EXISTS given (number INTEGER PRIMARY KEY, what TEXT NOT NULL) STRICT")
        if empty:
            with self.transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={VERSION}")
                # Ids are made from this, so that no two accounts ever share one.
                self.set_meta("nonce", os.urandom(16).hex())

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Never await inside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def meta(self, key: str) -> str | None:
        """A value that was set, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Set a value."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def count(self, name: str) -> int:
        """Add one to a counter and return it."""
        rows = self._db.execute(
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT(name) DO UPDATE SET n = n + 1 RETURNING n", (name,)
        ).fetchall()
        return int(rows[0][0])  # fetchall: the statement commits when it has ended

    def counters(self) -> dict[str, int]:
        """All counters by name."""
        return dict(self._db.execute("SELECT name, n FROM counters").fetchall())

    def open_account(self, user: str, balance: int) -> None:
        """Give a user that was never seen an account with so many credits."""
        self._db.execute("INSERT OR IGNORE INTO users VALUES (?, ?)", (user, balance))

    def balance(self, user: str) -> int:
        """Credits that the user has left."""
        return int(self._db.execute("SELECT balance FROM users WHERE user = ?", (user,)).fetchone()[0])

    def next_number(self) -> int:
        """The number of the task to be accepted next: 1, 2, ..."""
        return int(self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM tasks").fetchone()[0])

    def accept(self, task: NewTask) -> None:
        """Charge for a task and record it. The caller has seen that the balance suffices, in this transaction."""
        self._db.execute("UPDATE users SET balance = balance - ? WHERE user = ?", (task.credits, task.user))
        self._db.execute(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)",
            (
                task.number,
                task.id,
                task.user,
                task.model,
                task.label,
                task.request,
                task.request_sha256,
                task.credits,
                task.created_at,
                task.due_at,
                task.odd_until,
                task.error_code,
            ),
        )

    def running(self, user: str, now: float) -> int:
        """Tasks of the user that are processing."""
        row = self._db.execute("SELECT count(*) FROM tasks WHERE user = ? AND due_at > ?", (user, now)).fetchone()
        return int(row[0])

    def refund_due(self, now: float) -> None:
        """Refund every task that has failed by now. Called before anybody may look at a task or a balance."""
        owed = "error_code IS NOT NULL AND refunded = 0 AND due_at <= ?"
        if self._db.execute(f"SELECT 1 FROM tasks WHERE {owed} LIMIT 1", (now,)).fetchone() is None:
            return
        with self.transaction():
            self._db.execute(
                "UPDATE users SET balance = balance + coalesce("
                f"(SELECT sum(credits) FROM tasks WHERE {owed} AND tasks.user = users.user), 0)",
                (now,),
            )
            self._db.execute(f"UPDATE tasks SET refunded = 1 WHERE {owed}", (now,))

    def task(self, task_id: str) -> Task | None:
        """A task by its id."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return None if row is None else Task(*row)

    def polled(self, task_id: str, user: str) -> Task | None:
        """Count a poll of the user's task and return the task; None where there is none."""
        rows = self._db.execute(
            f"UPDATE tasks SET polls = polls + 1 WHERE id = ? AND user = ? RETURNING {_COLUMNS}", (task_id, user)
        ).fetchall()
        return Task(*rows[0]) if rows else None

    def downloaded(self, number: int) -> int:
        """Count a download of a task's output and return how many there were."""
        rows = self._db.execute(
            "UPDATE tasks SET downloads = downloads + 1 WHERE number = ? RETURNING downloads", (number,)
        ).fetchall()
        return int(rows[0][0])

    def cancel(self, number: int, code: int, now: float) -> None:
        """End a task that is processing: it has failed with this code."""
        self._db.execute(
            "UPDATE tasks SET due_at = ?, error_code = ? WHERE number = ? AND due_at > ?", (now, code, number, now)
        )

    def give(self, number: int, what: str) -> None:
        """Remember what a task will give, where that is nothing plain."""
        self._db.execute("INSERT INTO given VALUES (?, ?)", (number, what))

    def given(self, number: int) -> str | None:
        """What was remembered of a task."""
        row = self._db.execute("SELECT what FROM given WHERE number = ?", (number,)).fetchone()
        return None if row is None else str(row[0])

    def tasks(self) -> Iterator[Task]:
        """Every task, oldest first."""
        return (Task(*row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM tasks ORDER BY number"))

    def users(self) -> dict[str, int]:
        """Balance by user."""
        return dict(self._db.execute("SELECT user, balance FROM users").fetchall())

    def totals(self) -> dict[str, Any]:
        """Sums over all tasks: accepted, charged, refunded, polls, downloads."""
        cursor = self._db.execute(
            "SELECT count(*) AS accepted, coalesce(sum(credits), 0) AS charged,"
            " coalesce(sum(credits * refunded), 0) AS refunded, coalesce(sum(polls), 0) AS polls,"
            " coalesce(sum(downloads), 0) AS downloads FROM tasks"
        )
        return dict(zip((c[0] for c in cursor.description), cursor.fetchone(), strict=True))
