"""The last resort for a received task id that SQLite can't commit (disk full, I/O error).

A small file beside the ledger, written full of zeros and fsynced before the first submission, so that appending to it
needs no new disk block: a preallocated file could still be written on a full filesystem where SQLite answered
SQLITE_FULL (FAILURES.md). Each record is one line of JSON with a checksum; recovery applies it first of all.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

SIZE = 64 * 1024
"""Bytes preallocated: some 400 ids, far more than POSTs can be in flight."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A task id that was read and may not be in the ledger."""

    job_id: int
    attempt: int
    task_id: str


def read(data: bytes) -> list[Spooled]:
    """The intact records of a spool; a torn or foreign line is left out."""
    return [record for record in map(_record, _lines(data)) if record is not None]


def damaged(data: bytes) -> list[str]:
    """What else stands in a spool, torn by a crash or damaged since: it may show the id of a task."""
    return [line.decode("latin-1") for line in _lines(data) if _record(line) is None]


def _lines(data: bytes) -> list[bytes]:
    # Nearly all of it is the zeros behind the last record: they are no lines to look at one by one.
    return [line for line in data.rstrip(b"\0").replace(b"\0", b"\n").split(b"\n") if line]


def _record(line: bytes) -> Spooled | None:
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        job_id, attempt, task_id = json.loads(body)
        return Spooled(int(job_id), int(attempt), str(task_id))
    except (ValueError, TypeError):
        return None


class Spool:
    """The spool file of one ledger; opened by the run that holds the ledger's lock."""

    def __init__(self, ledger: Path) -> None:
        """
        Raises:
            OSError: it can't be made; then nothing may be submitted.
        """
        self.path = ledger.with_name(ledger.name + ".spool")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            data = os.pread(self._fd, max(SIZE, os.fstat(self._fd).st_size), 0)
            if len(data) < SIZE:
                self._write(b"\0" * (SIZE - len(data)), len(data))
                _sync_folder(self.path.parent)
        except OSError:
            os.close(self._fd)
            raise
        self.found, self.damaged = read(data), damaged(data)
        """What an earlier run had to leave here, and what can't be read of it any more."""
        self._end = len(data.rstrip(b"\0"))

    def append(self, spooled: Spooled) -> None:
        """Make a record durable.

        Raises:
            OSError: it could not be written.
        """
        body = json.dumps([spooled.job_id, spooled.attempt, spooled.task_id]).encode()
        # It begins a line of its own also behind one that a crash has torn.
        line = b"\n%08x %s\n" % (zlib.crc32(body), body)
        self._write(line, self._end)
        self._end += len(line)

    def clear(self) -> None:
        """Forget everything: all of it is in the ledger."""
        if self._end:
            self._write(b"\0" * self._end, 0)
            self._end = 0
        self.found, self.damaged = [], []

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, data: bytes, offset: int) -> None:
        """Write all of it, durably; a disk that takes only a part of it is full."""
        if os.pwrite(self._fd, data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
