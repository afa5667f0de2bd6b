"""Group commit: who shares a commit, who fails alone, and what a caller may rely on when it resumes."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.errors import Conflict, WriteFailed
from batchrunner.ledger.writer import (
    MAX_GROUP,
    Database,
    InlineDatabase,
    Operation,
    ThreadDatabase,
    Writer,
    commit_group,
)

T = TypeVar("T")


async def _inline(opener: Callable[[], sqlite3.Connection]) -> Database:
    return InlineDatabase(opener())


class Counted:
    """The real database in its real thread, which counts COMMITs and can be held up."""

    def __init__(self, database: ThreadDatabase) -> None:
        self.database = database
        self.commits = 0
        self.groups: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def connection(self) -> sqlite3.Connection:
        return self.database.connection

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        await self.gate.wait()
        return await self.database.run(function)

    async def close(self) -> None:
        await self.database.close()

    def count(self, sql: str) -> None:
        self.commits += sql == "COMMIT"
        if sql.startswith("BEGIN"):
            self.groups.append(0)
        elif sql.startswith(("INSERT", "UPDATE")):
            self.groups[-1] += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Counted]:
    counted = Counted(await ThreadDatabase.open(partial(open_writer, path)))
    await counted.database.run(lambda c: c.execute("CREATE TABLE t (a INTEGER UNIQUE, fat BLOB)").fetchall())
    await counted.database.run(lambda c: c.set_trace_callback(counted.count))
    yield counted
    await counted.close()


def insert(number: int, size: int = 0) -> Operation[int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?, zeroblob(?))", (number, size))
        return number

    return operation


def fail(error: Exception) -> Operation[None]:
    def operation(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (-1, NULL)")
        raise error

    return operation


def numbers(path: Path) -> list[int]:
    """What another connection sees: what is committed."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]
    finally:
        connection.close()


async def test_a_crowd_shares_commits(database: Counted, path: Path) -> None:
    writer = Writer(database)
    results = await asyncio.gather(*(writer.put(insert(n)) for n in range(300)))
    assert results == list(range(300))
    assert numbers(path) == list(range(300))
    assert database.commits == len(database.groups) <= 3


async def test_a_lone_caller_waits_for_one_commit(database: Counted) -> None:
    writer = Writer(database)
    for n in range(5):
        await writer.put(insert(n))
    assert database.commits == 5
    assert database.groups == [1] * 5


async def test_a_group_is_bounded(database: Counted) -> None:
    writer = Writer(database)
    await asyncio.gather(*(writer.put(insert(n)) for n in range(2 * MAX_GROUP + 1)))
    assert max(database.groups) == MAX_GROUP
    assert sum(database.groups) == 2 * MAX_GROUP + 1


async def test_whoever_resumes_finds_its_own_write_committed(database: Counted, path: Path) -> None:
    writer = Writer(database)
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    async def one(number: int) -> None:
        await writer.put(insert(number))
        assert reader.execute("SELECT count(*) FROM t WHERE a = ?", (number,)).fetchone()[0] == 1

    try:
        await asyncio.gather(*(one(n) for n in range(100)))
    finally:
        reader.close()


async def test_order_is_kept(database: Counted, path: Path) -> None:
    writer = Writer(database)
    waits = [writer.put(insert(1)), writer.put(lambda c: c.execute("UPDATE t SET a = 2 WHERE a = 1").rowcount)]
    waits.append(writer.put(lambda c: c.execute("UPDATE t SET a = 3 WHERE a = 2").rowcount))
    assert await asyncio.gather(*waits) == [1, 1, 1]
    assert numbers(path) == [3]


async def test_a_late_comer_joins_the_next_group(database: Counted) -> None:
    writer = Writer(database)
    database.gate.clear()
    first = asyncio.ensure_future(writer.put(insert(1)))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(writer.put(insert(n))) for n in (2, 3, 4)]
    database.gate.set()
    await asyncio.gather(first, *rest)
    assert database.groups == [1, 3]


