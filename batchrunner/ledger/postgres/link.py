"""One connection to PostgreSQL, with the interface that the ledger's functions know (`ledger/sql.py`).

Two things are PostgreSQL's own:

- **A connection can be lost.** Between transactions it is opened again. In the middle of one, nothing of it stays, and
  whoever began it may begin again (`Lost`). In its COMMIT nobody can tell from here; so the transaction's number is
  known beforehand, the session that may still be working on it is ended, and PostgreSQL is asked what became of the
  number (`pg_xact_status`). Nothing is guessed, and nothing is written twice.
- **An error ends a transaction.** A COMMIT then answers ROLLBACK and no error; here it is one.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from ...core.secret import hide
from ..sql import Statement
from ..writer import Gone
from .dialect import together, translate
from .session import Named, sever

PATIENCE = 60.0
"""Seconds that a lost server is waited for: a restart takes a few, a fail-over less than a minute."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two attempts to connect again; each is twice the one before."""

SETTLING = 10.0
"""Seconds in which a session that was told to end has ended."""


class Lost(Gone):
    """The connection is gone, and nothing of the transaction stays: it may be begun again."""


class Unreachable(Gone):
    """The server could not be reached again in time. What was being committed may be committed or not."""


class Again(sqlite3.OperationalError):
    """PostgreSQL could not let two transactions through at once (a deadlock): this one is undone, and may be begun
    again."""


class Rows:
    """A cursor."""

    __slots__ = ("_cursor", "_link", "row_factory")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._cursor: psycopg.Cursor[Named] | None = None
        self.row_factory: Any = None

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        self._cursor = self._link.run(sql, parameters)
        return self

    @property
    def _found(self) -> psycopg.Cursor[Named] | None:
        """The cursor, when its answer has come."""
        if self._link.hasty:
            self._link.catch_up()
        return self._cursor

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        self._cursor = self._link.run_many(sql, parameters)
        return self

    @property
    def rowcount(self) -> int:
        found = self._found
        return -1 if found is None else found.rowcount

    def fetchone(self) -> Any:
        found = self._found
        return None if found is None or found.description is None else found.fetchone()

    def fetchall(self) -> list[Any]:
        found = self._found
        return [] if found is None or found.description is None else found.fetchall()

    def __iter__(self) -> Iterator[Any]:
        yield from self.fetchall()


