"""Waiting for the disk, many together: small files are written by two threads and synced in groups.

What has to be durable before the next step is taken says so by yielding it: a descriptor for a file's bytes, a path for
a folder's names. So the steps of one file read from top to bottom, and those of many go on side by side: all are
written, then all are synced, and so on. The filesystem's own log is written once a group instead of once a file (ext4:
100 us of kernel CPU for an output and its sidecar instead of 250), and few threads fight the event loop for the
interpreter. As with the ledger's commits there is no timer: whoever finds a thread free takes everybody along who
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .folders import sync_folder

T = TypeVar("T")

Steps = Generator[int | Path, None, T]
"""Work that waits for the disk: yields descriptors and folders, and goes on when they are durable. Raises at its
`yield` where they can't be."""

THREADS = 2
"""While one group waits for the disk the next is written."""

MOST = 64
"""Most of them in one group: bounds how long the first waits for the last."""


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


_Outcome = _Done | Exception


def new_file(path: Path) -> int:
    """A descriptor of a new, empty file to write; one that an earlier try has left there is removed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o644)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, also where the system takes some only. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def at_once(steps: Steps[T]) -> T:
    """Do it here, alone. Blocks. Raises what the steps raise."""
    [outcome] = _together([steps])
    if isinstance(outcome, Exception):
        raise outcome
    value: T = outcome.value
    return value


class Disk:
    """The threads, and who waits for them. Use it on one event loop, and close it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "disk")
        self._waiting: list[tuple[Steps[Any], asyncio.Future[Any]]] = []
        self._working: set[asyncio.Future[list[_Outcome]]] = set()

    def run(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Do it together with whatever else waits. Cancelling the wait takes back what has not begun, and nothing
        else. Raises (when awaited) what the steps raise."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((steps, future))
        if len(self._working) < THREADS:
            self._next()
        return future

    def close(self) -> None:
        """End the threads after what they have begun; nobody hears of it any more."""
        for work in self._working:
            work.cancel()
        self._threads.shutdown(wait=False)

    def _next(self) -> None:
        waiting = [one for one in self._waiting if not one[1].done()]
        group, self._waiting = waiting[:MOST], waiting[MOST:]
        if not group:
            return
        work = asyncio.get_running_loop().run_in_executor(self._threads, _together, [steps for steps, _ in group])
        self._working.add(work)
        work.add_done_callback(partial(self._ended, [future for _, future in group]))

    def _ended(self, futures: Sequence[asyncio.Future[Any]], work: asyncio.Future[list[_Outcome]]) -> None:
        self._working.discard(work)
        if work.cancelled():
            for future in futures:
                future.cancel()
            return
        self._next()
        broken = work.exception()  # what is no `Exception` ends the process, and whoever else was in the group
        outcomes = [broken] * len(futures) if broken is not None else work.result()
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, _Done):
                future.set_result(outcome.value)
            else:
                future.set_exception(outcome)


def _together(every: Sequence[Steps[Any]]) -> list[_Outcome]:
    """Do them side by side, each to its end."""
    outcomes: dict[int, _Outcome] = {}
    going: dict[int, OSError | None] = dict.fromkeys(range(len(every)))
    while going:
        asked: dict[int, int | Path] = {}
        for number, error in going.items():
            steps = every[number]
            try:
                asked[number] = next(steps) if error is None else steps.throw(error)
            except StopIteration as end:
                outcomes[number] = _Done(end.value)
            except Exception as failed:  # noqa: BLE001  raised where the outcome is waited for
                outcomes[number] = failed
        going = _synced(asked)
    return [outcomes[number] for number in range(len(every))]


def _synced(asked: dict[int, int | Path]) -> dict[int, OSError | None]:
    """Sync what is asked for: for each asker, what went wrong."""
    files = {number: wanted for number, wanted in asked.items() if isinstance(wanted, int)}
    if len(files) > 1:
        for descriptor in files.values():
            _begin(descriptor)
    found = {number: _tried(os.fsync, descriptor) for number, descriptor in files.items()}
    folders = {number: wanted for number, wanted in asked.items() if isinstance(wanted, Path)}
    each = {folder: _tried(sync_folder, folder) for folder in dict.fromkeys(folders.values())}
    return found | {number: each[folder] for number, folder in folders.items()}


def _begin(descriptor: int) -> None:
    """Begin to write a file's bytes without waiting for them, so that the first `fsync` finds them all on their way:
    Linux does so for pages that are said not to be needed. A hint, whose failure costs nothing: each is synced."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _tried(sync: Callable[[Any], None], wanted: int | Path) -> OSError | None:
    try:
        sync(wanted)
    except OSError as error:
        return error
    return None
