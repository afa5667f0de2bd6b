"""The writer's database where it is a server: every statement is a round trip, so all of them run off the event loop,
and a transaction that a lost connection undid is begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ..address import Server
from ..sql import Connection
from ..writer import Database, Operation, Writer, commit_group
from .link import Again, Link, Lost
from .opening import identity, open_writer

T = TypeVar("T")

TRIES = 5
"""Most times that a transaction is begun before its error is the caller's."""


class ServerDatabase:
    """A link in a thread of its own."""

    def __init__(self, link: Link, thread: ThreadPoolExecutor, name: str) -> None:
        self._link = link
        self._thread = thread
        self.identity = name

    @classmethod
    async def open(cls, server: Server, opener: Callable[[Server], Link] = open_writer) -> ServerDatabase:
        """Raises as `open_writer`."""
        thread = ThreadPoolExecutor(1, "ledger")

        def opened() -> tuple[Link, str]:
            link = opener(server)
            return link, identity(link)

        try:
            link, name = await asyncio.get_running_loop().run_in_executor(thread, opened)
        except BaseException:
            thread.shutdown()
            raise
        return cls(link, thread, name)

    @property
    def connection(self) -> Connection:
        """See `Database`."""
        return self._link

    async def run(self, function: Callable[[Connection], T]) -> T:
        """A function that only reads; it runs again where the connection was lost."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _tried, self._link, function)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._link.close)
        self._thread.shutdown(wait=False)


def _tried(link: Link, function: Callable[[Connection], T]) -> T:
    """Run a function to its end, which a lost connection or a deadlock may take several tries.

    Raises:
        sqlite3.Error: see `Link.run`. Whatever the function raises.
    """
    for left in reversed(range(TRIES)):
        try:
            return function(link)
        except Lost:
            if not left:
                raise
            link.reopen()
        except Again:
            if not left:
                raise
    raise AssertionError


def transaction(operations: list[Operation[Any]], link: Connection) -> list[Any]:
    """All of them, or none; what each gave."""
    link.execute("BEGIN IMMEDIATE")
    try:
        results = [operation(link) for operation in operations]
        link.execute("COMMIT")
    except BaseException:
        if link.in_transaction:
            link.execute("ROLLBACK")
        raise
    return results


async def _commit(operations: list[Operation[Any]], database: Database) -> list[Any]:
    return await database.run(partial(transaction, operations))


class ServerWriter(Writer):
    """As `Writer`, off the loop."""

    group = staticmethod(partial(commit_group, commit=_commit))

    async def put_long(self, operation: Operation[T]) -> T:
        return await self.put(operation)

    async def glance(self, query: Operation[T]) -> T:
        return await self.read(query)
