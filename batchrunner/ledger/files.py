"""The ledger's files: who may open them, and the lock that keeps a second runner out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from .errors import LedgerBusy, LedgerUnusable

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ceph", "glusterfs"}
)
"""Filesystem types on which SQLite's WAL (shared memory) and flock can't be trusted (sqlite.org/wal.html)."""


def filesystem_type(path: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the filesystem that holds `path`, such as `ext4`; empty where the system doesn't say (not Linux)."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        fields = line.split()
        mount = fields[1].replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def check_file(path: Path) -> bool:
    """Whether the ledger exists. Refuses what must not be opened.

    Raises:
        LedgerUnusable: a symlink, not a regular file, another user's, or on a network filesystem.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        info = None
    except OSError as error:
        raise LedgerUnusable(f"{path}: {error.strerror}") from None
    if info is not None:
        if stat.S_ISLNK(info.st_mode):
            raise LedgerUnusable(f"{path} is a symbolic link; name the file itself with --db")
        if not stat.S_ISREG(info.st_mode):
            raise LedgerUnusable(f"{path} is not a file; name another one with --db")
        if info.st_uid != os.geteuid():
            raise LedgerUnusable(
                f"{path} belongs to another user (uid {info.st_uid}); run as that user or use another --db"
            )
    kind = filesystem_type(path.parent)
    if kind in NETWORK_FILESYSTEMS:
        raise LedgerUnusable(f"{path} is on a network filesystem ({kind}), where commits can be lost; use a local --db")
    return info is not None


def create_private(path: Path) -> None:
    """Create an empty ledger file of mode 0600 where there is none. Called before SQLite opens it, never after:
    closing a descriptor of an open database drops SQLite's locks (sqlite.org/howtocorrupt.html, 2.2)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise LedgerUnusable(f"can't create {path}: {error.strerror}; choose another place with --db") from None


def runner(ledger: Path) -> str | None:
    """The process that holds the run lock, without taking it: a run that starts just now must not be turned away. None
    where nobody does; empty where the system doesn't say (not Linux)."""
    try:
        inode = os.stat(f"{ledger}.lock").st_ino
    except OSError:
        return None
    try:
        locks = Path("/proc/locks").read_text("ascii", "replace")
    except OSError:
        return ""
    for line in locks.splitlines():
        fields = line.split()
        if "FLOCK" in fields and any(f.count(":") == 2 and f.rsplit(":", 1)[1] == str(inode) for f in fields):
            return fields[4]
    return None


class RunLock:
    """`flock` on `<ledger>.lock`: one runner at a time. The system drops it when the process dies."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(ledger.name + ".lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            LedgerBusy: another runner holds it.
            LedgerUnusable: the lock file can't be made.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnusable(f"can't open {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 64, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                who = f" (process {holder})" if holder.isdigit() else ""
                raise LedgerBusy(
                    f"another batchrunner{who} holds {self.path.with_suffix('')}; wait for it with --wait-lock 10m"
                ) from None
            raise LedgerUnusable(f"can't lock {self.path}: {error.strerror}") from None
        with contextlib.suppress(OSError):  # a full disk: who holds it is a convenience, holding it is not
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