# --- Failing alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [Conflict("no"), sqlite3.IntegrityError("no"), KeyError("a bug")], ids=lambda e: type(e).__name__
)
async def test_one_bad_operation_fails_alone(database: Counted, path: Path, error: Exception) -> None:
    writer = Writer(database)
    waits: list[asyncio.Future[Any]] = [writer.put(insert(1)), writer.put(fail(error))]
    waits += [writer.put(insert(2)), writer.put(insert(3))]
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert [results[0], *results[2:]] == [1, 2, 3]
    if isinstance(error, sqlite3.Error):
        assert isinstance(results[1], WriteFailed)
        assert results[1].__cause__ is error
        assert "the ledger could not be written: no" in str(results[1])
    else:
        assert results[1] is error
    assert numbers(path) == [1, 2, 3]
    await writer.put(insert(4))
    assert numbers(path) == [1, 2, 3, 4]


async def test_a_lone_bad_operation_leaves_nothing(database: Counted, path: Path) -> None:
    writer = Writer(database)
    with pytest.raises(Conflict):
        await writer.put(fail(Conflict("no")))
    assert numbers(path) == []
    assert await writer.read(lambda c: c.in_transaction) is False
    await writer.put(insert(1))
    with pytest.raises(WriteFailed, match="UNIQUE"):
        await writer.put(insert(1))
    assert numbers(path) == [1]


async def test_a_bug_in_one_group_does_not_strand_the_next(database: Counted, path: Path) -> None:
    """Whoever queued behind a group that broke down is served, and so is close()."""
    writer = Writer(database)
    broken = asyncio.ensure_future(writer.put(_interrupt))
    await asyncio.sleep(0)
    late = asyncio.ensure_future(writer.put(insert(7)))
    with pytest.raises(SystemError, match="a very bad bug"):
        await broken
    assert await asyncio.wait_for(late, 10) == 7
    assert numbers(path) == [7]


def _interrupt(connection: sqlite3.Connection) -> None:
    raise SystemError("a very bad bug")


async def test_a_database_that_is_gone_fails_everybody(path: Path) -> None:
    database = Counted(await ThreadDatabase.open(partial(open_writer, path)))
    writer = Writer(database)
    await writer.close()
    database.gate.clear()
    first = asyncio.ensure_future(writer.put(insert(1)))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(writer.put(insert(2)))
    database.gate.set()
    for wait in (first, second):
        with pytest.raises(ValueError, match="no active connection"):
            await asyncio.wait_for(wait, 10)


async def test_a_cancelled_writer_leaves_nobody_waiting(database: Counted) -> None:
    writer = Writer(database)
    database.gate.clear()
    first = asyncio.ensure_future(writer.put(insert(1)))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(writer.put(insert(2)))
    assert writer._draining is not None
    writer._draining.cancel()
    for wait in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(wait, 10)
    database.gate.set()
    assert await writer.put(insert(3)) == 3


# --- Cancelling ------------------------------------------------------------------------------------------


