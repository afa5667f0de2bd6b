"""What waits for the disk together: each has its own outcome, all are begun before the first is synced."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchrunner.providers import disk
from batchrunner.providers.disk import Disk, Steps, at_once


def steps(name: str, told: list[str], descriptor: int, folder: Path) -> Steps[str]:
    told.append(f"write {name}")
    yield descriptor
    told.append(f"name {name}")
    yield folder
    told.append(f"end {name}")
    return name


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    found = [os.open(tmp_path / f"{n}.part", os.O_WRONLY | os.O_CREAT) for n in range(3)]
    yield found
    for descriptor in found:
        os.close(descriptor)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is asked of the disk, in order."""
    found: list[object] = []
    fsync, advise = os.fsync, os.posix_fadvise

    def spy_fsync(descriptor: int) -> None:
        found.append(descriptor)
        fsync(descriptor)

    def spy_advise(descriptor: int, *more: int) -> None:
        found.append(("begin", descriptor))
        advise(descriptor, *more)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "posix_fadvise", spy_advise)
    monkeypatch.setattr(disk, "sync_folder", found.append)
    return found


def test_alone(files: list[int], synced: list[object], tmp_path: Path) -> None:
    told: list[str] = []
    assert at_once(steps("a", told, files[0], tmp_path)) == "a"
    assert told == ["write a", "name a", "end a"]
    assert synced == [files[0], tmp_path]


async def test_together(
    files: list[int], synced: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that come while the threads are busy are written, begun, synced and named together; a folder once."""
    monkeypatch.setattr(disk, "THREADS", 1)
    room, told = Disk(), list[str]()
    free = threading.Event()

    def first() -> Steps[None]:
        free.wait()
        yield from ()

    busy = room.run(first())
    waiting = [room.run(steps(name, told, one, tmp_path)) for name, one in zip("abc", files, strict=True)]
    free.set()
    await busy
    assert [await one for one in waiting] == ["a", "b", "c"]
    assert told == [f"{what} {name}" for what in ("write", "name", "end") for name in "abc"]
    assert synced == [*(("begin", one) for one in files), *files, tmp_path]
    room.close()


async def test_each_has_its_own_outcome(files: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file that can't be synced fails alone, at its `yield`; so does one whose steps break."""
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        if descriptor == files[1]:
            raise OSError(errno.EIO, "EIO")
        fsync(descriptor)

    def mended(descriptor: int) -> Steps[str]:
        try:
            yield descriptor
        except OSError as error:
            return f"mended {error.errno}"
        return "whole"

    def bad() -> Steps[None]:
        yield files[0]
        raise ValueError("bad")

    monkeypatch.setattr(os, "fsync", broken)
    room, told = Disk(), list[str]()
    every: list[asyncio.Future[Any]] = [
        room.run(steps("a", told, files[0], tmp_path)),
        room.run(steps("b", told, files[1], tmp_path)),
        room.run(mended(files[1])),
        room.run(bad()),
    ]
    a, b, c, d = await asyncio.gather(*every, return_exceptions=True)
    assert (a, c) == ("a", f"mended {errno.EIO}")
    assert isinstance(b, OSError)
    assert isinstance(d, ValueError)
    assert "name b" not in told
    room.close()


async def test_a_folder_that_cannot_be_synced_fails_everybody_in_it(
    files: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "EIO", str(folder))

    monkeypatch.setattr(disk, "sync_folder", broken)
    room, told = Disk(), list[str]()
    every = [room.run(steps(name, told, one, tmp_path)) for name, one in zip("ab", files, strict=False)]
    assert all(isinstance(error, OSError) for error in await asyncio.gather(*every, return_exceptions=True))
    assert not any(word.startswith("end") for word in told)
    room.close()


async def test_what_has_not_begun_is_taken_back(
    files: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "THREADS", 1)
    room, told = Disk(), list[str]()
    free = threading.Event()

    def first() -> Steps[str]:
        free.wait()
        yield files[0]
        return "first"

    busy, late = room.run(first()), room.run(steps("a", told, files[1], tmp_path))
    late.cancel()
    free.set()
    assert await busy == "first"
    room.close()
    assert told == []


async def test_nobody_hears_of_what_ends_after_it_was_closed(files: list[int]) -> None:
    """A loop that is closed meanwhile is not spoken to."""
    room, free, ended = Disk(), threading.Event(), threading.Event()

    def slow() -> Steps[None]:
        free.wait()
        yield files[0]
        ended.set()

    work = room.run(slow())
    room.close()
    with pytest.raises(asyncio.CancelledError):
        await work
    free.set()
    assert await asyncio.to_thread(ended.wait, 30)


async def test_what_ends_the_process_reaches_everybody(files: list[int]) -> None:
    class Died(BaseException):
        pass

    def dies() -> Steps[None]:
        yield files[0]
        raise Died

    room = Disk()
    with pytest.raises(Died):
        await room.run(dies())
    room.close()
