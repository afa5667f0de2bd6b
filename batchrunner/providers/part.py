"""The file that a download is written to, until it is whole: hashed, checked and synced; then whoever asked for it goes
on with it, in the same thread."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..core.media import Facts
from . import media
from .disk import Steps, new_file, write_all
from .folders import ensure_folder

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete, checked and synced `.part` file.

    Attributes:
        size: in bytes.
        sha256: lower-case hex digest.
        extension: of what came, with its dot.
        container: such as `MP4`.
        facts: what its headers say of what is in it.
    """

    size: int
    sha256: str
    extension: str
    container: str
    facts: Facts = field(default=Facts())


def itself(fetched: Fetched) -> Steps[Fetched]:
    """For `Part.finish`: nothing more is done with it."""
    yield from ()
    return fetched


class Part:
    """The `.part` file. Its methods run in threads, one at a time; `discard` may come from anywhere, at any time."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = root
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._made = self._gone = False
        self.size = 0

    def _open(self) -> None:
        folder = ensure_folder(self._path.parent, self._root)
        self._path = folder / self._path.name
        self._descriptor = new_file(self._path)
        self._made = True

    def write(self, chunks: list[bytes]) -> None:
        """Append; the first time makes the file."""
        with self._lock:
            if self._gone:
                return
            if not self._made:
                self._open()
            for chunk in chunks:
                write_all(self._descriptor, chunk)
                self._hash.update(chunk)  # releases the GIL
                self.size += len(chunk)

    def finish(self, chunks: list[bytes], kind: str, whole: bool, then: Callable[[Fetched], Steps[_T]]) -> Steps[_T]:
        """The last bytes, the check, the sync, and what the caller does with a finished part, which is its own from
        then on. Raises what `media.check` and `then` do, and OSError."""
        alone = not self._made
        self.write(chunks)
        with self._lock:
            if self._gone:
                raise OSError(errno.ECANCELED, "the download was given up", str(self._path))
            found = media.check(b"".join(chunks) if alone else self._path, kind, whole=whole)
            yield self._descriptor
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            self._gone, self._made = True, False
        fetched = Fetched(self.size, self._hash.hexdigest(), found.extension, found.container, found.facts)
        return (yield from then(fetched))

    def discard(self) -> None:
        """Close and remove it, after the write that is under way (a megabyte or so)."""
        with self._lock:
            self._gone = True
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            if self._made:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