async def test_a_cancelled_waiters_operation_still_applies(database: Counted, path: Path) -> None:
    writer = Writer(database)
    database.gate.clear()
    waiting = asyncio.ensure_future(writer.put(insert(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    other = writer.put(insert(2))
    database.gate.set()
    assert await other == 2
    assert numbers(path) == [1, 2]


async def test_a_cancelled_waiter_whose_operation_fails_is_silent(database: Counted) -> None:
    """Nobody is left to hear of it: no "exception was never retrieved" (warnings are errors)."""
    writer = Writer(database)
    database.gate.clear()
    waiting = asyncio.ensure_future(writer.put(fail(Conflict("no"))))
    await asyncio.sleep(0)
    waiting.cancel()
    database.gate.set()
    assert await writer.put(insert(2)) == 2
    del waiting
    gc.collect()


# --- Long work beside short ------------------------------------------------------------------------------


async def test_nothing_touches_the_connection_while_its_thread_does(database: Counted, path: Path) -> None:
    """A read that lasts, whose waiter has gone: what is short waits for the thread all the same."""
    writer = Writer(database)
    started, finish = threading.Event(), threading.Event()
    during: list[bool] = []

    def lasting(connection: sqlite3.Connection) -> None:
        started.set()
        finish.wait(30)
        during.append(connection.in_transaction)

    waiting = asyncio.ensure_future(writer.read(lasting))
    while not started.is_set():
        await asyncio.sleep(0.001)
    waiting.cancel()
    put, look = writer.put(insert(1)), asyncio.ensure_future(writer.glance(lambda c: c.in_transaction))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not put.done()
    assert not look.done()
    finish.set()
    assert await put == 1
    assert await look is False
    assert during == [False]
    assert numbers(path) == [1]


async def test_a_long_operation_is_a_transaction_of_its_own(database: Counted, path: Path) -> None:
    writer = Writer(database)
    results = await asyncio.gather(
        writer.put(insert(1)),
        writer.put_long(insert(2)),
        writer.put_long(fail(Conflict("no"))),
        writer.put(insert(3)),
        return_exceptions=True,
    )
    assert list(results[:2]) == [1, 2]
    assert isinstance(results[2], Conflict)
    assert results[3] == 3
    assert numbers(path) == [1, 2, 3]
    with pytest.raises(WriteFailed, match="UNIQUE"):
        await writer.put_long(insert(2))


async def test_a_cancelled_long_operation_is_finished(database: Counted, path: Path) -> None:
    writer = Writer(database)
    database.gate.clear()
    waiting = asyncio.ensure_future(writer.put_long(insert(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    database.gate.set()
    await writer.put(insert(2))
    assert numbers(path) == [1, 2]


# --- A full disk -----------------------------------------------------------------------------------------


async def test_a_full_disk_and_after(database: Counted, path: Path) -> None:
    writer = Writer(database)
    await writer.put(insert(1))
    pages = await writer.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await writer.read(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 1}").fetchall())
    waits = [writer.put(insert(n, 40_000 if n == 3 else 0)) for n in (2, 3, 4)]
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(results[1], WriteFailed)
    assert "database or disk is full" in str(results[1])
    assert isinstance(results[1].__cause__, sqlite3.OperationalError)
    assert results[1].__cause__.sqlite_errorname == "SQLITE_FULL"
    assert [results[0], results[2]] == [2, 4]  # what still fits is written
    assert numbers(path) == [1, 2, 4]
    await writer.read(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 1000}").fetchall())
    assert await writer.put(insert(3, 40_000)) == 3
    assert numbers(path) == [1, 2, 3, 4]
    assert await writer.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"


@pytest.mark.parametrize("opened", [ThreadDatabase.open, _inline], ids=["thread", "inline"])
async def test_a_commit_that_fails_is_undone(
    path: Path, opened: Callable[[Callable[[], sqlite3.Connection]], Awaitable[Database]]
) -> None:
    """A deferred constraint fails at COMMIT itself; nothing of the transaction may stay open."""
    database = await opened(partial(open_writer, path))
    connection = database.connection
    connection.execute("CREATE TABLE p (a INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE c (a REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    bad: Operation[Any] = lambda c: c.execute("INSERT INTO c VALUES (9)").rowcount  # noqa: E731
    good: Operation[Any] = lambda c: c.execute("INSERT INTO p VALUES (1)").rowcount  # noqa: E731
    first, second = await commit_group([bad, good], database)
    assert isinstance(first, sqlite3.IntegrityError)
    assert second == 1
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM c").fetchone()[0] == 0
    await database.close()


# --- Closing ---------------------------------------------------------------------------------------------


async def test_close_flushes(path: Path) -> None:
    database = Counted(await ThreadDatabase.open(partial(open_writer, path)))
    await database.run(lambda c: c.execute("CREATE TABLE t (a INTEGER UNIQUE, fat BLOB)").fetchall())
    writer = Writer(database)
    waits = [asyncio.ensure_future(writer.put(insert(n))) for n in range(700)]
    await asyncio.sleep(0)
    await writer.close()
    assert all(w.done() for w in waits)
    assert numbers(path) == list(range(700))


async def test_close_without_work(path: Path) -> None:
    writer = Writer(await ThreadDatabase.open(partial(open_writer, path)))
    await writer.close()


async def test_inline_database_behaves_the_same(path: Path) -> None:
    connection = open_writer(path)
    connection.execute("CREATE TABLE t (a INTEGER UNIQUE, fat BLOB)")
    writer = Writer(InlineDatabase(connection))
    results = await asyncio.gather(
        writer.put(insert(1)), writer.put(fail(Conflict("no"))), writer.put(insert(2)), return_exceptions=True
    )
    assert [results[0], results[2]] == [1, 2]
    assert isinstance(results[1], Conflict)
    assert await writer.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]) == 2
    await writer.close()
    assert numbers(path) == [1, 2]
