"""One writer with group commit: many transitions, one fsync, each caller resumes after its own commit.

There is no timer. Whoever finds the writer free commits everything that has queued meanwhile, so a lone caller waits
for one commit and a crowd shares them.

Statements that touch a few rows by key take some 10 us and run on the event loop; what waits for the disk (the commit)
or takes long (a manifest, a page of rows) runs in the connection's own thread. To run every statement there costs more
than the statements: each gives up the interpreter's lock and has to get it back from a busy loop (measured: 60 futex
calls a transition). One lock keeps the two apart: nothing touches the connection while its thread does.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import aiosqlite

from .errors import LedgerUnusable, WriteFailed
from .sql import Connection

T = TypeVar("T")
Operation = Callable[[Any], T]
"""Statements inside the writer's transaction, on its `sql.Connection`. May run twice: once in a group, and alone if the
group fails."""

Commit = Callable[[list[Operation[Any]], "Database"], Coroutine[Any, Any, list[Any]]]
"""Runs operations in one transaction."""

MAX_GROUP = 128
"""Most operations in one transaction: bounds how long the first of them waits, and how long the loop is busy."""


class Gone(sqlite3.OperationalError):
    """The database can't be reached: no use in trying each operation alone."""


class Database(Protocol):
    """The writing connection, and a thread of its own."""

    @property
    def connection(self) -> Connection:
        """For short statements on the event loop, while `run` runs nothing."""

    async def run(self, function: Callable[[Any], T]) -> T:
        """Run a function with the connection off the event loop, one at a time, in order."""

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

    @property
    def connection(self) -> sqlite3.Connection:
        """See `Database`. Raises ValueError when it is closed."""
        return self._connection._conn

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
        self.connection = connection

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return function(self.connection)

    async def close(self) -> None:
        self.connection.close()


async def commit_group(operations: list[Operation[Any]], database: Database, commit: Commit | None = None) -> list[Any]:
    """Run the operations in one transaction and commit it. If anything fails, nothing of it stays, and each is run and
    committed alone: one bad statement, or a bug in one operation, must not fail its neighbours.

    Args:
        operations: what to run.
        database: what with.
        commit: runs operations in one transaction; None for SQLite's.

    Returns:
        for each operation its result, or the exception that it alone raised. If the database itself is gone, all of
        them have that error.
    """
    commit = commit or _commit
    try:
        return await commit(operations, database)
    except Exception as error:  # noqa: BLE001  handed to the caller whose operation it was
        if len(operations) == 1 or isinstance(error, Gone):
            return [error] * len(operations)
    results: list[Any] = []
    for operation in operations:
        try:
            results += await commit([operation], database)
        except Exception as error:  # noqa: BLE001
            results.append(error)
    return results


async def _commit(operations: list[Operation[Any]], database: Database) -> list[Any]:
    connection = database.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [operation(connection) for operation in operations]
        await database.run(_end)
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _end(connection: Connection) -> None:
    connection.execute("COMMIT")


def _whole(operation: Operation[T], connection: Connection) -> T:
    """A transaction of its own."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = operation(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


class Writer:
    """Queues operations and commits them in groups."""

    group = staticmethod(commit_group)

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._draining: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def put(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queue a short operation. What comes back resolves when its own commit is durable.

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
        return future

    async def put_long(self, operation: Operation[T]) -> T:
        """Do an operation that takes long in a transaction of its own, off the loop.

        Raises: as `put`.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            _settle(future, await self._alone(lambda: self._database.run(partial(_whole, operation))))
        except Exception as error:  # noqa: BLE001  raised by the future, as `put` does
            _settle(future, error)
        return await future

    async def glance(self, query: Operation[T]) -> T:
        """Read a few rows by key.

        Raises:
            LedgerUnusable: SQLite could not read it, or what it read makes no sense: the file is damaged.
        """
        async with self._turn:
            with _readable():
                return query(self._database.connection)

    async def read(self, query: Operation[T]) -> T:
        """Run a query of any length, off the loop. It sees everything that is committed. Raises as `glance`."""
        with _readable():
            return await self._alone(lambda: self._database.run(query))

    async def close(self) -> None:
        """Commit what is queued, then close the connection."""
        while self._draining is not None:
            await asyncio.wait([self._draining])
        async with self._turn:
            await self._database.close()

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Work with the connection to the end, also where nobody waits for it any more: a cancelled wait must not let
        anybody else in while the thread is still busy."""
        await self._turn.acquire()
        task = asyncio.ensure_future(work())
        task.add_done_callback(self._next)
        return await asyncio.shield(task)

    def _next(self, done: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not done.cancelled():
            done.exception()  # seen, also where the waiter has gone

    async def _drain(self) -> None:
        group: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        try:
            while self._queue:
                async with self._turn:
                    pass  # whatever queues while another has its turn shares the commit
                group, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
                operations = [operation for operation, _ in group]
                try:
                    results = await self._alone(partial(self.group, operations, self._database))
                except Exception as error:  # noqa: BLE001  the database itself is gone: everybody in the group hears it
                    results = [error] * len(group)
                for (_, future), result in zip(group, results, strict=True):
                    _settle(future, result)
        except BaseException:
            for _, future in group + self._queue:
                future.cancel()
            self._queue = []
            raise
        finally:
            self._draining = None


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, IndexError) as error:
        raise LedgerUnusable(f"the ledger can't be read ({error}); keep it, and restore a copy") from error


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.cancelled():
        return  # nobody waits any more; what was asked for is done all the same
    if isinstance(result, sqlite3.Error | UnicodeDecodeError):  # the second: SQLite quotes a damaged schema
        failed = WriteFailed(f"the ledger could not be written: {result}")
        failed.__cause__ = result
        result = failed
    if isinstance(result, BaseException):
        future.set_exception(result)
        future.exception()  # a caller may have gone (write-behind); the error is still raised to whoever awaits
    else:
        future.set_result(result)
