"""One writer with group commit: many transitions, one fsync, each caller resumes after its own commit.

There is no timer. Whoever finds the writer free commits everything that has queued meanwhile, so a lone caller waits
for one commit and a crowd shares them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import aiosqlite

from .errors import LedgerUnusable, WriteFailed

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Statements inside the writer's transaction. May run twice: once in a group, and alone if the group fails."""

MAX_GROUP = 512
"""Most operations in one transaction: bounds how long the first of them waits for its fsync."""


class Database(Protocol):
    """Runs a function with the writing connection, one at a time, in order."""

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T: ...
    async def close(self) -> None: ...


class ThreadDatabase:
    """The connection in aiosqlite's thread, so that an fsync never stops the event loop."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, opener: Callable[[], sqlite3.Connection]) -> ThreadDatabase:
        connection = aiosqlite.Connection(opener, iter_chunk_size=256)
        try:
            return cls(await connection)
        except BaseException:
            connection._thread.join()  # told to end; left alone it may find the loop closed, and print a traceback
            raise

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        # The public methods of aiosqlite cross to the thread once a statement; a group commit crosses once a group
        # (9 times faster, PERFORMANCE.md). tests/unit/test_library_facts.py holds this method to what we need of it.
        result: T = await self._connection._execute(function, self._connection._conn)  # type: ignore[no-untyped-call]
        return result

    async def close(self) -> None:
        await self._connection.close()


class InlineDatabase:
    """The connection in the event loop: for tests on virtual time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return function(self._connection)

    async def close(self) -> None:
        self._connection.close()


def commit_group(operations: list[Operation[Any]], connection: sqlite3.Connection) -> list[Any]:
    """Run the operations in one transaction and commit it. If anything fails, nothing of it stays, and each is run and
    committed alone: one bad statement, or a bug in one operation, must not fail its neighbours.

    Returns:
        for each operation its result, or the exception that it alone raised.
    """
    try:
        return _commit(operations, connection)
    except Exception as error:  # noqa: BLE001  handed to the caller whose operation it was
        if len(operations) == 1:
            return [error]
    results: list[Any] = []
    for operation in operations:
        try:
            results += _commit([operation], connection)
        except Exception as error:  # noqa: BLE001
            results.append(error)
    return results


def _commit(operations: list[Operation[Any]], connection: sqlite3.Connection) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


class Writer:
    """Queues operations and commits them in groups."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._draining: asyncio.Task[None] | None = None

    def put(self, operation: Operation[T]) -> Awaitable[T]:
        """Queue an operation. What comes back resolves when its own commit is durable.

        Cancelling the wait does not take the operation back.

        Raises (when awaited):
            WriteFailed: SQLite could not write; nothing of it stays.
            LedgerError: what the operation itself raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((operation, future))
        if self._draining is None:
            self._draining = loop.create_task(self._drain())
        return asyncio.shield(future)

    async def read(self, query: Operation[T]) -> T:
        """Run a query on the writing connection: it sees everything that is committed.

        Raises:
            LedgerUnusable: SQLite could not read it, or what it read makes no sense: the file is damaged.
        """
        try:
            return await self._database.run(query)
        except (sqlite3.Error, ValueError, IndexError) as error:
            raise LedgerUnusable(f"the ledger can't be read ({error}); keep it, and restore a copy") from error

    async def close(self) -> None:
        """Commit what is queued, then close the connection."""
        while self._draining is not None:
            await asyncio.wait([self._draining])
        await self._database.close()

    async def _drain(self) -> None:
        try:
            while self._queue:
                group, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
                operations = [operation for operation, _ in group]
                try:
                    results = await self._database.run(partial(commit_group, operations))
                except Exception as error:  # noqa: BLE001  the database itself is gone: everybody in the group hears it
                    results = [error] * len(group)
                except BaseException:
                    for _, future in group + self._queue:
                        future.cancel()
                    self._queue = []
                    raise
                for (_, future), result in zip(group, results, strict=True):
                    _settle(future, result)
        finally:
            self._draining = None


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if isinstance(result, sqlite3.Error | UnicodeDecodeError):  # the second: SQLite quotes a damaged schema
        failed = WriteFailed(f"the ledger could not be written: {result}")
        failed.__cause__ = result
        result = failed
    if isinstance(result, BaseException):
        future.set_exception(result)
        future.exception()  # a caller may have gone (write-behind); the error is still raised to whoever awaits
    else:
        future.set_result(result)
