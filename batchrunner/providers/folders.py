"""Folders below an output folder: made durably, and never through a symlink that leads out of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class UnsafePath(Exception):
    """A path leads out of the output folder, or is not what it should be. Nothing was written."""


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_durable: set[Path] = set()
"""Folders whose names, up to the root, this process has made durable."""


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
    parts = Path(os.path.abspath(folder)).parts
    base = Path(os.path.abspath(root)).parts
    if parts[: len(base)] != base or ".." in folder.parts[len(root.parts) :]:
        raise UnsafePath(f"{folder} is not inside {root}")
    _make(Path(root))
    real_root = Path(os.path.realpath(root))
    here = real_root
    for part in parts[len(base) :]:
        # One step at a time, so that nothing is made behind a link before the link has been looked at.
        here = Path(os.path.realpath(here / part))
        if here != real_root and real_root not in here.parents:
            raise UnsafePath(f"{folder} leads out of {root} through a symbolic link")
        _make(here)
        if not here.is_dir():
            raise UnsafePath(f"{here} is not a folder")
    if not here.is_dir():
        raise UnsafePath(f"{here} is not a folder")
    return here
