"""Where the socket of a ledger is, and whose it must be.

A unix socket's address holds 107 bytes (unix(7)), which a deep folder alone can exceed. On Linux the folder is opened
instead, and the address is `/proc/self/fd/N/NAME`, whatever the folder's own name: the process need not change its
current folder, and what the folder's path leads to can't change between two looks.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LONGEST_NAME = 80
"""Bytes of a socket's name that fit behind `/proc/self/fd/N/`."""


class Unsafe(Exception):
    """What stands in the socket's place is not ours; it is left alone. The message says what it is."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: process and user, by the kernel's word (SO_PEERCRED)."""

    pid: int
    uid: int

    @property
    def name(self) -> str:
        """The user's name, for the history of jobs."""
        import pwd

        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    @property
    def trusted(self) -> bool:
        """Whether it is this process's own user."""
        return self.uid == os.geteuid()


def socket_name(ledger: Path) -> str:
    """The socket's name in the ledger's folder: `<ledger>.sock`, or a hash of the ledger's name where that is long."""
    name = f"{ledger.name}.sock"
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    return f".{hashlib.sha256(os.fsencode(ledger.name)).hexdigest()[:24]}.sock"


@dataclass(frozen=True, slots=True)
class Place:
    """The socket's place: an open folder, and a name in it."""

    folder: int
    name: str
    path: Path

    @property
    def address(self) -> str:
        """What to bind or connect to."""
        return f"/proc/self/fd/{self.folder}/{self.name}" if sys.platform == "linux" else str(self.path)

    def look(self) -> os.stat_result | None:
        """What stands there; None for nothing.

        Raises:
            Unsafe: something that is no socket of this user.
        """
        try:
            found = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISSOCK(found.st_mode):
            raise Unsafe(f"{self.path} is in the way, and is no socket; move it")
        if found.st_uid != os.geteuid():
            raise Unsafe(f"{self.path} belongs to another user (uid {found.st_uid})")
        return found

    def remove(self, only: os.stat_result | None = None) -> None:
        """Take the socket away, where one is (only that one, where one is given). Raises as `look`."""
        found = self.look()
        if found is None or (only is not None and (found.st_dev, found.st_ino) != (only.st_dev, only.st_ino)):
            return
        os.unlink(self.name, dir_fd=self.folder)


@contextmanager
def place_of(ledger: Path) -> Iterator[Place]:
    """The place of a ledger's socket. Raises OSError where the folder can't be opened."""
    folder = os.open(ledger.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = socket_name(ledger)
    try:
        yield Place(folder, name, ledger.with_name(name))
    finally:
        os.close(folder)


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end of a connection. Where the system does not say (not Linux), the folder's and the socket's
    permissions have to do: then it is this user."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return Peer(0, os.geteuid())
    size = struct.calcsize("3i")
    pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, size))
    return Peer(pid, uid)
