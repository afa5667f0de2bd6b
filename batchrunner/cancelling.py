"""Asking the service to cancel running tasks, where it can. Nothing is recorded by that: a job stays running until a
poll says how its task ended. So it needs neither the ledger's lock nor a run, and works beside one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .app import read_ledger
from .catalogue import Model, models
from .core.states import State
from .engine.clock import wall
from .engine.words import Done, Skipped
from .environment import THIS_MACHINE, access, connect, kind_of
from .exits import UsageError
from .ledger import naming, queries
from .ledger.address import Address
from .ledger.sql import Row

if TYPE_CHECKING:
    from .providers.base import Provider

AT_ONCE = 8
"""Wishes on the wire at once."""


def cancel_running(
    db: Address, names: Sequence[str], done: Done, known: Mapping[str, Model] | None = None
) -> list[tuple[str, str]]:
    """Ask for the running jobs among those that were named; why one could not be asked for is put into `done.skipped`.

    Args:
        db: the ledger.
        names: as of `cancel`.
        done: what became of the word on pending jobs; its running ones are looked at anew.
        known: the models there are; None for the shipped ones.

    Returns:
        (batch, key) of each job whose service took the wish.
    """
    connection = read_ledger(db)
    if connection is None:
        return []
    try:
        named = [row for name in names for row in naming.find_named(connection, name).rows]
        running = list({row["id"]: row for row in named if row["state"] == State.RUNNING}.values())
        able = {name for name in {row["provider"] for row in running} if _can(name)}
        bound = {name: queries.bound_origin(connection, name) for name in able}
    finally:
        connection.close()
    asked: list[tuple[str, str]] = []
    for provider in sorted(bound):
        rows = [row for row in running if row["provider"] == provider]
        why = _ask(provider, bound[provider], rows, models() if known is None else known)
        told = [(row, why.get(row["id"], "")) for row in rows]
        asked += [(row["batch"], row["key"]) for row, reason in told if not reason]
        here = {(row["batch"], row["key"]) for row in rows}
        done.skipped[:] = [one for one in done.skipped if (one.batch, one.job) not in here]
        done.skipped += [Skipped(row["batch"], row["key"], row["state"], reason) for row, reason in told if reason]
    return asked


def _can(provider: str) -> bool:
    try:
        return kind_of(provider).capabilities.cancel
    except UsageError:
        return False


def _ask(provider: str, bound: str | None, rows: Sequence[Row], known: Mapping[str, Model]) -> dict[int, str]:
    """Why jobs were not asked for, by row id."""
    try:
        kind = kind_of(provider)
        account = connect(kind, access(kind), wall, known)
    except UsageError as error:
        return {row["id"]: f"is running: {error}" for row in rows}
    if bound != (THIS_MACHINE if account.loopback else account.origin):
        return {row["id"]: f"is running at {bound}, and the key is for {account.origin}" for row in rows}
    return asyncio.run(_ask_all(account, rows))


async def _ask_all(account: Provider, rows: Sequence[Row]) -> dict[int, str]:
    from .providers.base import CancelAsked, CancelTooLate

    room = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> str:
        async with room:
            answer = await account.cancel(row["task_id"], row["model"])
        match answer:
            case CancelAsked():
                return ""
            case CancelTooLate(problem=problem):
                return f"is running, and the wish came too late: {problem.message}"
            case _:
                return f"is running, and the service could not be asked: {answer.problem.message}"

    try:
        found = await asyncio.gather(*map(one, rows))
    finally:
        await account.aclose()
    return dict(zip((row["id"] for row in rows), found, strict=True))
