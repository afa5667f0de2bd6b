"""Opening the ledger: the settings that the promise rests on, each read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload
from urllib.parse import quote

from .address import Address, Server
from .errors import LedgerUnusable
from .files import check_file, create_private, runner
from .sql import Connection

APPLICATION_ID = 0x62726E72
"""`brnr`, in the header of every ledger."""

BUSY_TIMEOUT_MS = 5000
MIN_SQLITE = (3, 37, 0)
"""STRICT tables need 3.37 (sqlite.org/stricttables.html)."""


def migrations() -> list[tuple[int, str, str]]:
    """(version, name, SQL) of every migration, in order."""
    from importlib import resources  # 10 ms that a reader need not pay

    folder = resources.files("batchrunner.ledger") / "migrations"
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(n[:4]), n[5:-4], (folder / n).read_text("utf-8")) for n in names]


LATEST = 8
"""Schema version of this release; a test holds it equal to the last migration."""


def open_writer(path: Path, looked: Callable[[], bool] | None = None) -> sqlite3.Connection:
    """The one writing connection. The caller holds the `RunLock`.

    Args:
        path: the ledger; made where there is none.
        looked: says whether the ledger was looked at as a whole and nobody has written to it since
            (`early.EarlyLook.sound`); None, or where it says no, it is looked at here.

    Raises:
        LedgerUnusable: not a ledger, newer than this program, or damaged.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise LedgerUnusable(f"SQLite {sqlite3.sqlite_version} is too old; 3.37 or newer is needed")
    if not check_file(path):
        create_private(path)
    sound = looked is not None and looked()
    _check_log(path, settle=True)
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    except sqlite3.Error as error:
        raise LedgerUnusable(f"can't open {path}: {error}") from None
    try:
        _prepare(connection, path, sound=sound)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the second: SQLite quotes a damaged schema
        connection.close()
        raise LedgerUnusable(_damaged(path, error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _check_log(path: Path, *, settle: bool = False) -> None:
    """Refuse a ledger of which SQLite would silently drop what was committed last.

    Args:
        path: the ledger.
        settle: for the writer, before it writes.
    """
    from . import wal

    try:
        damaged = wal.find(path)
        if damaged is None and settle:
            wal.settle(path)
    except OSError as error:
        raise LedgerUnusable(f"can't read the log of {path}: {error.strerror}") from None
    if damaged is not None:
        raise LedgerUnusable(_damaged(path, damaged))


def _damaged(path: Path, error: object) -> str:
    return f"{path} is not a usable ledger ({error}); keep it, and restore a copy or choose another --db"


def _prepare(connection: sqlite3.Connection, path: Path, *, sound: bool) -> None:
    from . import audit  # a reader need not pay for it

    _pragma(connection, "busy_timeout", BUSY_TIMEOUT_MS)
    version = _check_header(connection, path)
    _pragma(connection, "journal_mode", "wal")
    _pragma(connection, "synchronous", 2)  # FULL: WAL + FULL lost no acknowledged commit (FAILURES.md, SQLite)
    _pragma(connection, "foreign_keys", 1)
    _pragma(connection, "wal_autocheckpoint", 1000)
    _pragma(connection, "cache_size", -16384)
    _pragma(connection, "trusted_schema", 0)
    if version and not sound:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise LedgerUnusable(_damaged(path, result))
    for number, _name, sql in migrations():
        if number > version:
            _migrate(connection, number, sql)
    if version and not sound and (damaged := audit.find(connection)) is not None:
        raise LedgerUnusable(_damaged(path, damaged))


def _pragma(connection: sqlite3.Connection, name: str, value: int | str) -> None:
    connection.execute(f"PRAGMA {name} = {value}").fetchone()
    got = connection.execute(f"PRAGMA {name}").fetchone()[0]
    if str(got) != str(value):
        raise LedgerUnusable(f"SQLite refused {name} = {value} (it says {got}); the ledger would not be safe")


def _check_header(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version, 0 for an empty file."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if tables and application != APPLICATION_ID:
        raise LedgerUnusable(f"{path} is a database of another program; choose another --db")
    if version > LATEST:
        raise LedgerUnusable(
            f"{path} was written by a newer batchrunner (schema {version}, this one knows {LATEST}); upgrade it"
        )
    return version if tables else 0


def _migrate(connection: sqlite3.Connection, number: int, sql: str) -> None:
    """One migration and its record, in one transaction. `executescript` runs what it is given as it stands."""
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
    )


_NOTHING_JUDGED = """
CREATE TEMP TABLE verdict (id INTEGER PRIMARY KEY, job_id, at, verdict, note, who);
CREATE TEMP TABLE promotion (job_id INTEGER PRIMARY KEY, from_job, profile, at, who);
"""
"""What migration 3 adds, as a reader sees it where it is not there; in the reader's own memory."""

_NOTHING_NEEDED = "CREATE TEMP TABLE need (job_id INTEGER PRIMARY KEY, parent, fingerprint, problem)"
"""The same for migration 6."""


@contextmanager
def postgres(*, workers: bool = False) -> Iterator[None]:
    """Around the imports of what a ledger in PostgreSQL needs, which an installation may not have."""
    try:
        yield
    except ImportError as missing:
        if (missing.name or "").partition(".")[0] not in {
            "psycopg",
            "psycopg_binary",
            "psycopg_c",
            "psycopg_pool",
            "procrastinate",
        } and ("libpq" not in str(missing)):
            raise
        if workers:
            raise LedgerUnusable("workers need Procrastinate: pip install 'batchrunner[cluster]'") from None
        raise LedgerUnusable(
            "a ledger in PostgreSQL needs psycopg: pip install 'batchrunner[cluster]' (or name a file with --db)"
        ) from None


def beside(ledger: Address) -> Path | None:
    """What things of a ledger on this machine are named after, such as its run's socket; None where there is no ledger
    in a database yet. Raises LedgerUnusable."""
    if isinstance(ledger, Path):
        return ledger
    with postgres():
        from .postgres import opening, place
    link = opening.open_reader(ledger)
    if link is None:
        return None
    try:
        return place.place(opening.identity(link))
    finally:
        link.close()


def exists(ledger: Address) -> bool:
    """Whether there is a ledger. Raises LedgerUnusable."""
    return ledger.exists() if isinstance(ledger, Path) else beside(ledger) is not None


def holder(ledger: Address) -> str | None:
    """Who holds the run lock, in words: None where nobody does, empty where that can't be known. Raises
    LedgerUnusable."""
    if isinstance(ledger, Path):
        found = runner(ledger)
        return f"process {found}" if found else found
    with postgres():
        from .postgres import opening
    link = opening.open_reader(ledger)
    if link is None:
        return None
    try:
        return opening.holder(link, ledger)
    finally:
        link.close()


@overload
def open_reader(path: Path) -> sqlite3.Connection | None: ...


@overload
def open_reader(path: Address) -> Connection | None: ...


def open_reader(path: Address) -> Connection | None:
    """A read-only connection, beside a run or not; None where there is no ledger yet.

    Raises:
        LedgerUnusable: not a ledger, newer than this program, or damaged.
    """
    if isinstance(path, Server):
        with postgres():
            from .postgres import opening
        return opening.open_reader(path)
    return _open_file(path)


def _open_file(path: Path) -> sqlite3.Connection | None:
    if not check_file(path) or path.stat().st_size == 0:
        return None
    if runner(path) is None:  # after a dead run SQLite is about to go through its log; beside a live one it is not
        try:
            _check_log(path)
        except LedgerUnusable:
            if runner(path) is None:
                raise
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise LedgerUnusable(f"can't open {path}: {error}") from None
    try:
        _pragma(connection, "busy_timeout", BUSY_TIMEOUT_MS)
        version = _check_header(connection, path)
        if 0 < version < 3:  # a ledger that no writer of this release has opened yet
            connection.executescript(_NOTHING_JUDGED)
        if 0 < version < 6:
            connection.execute(_NOTHING_NEEDED)
        connection.row_factory = sqlite3.Row
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        raise LedgerUnusable(_damaged(path, error)) from None
    except BaseException:
        connection.close()
        raise
    if version == 0:
        connection.close()
        return None
    return connection
