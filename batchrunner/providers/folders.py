"""Folders below an output folder: made durably, and never through a symlink that leads out of it."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path


class UnsafePath(Exception):
    """A path leads out of the output folder, or is not what it should be. Nothing was written."""


class _Sync:
    """The syncs of one folder, shared: one that begins after several names were made covers them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._asked = 0
        self._done = 0
        self._failed = 0
        self._error: OSError | None = None

    def wait(self) -> None:
        """Return when a sync that began after this call has ended. Raises what it raised."""
        with self._counting:
            self._asked = mine = self._asked + 1
        with self._turn:
            if self._done < mine:
                upto = self._asked
                try:
                    _sync(self._folder)
                except OSError as error:
                    self._failed, self._error = upto, error
                self._done = upto
            if self._error is not None and mine <= self._failed:
                raise OSError(self._error.errno, self._error.strerror, self._error.filename)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_syncs: dict[Path, _Sync] = {}


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable. Blocks; threads that ask at the same time share the sync.

    Raises:
        OSError: the disk failed.
    """
    _syncs.setdefault(folder, _Sync(folder)).wait()


_durable: set[Path] = set()
"""Folders whose names, up to the root, this process has made durable."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The real path that `ensure_folder` gave, where in the real root that is, and the device and inode it had."""

    real: Path
    beneath: str
    identity: tuple[int, int]


_known: dict[tuple[Path, Path], _Known] = {}
"""By folder and root."""


def forget() -> None:
    """Know nothing, as a new process does."""
    for memory in (_durable, _known, _syncs):
        memory.clear()


def _make(folder: Path) -> None:
    """`mkdir -p`, every folder on the way durable in its parent. One that is there already may be the work of a run
    that died before it could sync the parent: it is made durable too, once in this process."""
    missing: list[Path] = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = folder.parent
    if folder not in _durable:
        for above in Path(os.path.realpath(folder)).parents:
            with contextlib.suppress(PermissionError):  # where we may not look, we have made nothing
                sync_folder(above)
        _durable.add(folder)
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir()
        sync_folder(each.parent)
        _durable.add(each)


def ensure_folder(folder: Path, root: Path) -> Path:
    """Make `folder` and `root` if need be, and return the real path of `folder`, which lies inside the real `root`.

    `root` is the user's choice and may be a symlink; below it, a symlink may not lead out.

    Args:
        folder: `root` or below it.
        root: the batch's output folder.

    Raises:
        UnsafePath: `folder` is not inside, or something on the way is not a folder.
        OSError: the disk failed.
    """
    if (known := _known.get((folder, root))) is not None:
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(known.real)
            if (about.st_dev, about.st_ino) == known.identity:
                return known.real  # still the folder that was looked at, whatever leads to it
    real, top = _look(folder, root)
    about = os.stat(real)
    beneath = "" if real == top else f"{real.relative_to(top).as_posix()}/"
    _known[folder, root] = _Known(real, beneath, (about.st_dev, about.st_ino))
    return real


def beneath(folder: Path, root: Path) -> str:
    """Where in the real root the folder is that `ensure_folder` gave for these two: "", or a path with a `/` at its
    end."""
    return _known[folder, root].beneath


def _look(folder: Path, root: Path) -> tuple[Path, Path]:
    """The real paths of both."""
    parts = Path(os.path.abspath(folder)).parts
    base = Path(os.path.abspath(root)).parts
    if parts[: len(base)] != base or ".." in folder.parts[len(root.parts) :]:
        raise UnsafePath(f"{folder} is not inside {root}")
    _make(Path(root))
    here = top = Path(os.path.realpath(root))
    for part in parts[len(base) :]:
        # One step at a time, so that nothing is made behind a link before the link has been looked at.
        here = Path(os.path.realpath(here / part))
        if here != top and top not in here.parents:
            raise UnsafePath(f"{folder} leads out of {root} through a symbolic link")
        _make(here)
        if not here.is_dir():
            raise UnsafePath(f"{here} is not a folder")
    if not here.is_dir():
        raise UnsafePath(f"{here} is not a folder")
    return here, top
