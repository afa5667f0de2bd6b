"""`--metrics-file`: the metrics as a file for node-exporter's textfile collector, while a run is alive and after it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from ..exits import UsageError
from ..ledger.address import Address
from ..ledger.connection import open_reader
from ..ledger.errors import LedgerUnusable
from .looker import statuses
from .metrics import exposition

EVERY = 15.0
"""Seconds between two writings; node-exporter is scraped about as often."""


class MetricsFile:
    """Keeps the file up to date while the context is open, and writes it a last time at the end.

    It reads the ledger itself, in a thread of its own: a run knows nothing of it. A file that can't be written any more
    costs the metrics, never the run; that is told once.
    """

    def __init__(self, path: Path, ledger: Address, tell: Callable[[str], None]) -> None:
        self._path = path
        self._ledger = ledger
        self._tell = tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> MetricsFile:
        """
        Raises:
            UsageError: the file can't be written, or the library is not there.
        """
        try:
            self._write()
        except OSError as error:
            raise UsageError(f"--metrics-file {self._path}: {error.strerror or error}") from None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        told = False
        while True:
            last = self._over.wait(EVERY)
            try:
                self._write()
                told = False
            except OSError as error:
                if not told:
                    self._tell(f"the metrics file {self._path} can't be written: {error.strerror or error}")
                told = True
            if last:
                return

    def _write(self) -> None:
        text = exposition(self._statuses())
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)  # node-exporter is another user
            os.replace(name, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def _statuses(self) -> list[dict[str, object]]:
        import sqlite3

        try:
            connection = open_reader(self._ledger)
            if connection is None:
                return []
            with closing(connection):
                return statuses(connection)
        except (LedgerUnusable, sqlite3.Error):  # the run itself says what is wrong with it
            return []
