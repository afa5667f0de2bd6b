"""Giving a verified file its final name, durably, and never over another file.

A file under its final name is complete (promise P3), and so is the sidecar beside it. The order is: the part was
synced by `Fetcher`; the sidecar is written, synced and renamed; the part is renamed; the folder is synced. A
process or a machine may die between any two of these, and `placing` with the same arguments goes on from there:
what exists is recognised by the task id in its sidecar and by its hash.

Of several workers one may be taken for dead while it still writes an output, and another one fetches that output too.
What is on its way is therefore named after its writer, and whoever comes second finds the first one's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from ..core.places import Place
from ..providers.disk import Steps, new_file, write_all
from ..providers.folders import UnsafePath, beneath, ensure_folder, sync_folder
from .rename import give_name

Crash = Callable[[str], None]

_MAX_SIDECAR = 4 << 20


class Occupied(Exception):
    """Another file has that name already. Nothing was written, and the part is still there."""

    def __init__(self, path: Place, why: str) -> None:
        super().__init__(f"{path} exists and is not this job's: {why}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Placed:
    """A file under its final name.

    Attributes:
        path: relative to the output folder, `/` between parts.
        sha256: lower-case hex digest.
        size: in bytes.
        already: it was there before, from an earlier try.
    """

    path: str
    sha256: str
    size: int
    already: bool = False


SIDECAR = ".json"
"""What the name of a sidecar adds to that of its output."""


def _no_crash(point: str) -> None:
    del point


def sidecar_path(target: Path) -> Path:
    """Where the facts about `target` stand: its name plus `.json`."""
    return target.with_name(target.name + SIDECAR)


def part_path(target: Path, writer: str = "") -> Path:
    """Where `target` is while it is on its way, in the same folder: its name plus `.part`, or a short name with its
    writer's, where there may be several."""
    return _passing(target, writer, "part") if writer else target.with_name(target.name + ".part")


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write on the disk of `path`, which need not exist yet.

    Raises:
        OSError: the disk failed.
    """
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def unwritable(folder: Path) -> str | None:
    """Why nothing could be put into `folder`, which need not exist yet; None where it could, as far as one can see
    without writing."""
    here = _existing(folder)
    if not here.is_dir():
        return f"{here} is not a folder; move it away, or change output.dir"
    if not os.access(here, os.W_OK | os.X_OK):
        return f"{here} can't be written to; mend its rights, or change output.dir"
    return None


def _existing(path: Path) -> Path:
    """The nearest of `path` and the folders above it that exists."""
    here = Path(os.path.abspath(path))
    while not here.exists() and here != here.parent:
        here = here.parent
    return here


def precheck(target: Path, ours: Collection[str] = ()) -> str | None:
    """Why `target` can't be used for a new output; None where its name, and its sidecar's, are free or ours.

    For use before a submission: what is paid for should have a place to go. Follows no link; makes nothing.

    Args:
        target: the final name, so far as it is known.
        ours: every task id that this job has had: what an earlier attempt left behind may be replaced, a
            finished file may not.
    """
    if os.path.lexists(target):
        return f"{target} exists already"
    sidecar = sidecar_path(target)
    if os.path.lexists(sidecar) and _task_of(sidecar) not in ours:
        return f"{sidecar} exists already, and is not this job's"
    return None


def find_simulated(target: Path) -> bool:
    """Whether the simulator made what stands at `target`: its sidecar says so, and names these very bytes."""
    facts = _read_sidecar(sidecar_path(target))
    if facts is None or facts.get("simulated") is not True:
        return False
    return not os.path.lexists(target) or _digest(target)[0] == facts.get("sha256")


def free_name(target: Path, word: str) -> Path:
    """A name beside `target` that is free, such as `name.word.mp4` or `name.word2.mp4`."""
    number = 1
    while True:
        name = target.with_name(f"{target.stem}.{word}{number if number > 1 else ''}{target.suffix}")
        if not os.path.lexists(name) and not os.path.lexists(sidecar_path(name)):
            return name
        number += 1


def find_placed(target: Path, root: Path, task_id: str) -> Placed | None:
    """The output of `task_id` where it is complete under its final name from an earlier try; None where not.

    Reads all of the file. Makes it durable once more, for the try before may have died in between.

    Raises:
        UnsafePath, OSError: see `placing`.
    """
    if not os.path.lexists(target):
        return None
    folder = ensure_folder(target.parent, root)
    path, target = _relative(target, root), folder / target.name
    facts = _read_sidecar(sidecar_path(target))
    if facts is None or facts.get("task_id") != task_id:
        return None
    digest, size = _digest(target)
    if not digest or facts.get("sha256") != digest:
        return None
    sync_folder(folder)
    part = part_path(target)
    if os.path.lexists(part) and os.path.samestat(os.lstat(part), os.lstat(target)):
        os.unlink(part)  # the same file by its old name: that try died before it could remove it
    return Placed(path, digest, size, already=True)


def placing(
    part: Path,
    target: Path,
    root: Path,
    sidecar: Mapping[str, Any],
    *,
    replaces: Collection[str] = (),
    writer: str = "",
    crash: Crash = _no_crash,
) -> Steps[Placed]:
    """Rename `part`, which is verified and synced, to `target`, with its sidecar. Idempotent.

    Args:
        part: what `Fetcher.fetch` made; in the target's folder.
        target: the final name, inside `root`.
        root: the batch's output folder.
        sidecar: what to write beside it; must have `task_id`, `sha256` and `bytes`.
        replaces: other task ids of this job, whose orphaned sidecar (without a file) may be replaced.
        writer: who else may be at it has another; empty where nobody may.
        crash: called with `place.sidecar`, `place.renamed`, `place.folder_synced` as each is done.

    Raises:
        Occupied: `target` or its sidecar exists and is somebody else's. It is never overwritten.
        UnsafePath: `target` or `part` is not inside `root`, also by way of a symbolic link.
        OSError: the disk failed or is full, or `part` is not there or not what it was.
    """
    folder = ensure_folder(target.parent, root)
    beside = folder if part.parent == target.parent else ensure_folder(part.parent, root)
    task_id, digest, size = str(sidecar["task_id"]), str(sidecar["sha256"]), int(sidecar["bytes"])
    done = Placed(_relative(target, root), digest, size)
    target, part = folder / target.name, beside / part.name
    if not os.path.lexists(target):
        try:
            yield from _name(part, target, sidecar, replaces, writer, crash)
        except (FileExistsError, FileNotFoundError):
            if not os.path.lexists(target):
                raise
        else:
            return done
    found = find_placed(target, root, task_id)
    if found is None:
        found = yield from _adopt(target, done, sidecar, {task_id, *replaces}, writer)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    yield folder
    return found


def _name(
    part: Path, target: Path, sidecar: Mapping[str, Any], replaces: Collection[str], writer: str, crash: Crash
) -> Steps[None]:
    """Give a part its final name, which was free just now. Raises FileExistsError where it no longer is."""
    size, ours = int(sidecar["bytes"]), {str(sidecar["task_id"]), *replaces}
    if not stat.S_ISREG((about := os.lstat(part)).st_mode) or about.st_size != size:
        raise OSError(errno.EIO, "the downloaded file has changed since it was checked")
    yield from _write_sidecar(sidecar_path(target), sidecar, ours, writer)
    crash("place.sidecar")
    give_name(part, target)
    crash("place.renamed")
    yield target.parent
    crash("place.folder_synced")
    # Only now: a power cut may keep one change of a folder and lose another, and one of the names must last.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)


def sweep(target: Path, root: Path, ours: Collection[str], writer: str = "") -> None:
    """Remove what a run that died while it placed `target` has left of the sidecar, where the file itself is not
    there and may never come. Raises nothing: what can't be removed harms nobody.

    Args:
        target: the final name.
        root: the batch's output folder.
        ours: the task ids of this job.
        writer: see `placing`.
    """
    sidecar = sidecar_path(target)
    temporary = _passing(sidecar, writer, "tmp")
    if os.path.lexists(target) or not any(os.path.lexists(p) for p in (sidecar, temporary)):
        return
    with contextlib.suppress(OSError, UnsafePath):
        folder = ensure_folder(target.parent, root)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / temporary.name)
        if _task_of(folder / sidecar.name) in ours:
            os.unlink(folder / sidecar.name)


def strays(target: Path, writer: str) -> list[Path]:
    """What other writers of `target`, or of its sidecar, have left on its way there: they may be dead, or only late.
    Raises OSError.

    Args:
        target: the final name, or the one it has on its way.
        writer: whose own is left alone.
    """
    prefixes = tuple(_passing_prefix(path) for path in (target, sidecar_path(target)))
    alone = part_path(target).name  # of a run that was the only writer
    with os.scandir(target.parent) as folder:
        names = [one.name for one in folder if one.name == alone or one.name.startswith(prefixes)]
    return [target.with_name(name) for name in names if f"{writer}." not in name]


def _adopt(target: Path, done: Placed, sidecar: Mapping[str, Any], ours: set[str], writer: str) -> Steps[Placed]:
    """The file is there, byte for byte, without a sidecar of ours: a power cut may have taken that one."""
    digest, size = _digest(target)
    if (digest, size) != (done.sha256, done.size):
        raise Occupied(target, "its content is another")
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
    yield from _write_sidecar(sidecar_path(target), sidecar, ours, writer)
    return Placed(done.path, digest, size, already=True)


def _relative(target: Path, root: Path) -> str:
    """Where in the real root a file is, in a folder that was looked at."""
    return beneath(target.parent, root) + target.name


def _open_file(path: Path) -> BufferedReader | None:
    """A regular file to read; None for anything else, or nothing. A link is not followed, a pipe not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOENT, errno.ENXIO, errno.EACCES, errno.EPERM}:
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a regular file; an empty digest for anything else."""
    file = _open_file(path)
    if file is None:
        return "", 0
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


# --- The sidecar -----------------------------------------------------------------------------------------


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    """What stands in a sidecar; None where it is not one, is absent, or is no regular file."""
    file = _open_file(path)
    if file is None:
        return None
    with file:
        try:
            facts = json.loads(file.read(_MAX_SIDECAR))
        except (ValueError, RecursionError):
            return None
    return facts if isinstance(facts, dict) else None


def _task_of(path: Path) -> str | None:
    facts = _read_sidecar(path)
    task = facts.get("task_id") if facts is not None else None
    return task if isinstance(task, str) else None


def _passing(path: Path, writer: str, kind: str) -> Path:
    """A name that is short enough whatever the output is called, and that nobody else would choose."""
    return path.with_name(f"{_passing_prefix(path)}{writer}.{kind}")


def _passing_prefix(path: Path) -> str:
    return f".batchrunner-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def _write_sidecar(path: Path, facts: Mapping[str, Any], ours: Collection[str], writer: str) -> Steps[None]:
    temporary = _passing(path, writer, "tmp")
    descriptor = new_file(temporary)
    try:
        write_all(descriptor, orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        yield descriptor
    finally:
        os.close(descriptor)
    try:
        give_name(temporary, path)
    except FileExistsError:
        if _task_of(path) not in ours:
            raise Occupied(path, "it does not name this job's task") from None
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


__all__ = [
    "Occupied",
    "Placed",
    "UnsafePath",
    "find_placed",
    "find_simulated",
    "free_bytes",
    "free_name",
    "part_path",
    "placing",
    "precheck",
    "sidecar_path",
    "strays",
    "sweep",
    "unwritable",
]
