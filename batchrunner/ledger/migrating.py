"""Making a ledger, or bringing one to this release's schema, on request."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress

from .address import Address, Server
from .connection import open_writer, postgres
from .files import RunLock


def migrate(address: Address) -> tuple[int, int]:
    """Make a ledger, or bring it to this release's schema. Returns its versions before (0 for none) and after.

    Raises:
        LedgerBusy: a run is alive on it. LedgerUnusable: see `open_writer`.
    """
    if isinstance(address, Server):
        with postgres():
            from .postgres import opening
        found = opening.migrate(address)
        with suppress(ImportError):  # what workers share, where there may be workers
            opening.prepare_shared(address)
        return found
    lock = RunLock(address)
    lock.acquire()
    try:
        before = 0
        if address.exists() and address.stat().st_size:
            with closing(sqlite3.connect(f"{address.as_uri()}?mode=ro", uri=True)) as connection:
                before = _version(connection)
        with closing(open_writer(address)) as connection:
            return before, _version(connection)
    finally:
        lock.release()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