class Link:
    """A connection to a ledger's server, opened again where it is lost.

    Args:
        opener: makes the connection and everything that the session needs, the run lock too; told the session that was
            lost, (backend's process, its start), which it ends, and None the first time.
        secrets: what must not stand in an error.
        patience: seconds that a lost server is waited for; 0 for a reader, who opens another link.
    """

    def __init__(
        self,
        opener: Callable[[tuple[int, Any] | None], psycopg.Connection[Named]],
        secrets: Sequence[str] = (),
        patience: float = PATIENCE,
    ) -> None:
        self.row_factory: Any = None
        self._opener = opener
        self._secrets = secrets
        self._patience = patience
        self._over = threading.Event()
        self._number: str | None = None
        self._pipeline: psycopg.Pipeline | None = None
        self._expected: list[tuple[psycopg.Cursor[Named], Callable[[], Exception]]] = []
        self._connection = opener(None)
        self._session = self._who()
        self._lost_for_good = False

    # --- sqlite3's interface -----------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)

    def cursor(self) -> Rows:
        return Rows(self)

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        return Rows(self).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        return Rows(self).executemany(sql, parameters)

    def close(self) -> None:
        self._over.set()
        if not self._connection.closed:
            with suppress(psycopg.Error):  # the server ends the session in its own time: its lock is let go now
                self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._connection.close()

    def cut(self) -> None:
        """Cut the connection, whatever is being waited for: it is lost then, and opened again."""
        sever(self._connection)

    # --- Statements --------------------------------------------------------------------------------------

    def run(self, sql: str, parameters: Any = ()) -> psycopg.Cursor[Named]:
        """One statement.

        Raises:
            Lost, Again, Unreachable, sqlite3.IntegrityError, sqlite3.OperationalError.
        """
        if sql == "COMMIT":
            return self._commit()
        if sql == "BEGIN IMMEDIATE":
            return self._begin()
        try:
            return self._connection.execute(translate(sql), parameters or None)
        except psycopg.Error as error:
            raise self._told(error) from error

    @staticmethod
    def as_one(statements: Sequence[Statement]) -> Statement:
        """Statements as one, which gives what the last one gives. None may need what another has changed."""
        sql = together(tuple((one, len(parameters)) for one, parameters in statements))
        return sql, [value for _, parameters in statements for value in parameters]

    def run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> psycopg.Cursor[Named]:
        """One statement for each of the parameters. Raises as `run`."""
        cursor = self._connection.cursor()
        try:
            cursor.executemany(translate(sql), parameters)
        except psycopg.Error as error:
            raise self._told(error) from error
        return cursor

    # --- Without a wait between them ---------------------------------------------------------------------

    @property
    def hasty(self) -> bool:
        """Whether statements are on their way whose answers were not awaited."""
        return self._pipeline is not None

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """The statements of the block are sent one after the other, and their answers awaited where somebody asks for
        one, and at the end. What one of them raises may be raised by a later one.

        Raises:
            Lost, Again, sqlite3.IntegrityError, sqlite3.OperationalError. What `expect_one` is told to raise.
        """
        self._expected = []
        try:
            with self._connection.pipeline() as self._pipeline:
                yield
        except BaseException as error:
            # psycopg takes for prepared what the server has passed over behind an error (3.3; a test holds this need).
            self._connection._prepared.clear()
            if isinstance(error, psycopg.Error):
                raise self._told(error) from error
            raise
        finally:
            self._pipeline = None
        for cursor, otherwise in self._expected:
            if cursor.rowcount != 1:
                raise otherwise()

    def expect_one(self, sql: str, parameters: Any, otherwise: Callable[[], Exception]) -> None:
        """A statement of `hurry` that is to change one row; else, at the end, what `otherwise` makes is raised."""
        self._expected.append((self.run(sql, parameters), otherwise))

    def catch_up(self) -> None:
        """Wait for the answers of all that was sent."""
        assert self._pipeline is not None  # noqa: S101
        try:
            self._pipeline.sync()
        except psycopg.Error as error:
            raise self._told(error) from error

    # --- Transactions ------------------------------------------------------------------------------------

    def _begin(self) -> psycopg.Cursor[Named]:
        """A transaction, and its number; one round trip."""
        if self._connection.closed:
            self.reopen()
        try:
            cursor = self._connection.execute("BEGIN; SELECT pg_current_xact_id()::text")
            cursor.nextset()
            self._number = cursor.fetchone()[0]  # type: ignore[index]
        except psycopg.Error as error:
            raise self._told(error) from error
        return cursor

    def _commit(self) -> psycopg.Cursor[Named]:
        try:
            cursor = self._connection.execute("COMMIT")
        except psycopg.Error as error:
            told = self._told(error)
            if not isinstance(told, Lost):
                raise told from error
            self._settle(told)
            return self._connection.cursor()
        if cursor.statusmessage != "COMMIT":
            raise sqlite3.OperationalError("the transaction had failed before its end")
        return cursor

    def _settle(self, lost: Lost) -> None:
        """What became of a COMMIT whose answer was lost: returns where it is durable.

        Raises:
            Lost: it is undone. Unreachable: nobody can tell.
        """
        number = self._number
        self.reopen()
        try:
            row = self._connection.execute("SELECT pg_xact_status($1::text::xid8)", (number,)).fetchone()
        except psycopg.Error as error:
            raise Unreachable(self._words(error)) from error
        status = None if row is None else row[0]
        if status == "committed":
            return
        if status == "aborted":
            raise lost
        raise Unreachable(f"a commit was cut off, and the server can't tell what became of it ({status})")

    def reopen(self) -> None:
        """Connect again, as the same writer.

        Raises:
            Unreachable: not in time, or somebody else has taken the ledger meanwhile.
        """
        waited, pause = 0.0, FIRST_PAUSE
        patience = 0.0 if self._lost_for_good else self._patience
        while True:
            try:
                self._connection.close()
                self._connection = self._opener(self._session)
                self._session = self._who()
            except psycopg.OperationalError as error:
                if waited >= patience or self._over.is_set():
                    self._lost_for_good = True
                    raise Unreachable(self._words(error)) from error
            except Exception as error:
                self._lost_for_good = True
                raise Unreachable(str(error)) from error
            else:
                self._lost_for_good = False
                return
            self._over.wait(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)

    def _who(self) -> tuple[int, Any]:
        sql = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        row = self._connection.execute(sql).fetchone()
        assert row is not None  # noqa: S101  one's own session is always there
        return row[0], row[1]

    def _told(self, error: psycopg.Error) -> sqlite3.Error:
        """The same error as sqlite3's."""
        words = self._words(error)
        if self._connection.closed:
            return Lost(words)
        if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
            return Again(words)
        if isinstance(error, psycopg.IntegrityError):
            return sqlite3.IntegrityError(_refusal(error) or words)
        return sqlite3.OperationalError(words)

    def _words(self, error: psycopg.Error) -> str:
        return hide(words_of(error), self._secrets)


def _refusal(error: psycopg.IntegrityError) -> str | None:
    """What was refused, in SQLite's words; None for a rule of ours, which has its own."""
    said = error.diag
    match error:
        case psycopg.errors.UniqueViolation():
            columns = (said.message_detail or "").partition("(")[2].partition(")")[0].split(", ")
            return f"UNIQUE constraint failed: {', '.join(f'{said.table_name}.{column}' for column in columns)}"
        case psycopg.errors.CheckViolation():
            return f"CHECK constraint failed: {said.constraint_name}"
        case psycopg.errors.ForeignKeyViolation():
            return "FOREIGN KEY constraint failed"
        case psycopg.errors.NotNullViolation():
            return f"NOT NULL constraint failed: {said.table_name}.{said.column_name}"
        case _:
            return None


def words_of(error: psycopg.Error) -> str:
    """What PostgreSQL says, in one line."""
    return error.diag.message_primary or " ".join(str(error).split()).removeprefix("connection failed: ")
