"""A file that is read by position, a few bytes at a time."""

from __future__ import annotations

import struct
from typing import Protocol


class Source(Protocol):
    """A file that is read by position."""

    size: int

    def at(self, offset: int, count: int) -> bytes:
        """These bytes, all of them. Raises where there are fewer, or after too many reads."""
        ...


def unpack(layout: str, file: Source, offset: int) -> tuple[int, ...]:
    """Numbers at a place of the file, by a `struct` layout. Raises as `Source.at`."""
    return struct.unpack(layout, file.at(offset, struct.calcsize(layout)))
