"""Syncs, shared: whatever waits is made durable together, as the ledger commits in groups.

An output needs two or three syncs, and a thread for each cost more than the disk did: every one had to win the
interpreter's lock back from a busy loop. So the quick calls (open, write, link) are made on the loop, and only what
waits for the disk is handed to a few threads, which take all that has queued meanwhile. There is no timer. Several at
a time, because a filesystem merges the journal commits and the flushes of syncs that it is asked for together.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

from ..providers.folders import sync_folder

T = TypeVar("T")

Wanted = tuple[int, ...] | Path
"""What is to be made durable before the next step: the bytes behind open descriptors, or the names in a folder."""

Steps = Generator[Wanted, None, T]
"""Work on the disk that stops wherever something must be durable before it goes on, and returns what became of it."""

LANES = 4
"""Threads that sync files."""


async def to_the_end(work: asyncio.Future[T]) -> T:
    """What `work` returns; when cancelled only once it is over, for a thread goes on with what it was given."""
    gone: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as cancelled:
            gone = cancelled
    if gone is not None:
        if not work.cancelled():
            work.exception()  # seen
        raise gone
    return work.result()


def carry_out(steps: Steps[T]) -> T:
    """Do all of it here and now, and block. Raises what the steps raise."""
    try:
        wanted = next(steps)
        while True:
            try:
                if isinstance(wanted, Path):
                    sync_folder(wanted)
                else:
                    _sync(wanted)
            except OSError as error:
                wanted = steps.throw(error)
            else:
                wanted = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


def _sync(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def _sync_each(descriptors: Sequence[int]) -> list[OSError | None]:
    """The error of each, None where it is durable."""
    results: list[OSError | None] = []
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError as error:
            results.append(error)
        else:
            results.append(None)
    return results


class Syncs:
    """The syncs of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._next: dict[Path, asyncio.Task[None]] = {}
        self._running: dict[Path, asyncio.Task[None]] = {}

    async def carry_out(self, steps: Steps[T]) -> T:
        """Do the steps on the loop, and wait for the syncs between them. Raises what the steps raise; cancelled, it
        closes them."""
        try:
            wanted = next(steps)
            while True:
                try:
                    if isinstance(wanted, Path):
                        await self.folder(wanted)
                    else:
                        await self.files(wanted)
                except OSError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            steps.close()

    async def files(self, descriptors: Sequence[int]) -> None:
        """Make the bytes behind open descriptors durable. Ends only when no thread needs them any more, so that the
        caller may close them; also when it is cancelled.

        Raises:
            OSError: the disk failed; what it said of the first that it failed for.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in descriptors]
        self._waiting.extend(zip(descriptors, futures, strict=True))
        while len(self._lanes) < min(LANES, len(self._waiting)):
            lane = loop.create_task(self._lane())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        await to_the_end(asyncio.gather(*futures, return_exceptions=True))
        for future in futures:
            future.result()

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            share = [self._waiting.popleft() for _ in range(-(-len(self._waiting) // LANES))]
            try:
                results = await loop.run_in_executor(None, _sync_each, [descriptor for descriptor, _ in share])
            except BaseException:  # the loop ends: nobody may wait for what will not come
                for _, future in (*share, *self._waiting):
                    future.cancel()
                self._waiting.clear()
                raise
            for (_, future), error in zip(share, results, strict=True):
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    async def folder(self, folder: Path) -> None:
        """Make the names in a folder durable. One sync that begins after several have asked covers them all.

        Raises:
            OSError: the disk failed.
        """
        task = self._next.get(folder)
        if task is None:
            task = self._next[folder] = asyncio.get_running_loop().create_task(self._folder(folder))
        await asyncio.shield(task)

    async def _folder(self, folder: Path) -> None:
        before = self._running.get(folder)
        if before is not None:
            await asyncio.wait([before])
        # Whoever asks from here on may have made a name that this sync does not see.
        self._running[folder] = self._next.pop(folder)
        try:
            await asyncio.get_running_loop().run_in_executor(None, sync_folder, folder)
        finally:
            if self._running.get(folder) is asyncio.current_task():
                del self._running[folder]
