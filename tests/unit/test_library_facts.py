"""Facts about libraries that carry the promise. If an upgrade breaks one, this fails, not a night."""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
import threading
from pathlib import Path

import aiosqlite
import pytest

# --- aiosqlite: what ledger/writer.py's ThreadDatabase uses ----------------------------------------------


def _opener(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


async def _open(path: Path) -> aiosqlite.Connection:
    return await aiosqlite.Connection(lambda: _opener(path), iter_chunk_size=64)


def test_the_private_method_has_the_shape_that_we_call() -> None:
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    assert list(inspect.signature(aiosqlite.Connection._execute).parameters) == ["self", "fn", "args", "kwargs"]
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)
    assert list(inspect.signature(aiosqlite.Connection.__init__).parameters)[1:3] == ["connector", "iter_chunk_size"]


async def test_functions_run_in_one_other_thread_in_order(tmp_path: Path) -> None:
    connection = await _open(tmp_path / "x")
    seen: list[tuple[int, int]] = []

    def note(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number

    waits = [asyncio.ensure_future(connection._execute(note, n)) for n in range(50)]  # type: ignore[no-untyped-call]
    assert await asyncio.gather(*waits) == list(range(50))
    assert [n for n, _ in seen] == list(range(50))
    assert len({ident for _, ident in seen}) == 1
    assert seen[0][1] != threading.get_ident()
    await connection.close()


async def test_the_connection_handed_over_is_sqlites_own(tmp_path: Path) -> None:
    connection = await _open(tmp_path / "x")
    assert type(connection._conn) is sqlite3.Connection
    await connection.close()
    with pytest.raises(ValueError, match="no active connection"):
        _ = connection._conn


async def test_an_exception_comes_back_and_the_thread_goes_on(tmp_path: Path) -> None:
    connection = await _open(tmp_path / "x")

    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await connection._execute(broken)  # type: ignore[no-untyped-call]
    assert await connection._execute(lambda: 7) == 7  # type: ignore[no-untyped-call]
    await connection.close()


async def test_a_cancelled_wait_does_not_take_a_queued_statement_back(tmp_path: Path) -> None:
    """So a transition whose caller was cancelled is still recorded; and BEGIN must never be awaited on its own."""
    connection = await _open(tmp_path / "x")
    await connection._execute(connection._conn.execute, "CREATE TABLE t (a)")  # type: ignore[no-untyped-call]
    free = threading.Event()
    held = asyncio.ensure_future(connection._execute(free.wait, 30))  # type: ignore[no-untyped-call]
    queued = asyncio.ensure_future(
        connection._execute(connection._conn.execute, "INSERT INTO t VALUES (1)")  # type: ignore[no-untyped-call]
    )
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    free.set()
    assert await held is True
    rows = await connection._execute(lambda: connection._conn.execute("SELECT a FROM t").fetchall())  # type: ignore[no-untyped-call]
    assert rows == [(1,)]
    await connection.close()


async def test_an_opener_that_raises_ends_the_thread(tmp_path: Path) -> None:
    def broken() -> sqlite3.Connection:
        raise OSError("no")

    connection = aiosqlite.Connection(broken, iter_chunk_size=64)
    with pytest.raises(OSError, match="no"):
        await connection
    connection._thread.join(30)
    assert not connection._thread.is_alive()


async def test_close_ends_the_thread(tmp_path: Path) -> None:
    connection = await _open(tmp_path / "x")
    await connection.close()
    connection._thread.join(30)
    assert not connection._thread.is_alive()


# --- sqlite3 ---------------------------------------------------------------------------------------------


def _open_transaction(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction


def _plain(path: Path) -> sqlite3.Connection:
    connection = _opener(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = 2")
    return connection


def test_isolation_level_none_opens_no_transaction_by_itself(tmp_path: Path) -> None:
    connection = _plain(tmp_path / "x")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    assert not _open_transaction(connection)
    connection.close()


def test_commit_returns_after_the_wal_holds_the_transaction(tmp_path: Path) -> None:
    """When COMMIT has returned, a copy of the files as they stand has the row: a crash here loses nothing."""
    connection = _plain(tmp_path / "x")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (1)")
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        if name == "after":
            connection.execute("COMMIT")
        for file in ("x", "x-wal"):
            (tmp_path / name / file).write_bytes((tmp_path / file).read_bytes())
    counts = []
    for name in ("before", "after"):
        copy = sqlite3.connect(tmp_path / name / "x")
        counts.append(copy.execute("SELECT count(*) FROM t").fetchone()[0])
        copy.close()
    assert counts == [0, 1]
    connection.close()


def test_the_wal_file_is_synced_at_every_commit(tmp_path: Path) -> None:
    """FULL in WAL mode: strace would show one fdatasync of the WAL a commit; here, what SQLite says it is set to."""
    connection = _plain(tmp_path / "x")
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    assert not any(o.startswith("NO_SYNC") for o in options)
    connection.close()


def test_a_failed_statement_leaves_its_transaction_open_and_a_full_disk_may_not(tmp_path: Path) -> None:
    """Hence `if connection.in_transaction: ROLLBACK`."""
    connection = _plain(tmp_path / "x")
    connection.execute("CREATE TABLE t (a UNIQUE)")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO t VALUES (1)")
    assert _open_transaction(connection)
    connection.execute("ROLLBACK")
    assert not _open_transaction(connection)
    with pytest.raises(sqlite3.OperationalError, match="no transaction is active"):
        connection.execute("ROLLBACK")
    connection.close()


def test_executescript_runs_what_it_is_given_and_stops_at_the_first_error(tmp_path: Path) -> None:
    connection = _plain(tmp_path / "x")
    with pytest.raises(sqlite3.OperationalError):
        connection.executescript("BEGIN IMMEDIATE; CREATE TABLE a (x); nonsense; COMMIT;")
    assert _open_transaction(connection)
    connection.close()
    connection = _plain(tmp_path / "x")
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    connection.close()


def test_application_id_and_version_are_part_of_the_transaction(tmp_path: Path) -> None:
    connection = _plain(tmp_path / "x")
    connection.execute("BEGIN")
    connection.execute("PRAGMA user_version = 7")
    connection.execute("PRAGMA application_id = 9")
    connection.execute("ROLLBACK")
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 0
    assert connection.execute("PRAGMA application_id").fetchone()[0] == 0
    connection.close()


def test_temporary_tables_are_part_of_the_transaction(tmp_path: Path) -> None:
    connection = _plain(tmp_path / "x")
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE incoming (a)")
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM temp.sqlite_schema").fetchone()[0] == 0
    connection.close()


def test_sqlite_can_do_what_the_schema_needs() -> None:
    assert sqlite3.sqlite_version_info >= (3, 37, 0)  # STRICT; also RETURNING (3.35), UPDATE FROM (3.33)
    assert sqlite3.threadsafety in {1, 3}


def test_flock_is_between_descriptors_and_ends_with_them(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)
