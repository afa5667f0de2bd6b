"""The whole look at a ledger before a run, in a thread, while the manifest is being read.

It takes a second for 100,000 jobs, nearly all of it inside SQLite, which lets the interpreter go meanwhile. It reads
only, takes no lock and makes no file. What it found holds for the run if nobody has committed anything since: SQLite
tells (`PRAGMA data_version`), and it is asked when the run lock is held, after which nobody can.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from . import audit
from .connection import open_reader
from .errors import LedgerUnusable
from .files import runner

SOON = 0.02
"""Seconds within which a look that is not needed any more ends."""


class EarlyLook:
    """A look that begins now. Use it as a context: what is not needed any more is broken off at its end."""

    def __init__(self, path: Path | None) -> None:
        """`path` is None for a ledger that is no file: nothing is looked at early, and nothing is known of it."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._over = threading.Event()
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._sound = False
        self._thread: threading.Thread | None = None
        if path is None or not path.exists():
            return
        if runner(path) is None:  # a ledger that another one writes will have to be looked at again
            self._thread = threading.Thread(target=self._look, name="early look", daemon=True)
            self._thread.start()

    def sound(self) -> bool:
        """Whether the ledger is whole, as it is now. Waits for the look's end, and ends it. The caller holds the
        `RunLock` and has not opened the ledger. False where nothing is known: whoever opens it looks for himself, and
        says what is wrong."""
        self._end(needed=True)
        return self._sound

    def __enter__(self) -> EarlyLook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end(needed=False)

    def _end(self, *, needed: bool) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._asked.put(needed)
        if needed:
            thread.join()
            return
        self._over.set()
        while thread.is_alive():
            connection = self._connection
            if connection is not None:
                with suppress(sqlite3.ProgrammingError):  # it has just been closed
                    connection.interrupt()
            thread.join(SOON)  # again: between two statements nothing is interrupted

    def _look(self) -> None:
        """In the thread: nothing that goes wrong here matters, as it goes wrong again for whoever opens the ledger."""
        try:
            connection = None if self._path is None else open_reader(self._path)
        except (LedgerUnusable, OSError):
            return
        if connection is None:
            return
        self._connection = connection
        try:
            if not self._over.is_set():
                before = _version(connection)
                whole = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
                whole = whole and audit.find(connection) is None
                self._sound = self._asked.get() and whole and _version(connection) == before
        except (sqlite3.Error, UnicodeDecodeError, LedgerUnusable):
            self._sound = False
        finally:
            self._connection = None
            connection.close()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
