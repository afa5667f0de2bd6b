"""A batch that was left to workers has ended: one of them tells those whom its manifest names, once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..core.notice import Notice, Sink, restored
from ..engine.ports import Crash, no_crash
from ..ledger import queries
from ..ledger.due import Batch
from ..ledger.errors import LedgerError
from ..ledger.postgres import endings
from ..ledger.postgres.shared import SharedLedger
from ..notify import tell
from ..runs import RunResult

SETTLED = 5.0
"""Seconds that a worker that ends waits for those whom it is telling just then, on top of nothing else to do."""

Words = Callable[[str, RunResult], Notice]
"""What there is to say of a batch, by name, and how it ended."""


class Endings:
    """What one worker sees to. Whoever dies before it has told leaves it to another; one that dies in the middle of
    telling may have been heard: then two notices have the same `ending`."""

    def __init__(
        self,
        ledger: SharedLedger,
        prune: float,
        result: Callable[[Batch], Awaitable[RunResult]],
        words: Words,
        sinks: Sequence[Sink],
        said: Callable[..., None],
        crash: Crash = no_crash,
    ) -> None:
        """
        Args:
            ledger: of this worker.
            prune: seconds without a sign of life after which a worker is taken for dead.
            result: how a batch ended.
            words: what to say.
            sinks: whom this host tells besides (BATCHRUNNER_NOTIFY).
            said: an event, and its data, for who watches the worker.
            crash: called with the name of every durable step; for tests.
        """
        self._ledger = ledger
        self._prune = prune
        self._result = result
        self._words = words
        self._sinks = sinks
        self._said = said
        self._crash = crash
        self._known: set[int] = set()
        self._telling: asyncio.Task[None] | None = None

    async def look(self) -> bool:
        """Tell of what has ended and nobody has told of. Returns whether all that has ended is told; where not,
        another one is at it. Raises LedgerError."""
        over = await self._ledger.read(endings.ended)
        self._known &= over
        for batch in await self._ledger.batches() if over - self._known else []:
            if batch.id in over - self._known:
                await self._see_to(batch)
        return over <= self._known

    async def settle(self) -> None:
        """Wait for those who are being told, before this worker ends."""
        if self._telling is not None and not self._telling.done():
            with suppress(TimeoutError, LedgerError):
                await asyncio.wait_for(asyncio.shield(self._telling), _longest(self._asked) + SETTLED)

    async def _see_to(self, batch: Batch) -> None:
        claim = partial(endings.claim_end, batch=batch.id, worker=self._ledger.worker, within=self._prune)
        ending = await self._ledger.write(claim)
        if ending is None:  # it goes on after all, or is another's; one that dies over it is seen at the next look
            if await self._ledger.read(partial(endings.was_told, batch=batch.id)):
                self._known.add(batch.id)
            return
        self._crash("ending.claimed")
        self._telling = asyncio.get_running_loop().create_task(self._tell(batch, ending), name="telling")
        await asyncio.shield(self._telling)
        self._known.add(batch.id)

    async def _tell(self, batch: Batch, ending: endings.Ending) -> None:
        result = await self._result(batch)
        kept = await self._ledger.query(partial(queries.sinks, names=[batch.name]))
        self._asked = [*dict.fromkeys([*self._sinks, *(sink for _, text in kept for sink in restored(text))])]
        notice = self._words(batch.name, result)
        facts: dict[str, Any] = {
            **notice.facts,
            "worker": self._ledger.worker,
            "ending": f"{ending.ledger}/{batch.name}/{ending.submissions}",
        }
        failures = await tell(self._asked, replace(notice, facts=facts), os.environ)
        self._crash("ending.heard")
        self._said("batch_ended", batch=batch.name, exit_code=result.exit_code, title=notice.title, not_told=failures)
        with suppress(LedgerError):  # then another one tells again
            await self._ledger.write(partial(endings.told, ending=ending))
            self._crash("ending.noted")

    _asked: Sequence[Sink] = ()


def _longest(sinks: Sequence[Sink]) -> float:
    return max((sink.patience for sink in sinks), default=0.0)
