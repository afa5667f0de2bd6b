"""The real command line, with something changed first: `python -m tests.powerloss.launcher CHANGE... -- run ...`.

A change is a mutant that the harness must catch, a death at a crash point (`kill:place.renamed:2`), or a setting that
makes a short run do what a long one does (`checkpoints`).
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from batchrunner import app
from batchrunner.engine import files, spool
from batchrunner.ledger import connection, writer
from batchrunner.ledger.transitions import Change
from batchrunner.providers import disk, folders
from tests.crash.mutants import MUTANTS

FULL_AT = 64 * 1024
"""With `full`, no file grows beyond this: less than the ledger's log has by then, and just enough for the spool."""


def _pragma(name: str, value: int) -> None:
    """Another value for a setting of the ledger; nobody is asked to read it back."""
    real = connection._pragma

    def set_pragma(ledger: sqlite3.Connection, asked: str, usual: int | str) -> None:
        real(ledger, asked, value if asked == name else usual)

    setattr(connection, "_pragma", set_pragma)  # noqa: B010


def _normal() -> None:
    """`PRAGMA synchronous=NORMAL`: commits are not synced."""
    _pragma("synchronous", 1)


def _checkpoints() -> None:
    """The log goes into the database every few pages, and starts over: what a night does every thousand."""
    _pragma("wal_autocheckpoint", 10)


def _no_folder_sync() -> None:
    """Names are not made durable."""

    def nothing(folder: Path) -> None:
        del folder

    for room in (disk, files, folders):
        setattr(room, "sync_folder", nothing)  # noqa: B010


class _NoSync(SimpleNamespace):
    """`os`, whose fsync does nothing to files whose names end so."""

    def __init__(self, end: str = "") -> None:
        super().__init__(end=end)

    def __getattr__(self, name: str) -> Any:
        return self._fsync if name == "fsync" else getattr(os, name)

    def _fsync(self, descriptor: int) -> None:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(self.end):
            os.fsync(descriptor)


def _no_part_sync() -> None:
    """An output gets its name before its bytes are durable."""
    setattr(disk, "os", _NoSync(".part"))  # noqa: B010


def _no_sidecar_sync() -> None:
    """A sidecar gets its name before its bytes are durable."""
    setattr(disk, "os", _NoSync(".tmp"))  # noqa: B010


def _no_spool_sync() -> None:
    """An id that the ledger can't take is written beside it, and not synced."""
    setattr(spool, "os", _NoSync())  # noqa: B010


CHANGES: dict[str, Callable[[], None]] = {
    "normal": _normal,
    "checkpoints": _checkpoints,
    "no_folder_sync": _no_folder_sync,
    "no_part_sync": _no_part_sync,
    "no_sidecar_sync": _no_sidecar_sync,
    "no_spool_sync": _no_spool_sync,
    "late_intent": MUTANTS["late_intent"].breaks,
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_sync(n: int) -> None:
    """At the n-th time that a folder should be synced by the outputs' room."""
    real = folders.sync_folder
    left = [n]

    def sync(folder: Path) -> None:
        left[0] -= 1
        if not left[0]:
            _die()
        real(folder)

    folders.sync_folder = sync


def _die_unsynced(event: str) -> None:
    """When the commit of that event stands in the log, and no sync has covered it."""
    real = writer._commit

    async def commit(operations: list[writer.Operation[Any]], ledger: writer.Database) -> list[Any]:
        last = any(isinstance(o, Change) and type(o.event).__name__.lower() == event for o in operations)
        if last:
            ledger.connection.execute("PRAGMA synchronous = 0")
        results = await real(operations, ledger)
        if last:
            _die()
        return results

    setattr(writer, "_commit", commit)  # noqa: B010


def _options(deaths: list[tuple[str, int]], full: int) -> None:
    """Have the run die at the n-th passing of a point; have its disk full when the n-th answer arrives, until the id
    stands in the spool."""
    run = app.run
    passed: Counter[str] = Counter()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def crash(point: str) -> None:
        passed[point] += 1
        if (point, passed[point]) in deaths:
            _die()
        if point == "submit.answered" and passed[point] == full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, hard))

    def changed(options: app.RunOptions, watcher: app.Watcher) -> app.RunResult:
        told = watcher.event

        def event(name: str, job: Any = None, /, **data: Any) -> None:
            told(name, job, **data)
            if name == "unrecorded":
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

        setattr(watcher, "event", event)  # noqa: B010
        return run(replace(options, crash=crash), watcher)

    app.run = changed


def main() -> int:
    words = sys.argv[1:]
    end = words.index("--")
    deaths: list[tuple[str, int]] = []
    full = 0
    for change in words[:end]:
        kind, *rest = change.split(":")
        if kind == "kill":
            deaths.append((rest[0], int(rest[1])))
        elif kind == "kill_at_sync":
            _die_at_sync(int(rest[0]))
        elif kind == "die_unsynced":
            _die_unsynced(rest[0])
        elif kind == "full":
            full = int(rest[0])
        else:
            CHANGES[change]()
    _options(deaths, full)
    from batchrunner.cli import errors

    sys.argv = ["batchrunner", *words[end + 1 :]]
    return errors.main(words[end + 1 :])


if __name__ == "__main__":
    sys.exit(main())
