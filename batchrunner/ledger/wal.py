"""Whether the log beside a ledger is whole, before SQLite opens it.

SQLite reads its log as far as the checksums agree, and drops the rest without a word: right after a power cut, where
the rest was never acknowledged, and wrong where a bit has flipped in what was. A ledger that has silently lost its last
commits would send again what it has paid for. So the log is read first, and what tells of commits behind the break is
believed:

- the index in shared memory (`-shm`), which outlives the process. It counts a commit only after its sync;
- another commit behind the next one: SQLite syncs each before it writes the next, and `settle` the one that a runner
  did not live to sync.

What is left undetected: a break in the last two commits of a log whose index is lost too.
Formats: sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = 24
_INDEX = struct.Struct("=3I2BH2I2I8s2I")
_MAGIC = 0x377F0682
_VERSION = 3007000
_PAGE = 4096
_MASK = 0xFFFFFFFF
_ALONE = 2
"""Commits behind a break from which on it can't be a write that a power cut has torn."""


@dataclass(frozen=True, slots=True)
class _Witness:
    """What the index in shared memory says: so many frames of the log with this salt are committed and synced."""

    frames: int
    page: int
    salt: bytes


def find(ledger: Path) -> str | None:
    """What is wrong with the ledger's log, in words; None for nothing. Takes some 60 us a page of it.

    Call it before SQLite opens the file in this process: closing a descriptor drops SQLite's locks on the index.

    Raises:
        OSError: it can't be read.
    """
    log = ledger.with_name(ledger.name + "-wal")
    if not log.is_file() or log.stat().st_size <= _HEADER.size:
        return None
    witness = _witness(ledger.with_name(ledger.name + "-shm"))
    with log.open("rb") as file:
        return _Log(file.read(), witness).find(log.name)


def settle(ledger: Path) -> None:
    """Make durable what the log has, before anything is written behind it. Call it as `find`.

    A runner may have died between a commit and its sync. SQLite reads that commit all the same, and writes the next
    behind it: power that is lost then could leave the second without the first.

    Raises:
        OSError: it can't be synced.
    """
    with suppress(FileNotFoundError):
        descriptor = os.open(ledger.with_name(ledger.name + "-wal"), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _witness(index: Path) -> _Witness | None:
    """None where the index is not there, or was being changed when its process died."""
    try:
        with index.open("rb") as file:
            data = file.read(2 * _INDEX.size)
    except FileNotFoundError:
        return None
    size = _INDEX.size
    if len(data) < 2 * size or data[:size] != data[size:]:
        return None
    version, _, _, ready, _, page, frames, _, _, _, salt, *sums = _INDEX.unpack(data[:size])
    if version != _VERSION or not ready or not frames:
        return None
    if _checksum((0, 0), data[: size - 8], sys.byteorder) != tuple(sums):
        return None
    return _Witness(frames, 65536 if page == 1 else page, salt)


def _checksum(seed: tuple[int, int], data: bytes, order: str) -> tuple[int, int]:
    first, second = seed
    words = iter(struct.unpack(f"{'<' if order == 'little' else '>'}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


class _Log:
    """A log in memory."""

    def __init__(self, data: bytes, witness: _Witness | None) -> None:
        magic, version, page, _, _, _, *sums = _HEADER.unpack_from(data)
        self._data = data
        self._order = "big" if magic & 1 else "little"
        self._whole = (magic & ~1, version) == (_MAGIC, _VERSION)
        self._whole = self._whole and _checksum((0, 0), data[:24], self._order) == tuple(sums)
        self._salt = data[16:24]
        # An index of an earlier log says nothing of this one, unless the header itself is broken.
        self._witness = witness if witness is not None and not (self._whole and witness.salt != self._salt) else None
        if not self._whole:
            self._order = sys.byteorder
            self._salt = self._witness.salt if self._witness is not None else data[32 + 8 : 32 + 16]
        self._page = self._witness.page if self._witness is not None else page if self._whole else _PAGE
        self._size = _FRAME + self._page
        self._frames = (len(data) - _HEADER.size) // self._size

    def find(self, name: str) -> str | None:
        broken = 0 if not self._whole else next((n for n in range(self._frames) if not self._good(n)), self._frames)
        committed = self._witness.frames if self._witness is not None else 0
        where = f"{name} is damaged at page {broken + 1}" if self._whole else f"the header of {name} is damaged"
        if broken < committed or (not self._whole and committed):
            return f"{where}; {committed} were committed"
        behind = 0
        for number in range(broken, self._frames):
            behind += self._commits(number) and self._good(number)
            if behind == _ALONE:
                return f"{where}, with commits behind it"
        return None

    def _good(self, number: int) -> bool:
        """Whether a frame is whole, as seen from the one before it."""
        at = _HEADER.size + number * self._size
        if self._data[at + 8 : at + 16] != self._salt:
            return False
        before = at - self._size + 16 if number else 24
        seed = struct.unpack_from(">2I", self._data, before)
        found = _checksum(seed, self._data[at : at + 8] + self._data[at + _FRAME : at + self._size], self._order)
        return found == struct.unpack_from(">2I", self._data, at + 16)

    def _commits(self, number: int) -> bool:
        at = _HEADER.size + number * self._size + 4  # the size of the database after a commit, else 0
        return self._data[at : at + 4] != bytes(4)
