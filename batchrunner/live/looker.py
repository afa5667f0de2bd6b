"""Looks into the ledger for the page: read-only, in one thread of its own, whether a run is alive or not."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..engine.clock import wall
from ..ledger import gallery, naming, queries
from ..ledger import workers as crew
from ..ledger.address import Address, Server
from ..ledger.connection import open_reader
from ..ledger.errors import LedgerUnusable
from ..ledger.sql import Connection

T = TypeVar("T")

BATCHES = 20
"""Batches on the page: the newest."""

PAGE = 24
"""Outputs on a page of the grid."""

LAST_PAGE = 10_000

TROUBLES = 5
"""Failed and unconfirmed jobs that are shown for a batch."""

SILENT = 5.0
"""Seconds without a sign of life from which a page says so; a worker gives one every second."""

PROMPT = 300
"""Characters of a prompt that are shown."""

KINDS = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
}
"""What is served, by the ending of its file."""


class Looker:
    """Answers from one ledger, which may not be there yet, and may be made anew under our eyes."""

    def __init__(self, ledger: Address, batch: str | None = None) -> None:
        self._path = ledger
        self._batch = batch
        self._thread = ThreadPoolExecutor(1, "looker")
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None

    async def ask(self, question: Callable[[Connection], T], nothing: T) -> T:
        """The answer to a question; `nothing` where there is no ledger.

        Raises:
            LedgerUnusable: there is one that can't be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question, nothing)

    async def close(self) -> None:
        """Let the ledger go."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown()

    def _ask(self, question: Callable[[Connection], T], nothing: T) -> T:
        try:
            connection = self._open()
            return nothing if connection is None else question(connection)
        except sqlite3.Error as error:
            self._drop()
            raise LedgerUnusable(f"the ledger can't be read ({error})") from error

    def _open(self) -> Connection | None:
        if isinstance(self._path, Server):
            if self._connection is None:
                self._connection = open_reader(self._path)
            return self._connection
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            self._drop()
            return None
        if self._file != (found.st_dev, found.st_ino):
            self._drop()
        if self._connection is None:
            self._connection = open_reader(self._path)
            self._file = (found.st_dev, found.st_ino)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None

    # --- Questions ---------------------------------------------------------------------------------------

    async def statuses(self) -> list[dict[str, Any]]:
        """`status` of the newest batches, the newest first."""
        return await self.ask(lambda c: statuses(c, self._batch), [])

    async def snapshot(self) -> dict[str, Any]:
        """Everything that the page shows but the grid. A ledger that can't be read is an `error`."""
        batches: list[dict[str, Any]]
        try:
            batches = await self.ask(lambda c: [self._with_trouble(c, one) for one in statuses(c, self._batch)], [])
            workers = await self.workers()
        except LedgerUnusable as error:
            return {"error": str(error), "batches": []}
        return {"error": None, "batches": batches, **({"workers": list(map(_steady, workers))} if workers else {})}

    async def workers(self) -> list[dict[str, Any]]:
        """Workers that have not ended."""
        return await self.ask(crew.workers, [])

    async def grid(self, batch: str | None, page: int) -> list[dict[str, Any]]:
        """A page of finished outputs, the newest first."""
        asked = self._batch or batch
        return await self.ask(lambda c: [_tile(job) for job in gallery.finished(c, asked, PAGE, page * PAGE)], [])

    async def output(self, job_id: int) -> tuple[BinaryIO, str] | None:
        """A finished output, open for reading, and its media type; None where there is no such file."""
        return await self.ask(lambda c: self._output(c, job_id), None)

    @staticmethod
    def _with_trouble(connection: Connection, one: dict[str, Any]) -> dict[str, Any]:
        bad = gallery.trouble(connection, one["batch"], TROUBLES)
        return {**one, "trouble": [{key: job[key] for key in ("job", "state", "error")} for job in bad]}

    @staticmethod
    def _output(connection: Connection, job_id: int) -> tuple[BinaryIO, str] | None:
        found = gallery.output(connection, job_id)
        if found is None:
            return None
        folder, file = found
        kind = KINDS.get(file.suffix.lower())
        if kind is None or not _inside(folder, file):
            return None
        opened = _open_regular(file)
        return None if opened is None else (opened, kind)


def statuses(connection: Connection, batch: str | None = None) -> list[dict[str, Any]]:
    """`status` of one batch, or of the newest ones, the newest first."""
    names = naming.batch_names(connection)
    wanted = [n for n in names if n == batch] if batch else names[: -BATCHES - 1 : -1]
    found = (queries.status(connection, name, wall()) for name in wanted)
    return crew.with_workers(connection, [one for one in found if one is not None])


def _steady(worker: dict[str, Any]) -> dict[str, Any]:
    """A worker as the page shows it: one that gives its signs of life says nothing new by that."""
    silent = worker["silent_seconds"]
    return {**worker, "silent_seconds": round(silent) if silent >= SILENT else 0}


def _inside(folder: Path, file: Path) -> bool:
    return os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)


def _open_regular(file: Path) -> BinaryIO | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb", buffering=0)


def _tile(job: dict[str, Any]) -> dict[str, Any]:
    """What the grid shows of an output."""
    kind = KINDS.get(os.path.splitext(job["output"] or "")[1].lower(), "")
    return {
        **{key: job[key] for key in ("id", "job", "batch", "model", "credits", "current", "revision")},
        "kind": kind.partition("/")[0],
        "prompt": str(job["request"].get("prompt", ""))[:PROMPT],
        "bytes": job["bytes"],
        "warnings": (job["media"] or {}).get("warnings", []),
        "at": job["updated_at"],
    }
