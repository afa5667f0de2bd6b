"""Small still pictures of finished clips, made when a page first shows them, and kept while the server runs."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from ..report import posters
from .looker import Looker

WIDTH = 320
"""Pixels across; one takes 2 to 8 kB."""

KEPT = 2000
"""Stills that are kept: some 10 MB."""


class Stills:
    """Makes one at a time, in a thread of its own: a page full of new clips takes nothing from the facts."""

    def __init__(self, looker: Looker) -> None:
        self._looker = looker
        self._thread = ThreadPoolExecutor(1, "still")
        self._kept: OrderedDict[int, bytes | None] = OrderedDict()

    async def of(self, job_id: int) -> bytes | None:
        """The still of a finished output, as WebP; None where there is none to make. Raises as `Looker.output`."""
        if job_id in self._kept:
            self._kept.move_to_end(job_id)
            return self._kept[job_id]
        found = await self._looker.output(job_id)
        if found is None:
            return None  # the file may come back
        with found[0] as file:
            still = await asyncio.get_running_loop().run_in_executor(self._thread, posters.poster, path_of(file), WIDTH)
        self._kept[job_id] = still
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return still

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(cancel_futures=True)


def path_of(file: BinaryIO) -> Path:
    """A path to a file that is open already: on Linux nobody can put another one in its place."""
    return Path(f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else file.name)
