"""A ledger into an empty one, wherever either of them is: every row of every table, and nothing else.

All of it is one transaction of the target, at whose end both are read again and held against each other. What the rules
of the schema forbid of a row that is new (a job is born pending), they would forbid of a copy too: they are put aside
in that transaction, and in force again when it is durable. CHECKs and references hold all the way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from . import audit
from .address import Address, Server
from .connection import open_writer, postgres
from .errors import LedgerUnusable, WriteFailed
from .files import RunLock
from .sql import TABLES, Connection

AT_ONCE = 2000
"""Rows that are handed over together."""

GIVEN = frozenset({"legal"})
"""Tables that the schema itself fills."""

KEYS = ("id", "provider", "job_id", "attempt", "number", "run_id", "minute", "parent", "fingerprint")
"""Columns of which a table's own identify its rows."""

Waiting = Callable[[Path], bool]
"""Whether received task ids wait in the spool beside a ledger."""


def copy(source: Address, target: Address, waiting: Waiting) -> dict[str, int]:
    """Copy a ledger; the source stays as it is.

    Args:
        source: a ledger on which no run is alive. One in a file that is older is brought to this release's schema
            first, as a run would do.
        target: where there is no ledger, or one that has nothing in it.
        waiting: looks into a spool.

    Returns:
        table -> rows.

    Raises:
        LedgerBusy: a run is alive on one of them.
        LedgerUnusable: one of them can't be used, the target is not empty, or the copy is not the same.
        WriteFailed: the target could not be written. In either case, nothing of the copy stays.
    """
    if source == target:
        raise LedgerUnusable(f"{source} can't be copied onto itself")
    if isinstance(source, Path) and not source.exists():
        raise LedgerUnusable(f"no ledger at {source}")
    with _opened(source, must_exist=True) as (old, beside):
        if waiting(beside):
            raise LedgerUnusable(
                f"received task ids wait beside {source}; `batchrunner resume` records them first, then copy"
            )
        with _opened(target) as (new, _beside):
            _check_empty(new, target)
            return _copy(old, new, target)


def _copy(old: Connection, new: Connection, target: Address) -> dict[str, int]:
    rows: dict[str, int] = {}
    try:
        new.execute("BEGIN IMMEDIATE")
        try:
            with _rules_aside(new):
                for table in TABLES:
                    if table not in GIVEN:
                        rows[table] = _copy_table(old, new, table)
            _check_same(old, new, target)
            new.execute("COMMIT")
        except BaseException:
            if new.in_transaction:
                new.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise WriteFailed(f"{target} could not be written ({error}); nothing was copied") from error
    return rows


@contextmanager
def _opened(address: Address, *, must_exist: bool = False) -> Iterator[tuple[Connection, Path]]:
    """A ledger under its run lock, and what things beside it are named after."""
    if isinstance(address, Server):
        with postgres():
            from .postgres import opening, place
        link = opening.open_writer(address, make=not must_exist)
        try:
            yield link, place.place(opening.identity(link))
        finally:
            link.close()
        return
    lock = RunLock(address)
    lock.acquire()
    try:
        connection = open_writer(address)
        try:
            yield connection, address
        finally:
            connection.close()
    finally:
        lock.release()


def _check_empty(connection: Connection, target: Address) -> None:
    for table in TABLES:
        if table not in GIVEN and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None:
            raise LedgerUnusable(f"{target} has a ledger with something in it; copy into an empty or a new one")


@contextmanager
def _rules_aside(connection: Connection) -> Iterator[None]:
    if not isinstance(connection, sqlite3.Connection):
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        return
    rules = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY rowid").fetchall()
    for name, _sql in rules:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _name, sql in rules:
        connection.execute(sql)


def columns(connection: Connection, table: str) -> list[str]:
    """The columns of a table that are written, by name."""
    if isinstance(connection, sqlite3.Connection):
        found = connection.execute(f"PRAGMA table_info({table})").fetchall()
        return sorted(row[1] for row in found)  # which leaves out what is generated
    sql = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ? "
        "AND is_generated = 'NEVER'"
    )
    return sorted(row[0] for row in connection.execute(sql, (table,)))


def _select(connection: Connection, table: str, names: list[str]) -> Iterator[tuple[Any, ...]]:
    order = [name for name in KEYS if name in names] or names
    for row in connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {', '.join(order)}"):
        yield tuple(row)


def _copy_table(old: Connection, new: Connection, table: str) -> int:
    names = columns(new, table)
    if columns(old, table) != names:
        raise LedgerUnusable(f"the two ledgers' tables {table} are not alike; upgrade both")
    server = not isinstance(new, sqlite3.Connection)
    marks = ", ".join("any_value(?)" if server and name == "error_code" else "?" for name in names)
    sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"
    count = 0
    rows = _select(old, table, names)
    while some := list(islice(rows, AT_ONCE)):
        new.executemany(sql, some)
        count += len(some)
    if server and "id" in names and count:
        new.execute(f"SELECT setval(pg_get_serial_sequence(?, 'id'), (SELECT max(id) FROM {table}))", (table,))
    return count


def _check_same(old: Connection, new: Connection, target: Address) -> None:
    """Every value of every row, and that the copy is a ledger that a run would accept."""
    for table in TABLES:
        names = columns(new, table)
        for one, other in zip_longest(_select(old, table, names), _select(new, table, names)):
            if one != other and (one is None or tuple(map(_as_kept, one)) != other):
                raise LedgerUnusable(f"{target}: a row of {table} is not what was copied; nothing of it was kept")
    damaged = audit.contradiction(new)
    if damaged is not None:
        raise LedgerUnusable(f"the ledger that was copied contradicts itself ({damaged}); nothing of it was kept")


def _as_kept(value: Any) -> Any:
    """A text as PostgreSQL keeps it, which knows no NUL."""
    return value.replace("\0", "\u2400") if isinstance(value, str) else value
