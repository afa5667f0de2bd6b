"""Syncs that are shared: each caller's bytes and names are durable when it goes on, and not before."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchrunner.engine import syncs
from batchrunner.engine.syncs import LANES, Steps, Syncs, carry_out, to_the_end


class Disk:
    """A disk whose syncs wait until they are let go. Files and folders are told apart by their names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.broken: set[str] = set()
        self._real = os.fsync
        patch.setattr(os, "fsync", self._fsync)
        patch.setattr(syncs, "sync_folder", lambda folder: self._sync(folder.name))

    def _fsync(self, descriptor: int) -> None:
        self._sync(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def _sync(self, name: str) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=30)
        if name in self.broken:
            raise OSError(errno.EIO, "broken")
        self.synced.append(name)

    def let(self, count: int) -> None:
        for _ in range(count):
            self.go.release()

    async def busy(self) -> None:
        """Until one more sync has begun."""
        assert await asyncio.get_running_loop().run_in_executor(None, lambda: self.begun.acquire(timeout=30))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    descriptors = []

    def make(name: str) -> int:
        descriptors.append(os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT))
        return descriptors[-1]

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


async def test_many_are_synced_and_one_that_fails_fails_alone(disk: Disk, opened: Callable[[str], int]) -> None:
    disk.broken = {"7"}
    disk.let(100)
    shared = Syncs()
    results = await asyncio.gather(
        *(shared.files((opened(str(n)), opened(f"{n}.json"))) for n in range(20)), return_exceptions=True
    )
    assert [n for n, result in enumerate(results) if result is not None] == [7]
    assert isinstance(results[7], OSError)
    assert sorted(disk.synced) == sorted([f"{n}.json" for n in range(20)] + [str(n) for n in range(20) if n != 7])


async def test_nothing_goes_on_before_its_sync_is_done(disk: Disk, opened: Callable[[str], int]) -> None:
    shared = Syncs()
    task = asyncio.create_task(shared.files((opened("a"),)))
    await disk.busy()
    assert not task.done()
    disk.let(1)
    await task
    assert disk.synced == ["a"]


async def test_who_is_cancelled_keeps_the_files_until_no_thread_needs_them(
    disk: Disk, opened: Callable[[str], int]
) -> None:
    shared = Syncs()
    task = asyncio.create_task(shared.files((opened("a"),)))
    await disk.busy()
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    disk.let(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disk.synced == ["a"]


async def test_a_crowd_needs_few_hops(
    disk: Disk, opened: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.let(1000)
    hops: list[int] = []
    real = syncs._sync_each

    def counted(share: list[int]) -> list[OSError | None]:
        hops.append(len(share))
        return real(share)

    monkeypatch.setattr(syncs, "_sync_each", counted)
    shared = Syncs()
    await asyncio.gather(*(shared.files((opened(str(n)),)) for n in range(100)))
    assert sum(hops) == 100
    assert len(hops) < 5 * LANES


async def test_those_who_ask_for_a_folder_meanwhile_share_the_next_sync(disk: Disk, tmp_path: Path) -> None:
    """The one that has begun may not have seen their names."""
    shared = Syncs()
    first = asyncio.create_task(shared.folder(tmp_path))
    await disk.busy()
    late = [asyncio.create_task(shared.folder(tmp_path)) for _ in range(5)]
    await asyncio.sleep(0)
    disk.let(1)
    await first
    assert not any(task.done() for task in late)
    disk.let(1)
    await asyncio.gather(*late)
    assert len(disk.synced) == 2


async def test_a_folder_that_can_not_be_synced(disk: Disk, tmp_path: Path) -> None:
    disk.broken = {tmp_path.name}
    disk.let(1)
    shared = Syncs()
    results = await asyncio.gather(*(shared.folder(tmp_path) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    disk.broken = set()
    disk.let(1)
    await shared.folder(tmp_path)


def _steps(descriptor: int, folder: Path, seen: list[str]) -> Steps[str]:
    try:
        yield (descriptor,)
        seen.append("named")
        yield folder
    except OSError as error:
        seen.append(error.strerror or "")
        raise
    finally:
        seen.append("closed")
    return "done"


@pytest.mark.parametrize("blocking", [True, False])
async def test_steps_stop_at_their_syncs(
    disk: Disk, opened: Callable[[str], int], tmp_path: Path, blocking: bool
) -> None:
    async def go(seen: list[str]) -> str:
        steps = _steps(opened("a"), tmp_path, seen)
        return carry_out(steps) if blocking else await Syncs().carry_out(steps)

    disk.let(10)
    seen: list[str] = []
    assert await go(seen) == "done"
    assert seen == ["named", "closed"]
    assert disk.synced == ["a", tmp_path.name]
    disk.broken = {"a"}
    seen.clear()
    with pytest.raises(OSError, match="broken"):
        await go(seen)
    assert seen == ["broken", "closed"]


async def test_steps_that_are_given_up_are_closed(disk: Disk, opened: Callable[[str], int], tmp_path: Path) -> None:
    seen: list[str] = []
    task = asyncio.create_task(Syncs().carry_out(_steps(opened("a"), tmp_path, seen)))
    await disk.busy()
    task.cancel()
    disk.let(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["closed"]


async def test_work_that_fails_when_nobody_waits_any_more() -> None:
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(to_the_end(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    work.set_exception(OSError("gone"))
    with pytest.raises(asyncio.CancelledError):
        await task
