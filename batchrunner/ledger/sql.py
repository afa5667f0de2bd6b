"""What a query needs of a database: as much of `sqlite3`'s interface as SQLite and PostgreSQL both give.

Every query stands once, in words that both understand. The few that PostgreSQL says otherwise are put into its words
in one place (`postgres/dialect.py`); a function of SQLite's that it lacks, its schema has. The errors of both are those
of `sqlite3`, whose names are DB-API's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

TABLES = (
    "batch",
    "job",
    "attempt",
    "history",
    "run",
    "throttle",
    "account",
    "pace",
    "latency",
    "legal",
    "verdict",
    "promotion",
    "media",
    "need",
)
"""Every table of a ledger, each behind those that it refers to; a test holds them to be all."""


class Row(Protocol):
    """A row, by name and by position; an iteration gives its values."""

    def keys(self) -> list[str]: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Cursor(Protocol):
    """What a statement gave."""

    row_factory: Any

    @property
    def rowcount(self) -> int: ...

    def execute(self, sql: str, parameters: Any = ..., /) -> Cursor: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection that begins and ends its transactions by statements."""

    row_factory: Any
    """Of SQLite's alone: PostgreSQL's rows always have names."""

    @property
    def in_transaction(self) -> bool: ...

    def cursor(self) -> Cursor: ...

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor: ...

    def close(self) -> None: ...


def hasty(connection: Connection) -> bool:
    """Whether statements are sent without a wait for those before. Then nothing is asked for beforehand that a rule of
    the schema refuses too: what is refused is done once more, alone, where it can be said why."""
    return bool(getattr(connection, "hasty", False))


Statement = tuple[str, Sequence[Any]]
"""A statement and its parameters."""


def change_one(
    connection: Connection,
    sql: str,
    parameters: Sequence[Any],
    otherwise: Callable[[], Exception],
    beside: Sequence[Statement] = (),
) -> None:
    """A statement that is to change one row, with others beside it that change other tables and whose answers nobody
    asks for; PostgreSQL is sent all of them as one. Raises what `otherwise` makes, at the latest before the commit."""
    as_one = getattr(connection, "as_one", None)
    if as_one is None:
        for also, its in beside:
            connection.execute(also, its)
    else:
        sql, parameters = as_one([*beside, (sql, parameters)])
        if hasty(connection):
            connection.expect_one(sql, parameters, otherwise)  # type: ignore[attr-defined]
            return
    if connection.execute(sql, parameters).rowcount != 1:
        raise otherwise()


def has_table(connection: Connection, name: str) -> bool:
    """Whether a ledger, which may be older than this program, has a table. In PostgreSQL it is never older."""
    if not isinstance(connection, sqlite3.Connection):
        return True
    return connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone() is not None


def has_column(connection: Connection, table: str, column: str) -> bool:
    """Whether it has a column in a table."""
    if not isinstance(connection, sqlite3.Connection):
        return True
    sql = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
    return connection.execute(sql, (table, column)).fetchone() is not None


def has_grown(connection: Connection, table: str) -> None:
    """Tell PostgreSQL's planner of a temporary table that was filled just now; SQLite needs no telling."""
    if not isinstance(connection, sqlite3.Connection):
        connection.execute(f"ANALYZE {table}")
