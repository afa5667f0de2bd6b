"""Writing a file that people asked for: whole or not at all, and never over one that we have not made."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

HEAD = 4096
"""Bytes at the beginning of an existing file that say whose it is."""


class NotOurs(Exception):
    """There is a file of that name that was not made here. Nothing was written."""


def look(path: Path, ours: Callable[[bytes], bool]) -> None:
    """Whether `path` may be written: nothing is there, an empty file, or one that `ours` knows by its first bytes.

    Raises:
        NotOurs: it may not.
        OSError: it can't be looked at.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotOurs(f"{path} is not a file")
        head = os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
    if head and not ours(head):
        raise NotOurs(f"{path} holds something else, and is never overwritten")


def write(path: Path, pieces: Iterable[bytes], ours: Callable[[bytes], bool]) -> int:
    """Write `path` through a temporary file beside it, which takes its place when it is complete and on the disk.

    Args:
        path: where; its folder has to be there.
        pieces: the content.
        ours: see `look`. Looked at last, just before the file is replaced.

    Returns:
        bytes written.

    Raises:
        NotOurs: there is another file of that name.
        OSError: the disk failed, or the folder is not there.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fchmod(descriptor, 0o666 & ~_umask())  # mkstemp's are 0600
            os.fsync(descriptor)
            size = file.tell()
        look(path, ours)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return size


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
