"""Recording the rest of a large new batch while its first jobs are on their way.

All of it was checked before, so that no error can come of it. A part is expanded on the event loop and committed
together with whatever else is to be: a few milliseconds each, in the manifest's order. How much is missing stands in
the ledger (`batch.unrecorded`), in the transaction of each part. A run that dies leaves it there: the next run of the
manifest records it whole, and `resume` knows that there is more than it can see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from ..core.job import JobSpec
from ..ledger.errors import WriteFailed
from ..ledger.store import Ledger
from .ports import Crash


class Feed:
    """The jobs of one batch that are still to be recorded."""

    def __init__(
        self,
        ledger: Ledger,
        crash: Crash,
        batch_id: int,
        jobs: Iterator[JobSpec],
        *,
        position: int,
        left: int,
        part: int,
    ) -> None:
        """Args:
        ledger: where to.
        crash: called with the name of every durable step.
        batch_id: the batch, whose first jobs are recorded.
        jobs: the rest, in the manifest's order.
        position: how many stand before them.
        left: how many they are.
        part: how many go into one transaction.
        """
        self.left = left
        self.over = not left
        """Nothing more comes: all is recorded, or the ledger could not be written."""
        self._ledger = ledger
        self.crash = crash
        self._batch_id = batch_id
        self._jobs = jobs
        self._position = position
        self._part = part

    async def run(self, more: Callable[[], None]) -> None:
        """Record until nothing is left; may be cancelled, and called again. `more` is told of every part.

        Raises:
            WriteFailed: the ledger could not be written; what is missing stays missing, and the ledger says so.
        """
        while not self.over:
            await self._next()
            more()

    async def _next(self) -> None:
        jobs = list(islice(self._jobs, self._part))
        position, self._position = self._position, self._position + len(jobs)
        self.left -= len(jobs)
        try:
            # Whoever is cancelled here has handed it over all the same.
            await self._ledger.append(self._batch_id, jobs, position)
        except WriteFailed:
            self.over = True
            raise
        self.crash("record.part")
        self.over = not self.left
