"""The ledger of a worker: one writer beside others, of the jobs that are handed to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ...core import events as e
from ...core.adaptive import Learned
from ...core.job import Job, JobSpec, Running, State
from ...core.lifecycle import advance
from ...core.pacing import MAX_RETRY_AFTER
from ...core.selection import Selection
from ..address import Server
from ..audit import genuine
from ..errors import Conflict, LedgerUnusable, NotYet
from ..record import BatchSpec
from ..sql import Connection, Row
from ..store import Ledger, Schedule, forget
from ..transitions import Change
from ..writer import Database, Operation, commit_group
from . import doubts, peers, shares, terms
from .database import ServerDatabase, ServerWriter, transaction
from .link import Link
from .meters import Bounds
from .opening import lock_number, open_peer
from .place import place

T = TypeVar("T")

LATE = "late answer"
"""`who` of a task id that came after its worker had been taken for dead."""


def _in_turn(operations: list[Operation[Any]], number: int, link: Link) -> list[Any]:
    """A transaction that waits for its turn first. Several operations are sent in one go: if anything is wrong with one
    of them, each is done alone then, and asks before it writes."""
    claims: dict[str, list[peers.Claim]] = {}
    for one in operations:
        if isinstance(one, peers.Claim):
            claims.setdefault(one.change.job.provider, []).append(one)

    def every(its: Connection) -> list[Any]:
        peers.turn(its, number)
        taken = 0
        for of_one_account in claims.values():
            taken += peers.places(its, of_one_account, taken)
        with link.hurry() if len(operations) > 1 else nullcontext():
            found = [operation(its) for operation in operations]
            for one in operations:
                if isinstance(one, Change) and one.after.state is State.UNCONFIRMED:
                    doubts.doubted(its, one.job.id)
        return found

    [results] = transaction([every], link)
    return list(results)


class SharedLedger(Ledger):
    """A ledger that others write to as well. Made by `SharedLedger.join`.

    Attributes:
        worker: this worker's row; 0 for one who only hands over.
        bounds: what all workers together may do, of accounts that have no others in `own`.
        own: the same by the name of a provider.
        mine: pending jobs that were handed to this one and are not on the wire.
        unwanted: is told of jobs of `mine` that are not to be sent any more.
        aside: is told of those whose models have reached their bounds, with their models, in the manifests' order.
    """

    def __init__(self, database: Database, now: Callable[[], float], server: Server, prune: float, **more: Any) -> None:
        super().__init__(database, now, **more)
        self._database = database
        self._prune = prune
        self._server = server
        self.worker = 0
        self.bounds = Bounds(5.0, 50)
        self.own: dict[str, Bounds] = {}
        self.mine: set[int] = set()
        self.unwanted: Callable[[int], None] = lambda _: None
        self.aside: Callable[[Sequence[tuple[int, str]]], None] = lambda _: None
        self._claiming: set[int] = set()
        self._asking = asyncio.Lock()
        self._next: tuple[set[int], asyncio.Task[dict[int, Row]]] | None = None

    @classmethod
    async def join(cls, server: Server, now: Callable[[], float], prune: float) -> SharedLedger:
        """Open the ledger beside other workers.

        Args:
            server: where it is.
            now: the wall clock, unix seconds.
            prune: seconds without a sign of life after which a worker is taken for dead.

        Raises:
            LedgerBusy: a run has it to itself. LedgerUnusable: see `Ledger.open`.
        """
        number = lock_number(server)

        async def commit(operations: list[Operation[Any]], database: Database) -> list[Any]:
            return await database.run(partial(_in_turn, operations, number))

        class TurnWriter(ServerWriter):
            group = staticmethod(partial(commit_group, commit=commit))

        database = await ServerDatabase.open(server, partial(open_peer, idle=max(1.0, prune / 3.0)))
        try:
            beside = place(database.identity)
        except BaseException:
            await database.close()
            raise
        return cls(database, now, server, prune, writer=TurnWriter, beside=beside)

    def bounds_of(self, provider: str) -> Bounds:
        """What all workers together may do of an account."""
        return self.own.get(provider, self.bounds)

    async def write(self, operation: Operation[T]) -> T:
        """Statements of `peers`, in a transaction of everybody's turn. Raises WriteFailed."""
        return await self._writer.put(operation)

    async def read(self, query: Operation[T]) -> T:
        """A query of `peers`."""
        return await self._writer.read(query)

    def cut(self) -> None:
        """Cut the connection to the server: nothing comes through it any more."""
        link: Any = self._database.connection
        link.cut()

    # --- Transitions -------------------------------------------------------------------------------------

    async def advance(self, job: Job, event: e.Event) -> Job:
        """As `Ledger.advance`; what is claimed is claimed of the account, too.

        Raises:
            NotYet: the account lets nobody send now.
        """
        if isinstance(event, e.Claimed):
            return await self._claim(job, event)
        try:
            after = await super().advance(job, event)
        except Conflict:
            if isinstance(event, e.Accepted):
                return await self._late(job, event)
            raise
        if isinstance(event, e.NotSent | e.Throttled):
            await self.write(partial(terms.give_back, job_id=job.id, attempt=job.fact.attempt))
        if isinstance(event, e.NotSent):
            await self.write(
                partial(peers.give_back, provider=job.provider, model=job.model, bounds=self.bounds_of(job.provider))
            )
        return after

    async def note_lookup(self, job: Job, said: str, who: str) -> None:
        """As `Ledger.note_lookup`; nobody asks again until the batch is left to workers again."""
        now = self._now()
        await self.write(lambda c: doubts.closed(c, job.id, job.fact.attempt, now, said, who))

    async def question(self, job: Job) -> str | None:
        """See `doubts.question`."""
        return await self.read(partial(doubts.question, job_id=job.id))

    async def _claim(self, job: Job, event: e.Claimed) -> Job:
        self._claiming.add(job.id)
        try:
            claimed = await self._claimed(job, event)
            self.mine.discard(job.id)
        finally:
            self._claiming.discard(job.id)
        return claimed

    async def _claimed(self, job: Job, event: e.Claimed) -> Job:
        began = self._moment()
        after = advance(job.fact, event)
        change = Change(job, event, after, job.retries_used, self._now())
        claim = peers.Claim(change, self.worker, self.bounds_of(job.provider))
        wait = await self.write(claim)
        if claim.lapsed:
            raise Conflict(f"job {job.key} is not left to workers any more")
        if wait is not None:
            raise NotYet(wait, claim.bounded)
        # Whoever sleeps between the intent and the POST may find that others have taken him for dead meanwhile.
        while self._since(began) > self._prune / 2.0:
            began = self._moment()
            if not await self.write(partial(_stands, job.id, after.attempt, self.worker)):
                raise Conflict(f"job {job.key} was given up for this worker before it was sent")
        return replace(job, fact=after)

    def _moment(self) -> tuple[float, float]:
        return self._now(), asyncio.get_running_loop().time()

    def _since(self, moment: tuple[float, float]) -> float:
        """Seconds since then, those included in which the process, or the whole machine, was frozen."""
        return max(now - then for now, then in zip(self._moment(), moment, strict=True))

    async def _late(self, job: Job, event: e.Accepted) -> Job:
        """An answer to a submission that others had given up for lost: it settles the doubt."""
        now = (await self.jobs([job.id]))[0]
        if isinstance(now.fact, Running) and now.fact.task_id == event.task_id:
            return now  # whoever asked the service was faster
        if now.state is not State.UNCONFIRMED or now.fact.attempt != job.fact.attempt:
            raise Conflict(f"job {job.key} has gone on without the answer of this submission: task {event.task_id}")
        return await super().advance(now, e.Identified(event.task_id, LATE, "the answer came after all"))

    # --- What is there -----------------------------------------------------------------------------------

    async def pending(
        self,
        batches: Sequence[int],
        selection: Selection,  # noqa: ARG002  workers do all of a batch
        limit: int,
        now: float,
        without: Sequence[tuple[str, int | None]] = (),  # noqa: ARG002  they have no deadline
        provider: str | None = None,
        models: Sequence[str] = (),
    ) -> tuple[list[Job], float | None]:
        """As `Ledger.pending`, of what was handed to this worker."""
        ids = list(self.mine)
        if not ids:
            return [], None

        def ask(connection: Connection) -> tuple[list[Any], float | None, list[int], list[tuple[int, str]]]:
            return (
                peers.due(connection, ids, now, MAX_RETRY_AFTER, limit, models, provider),
                peers.next_due(connection, ids, now, MAX_RETRY_AFTER),
                peers.not_due(connection, ids),
                peers.of_models(connection, ids, models) if models else [],
            )

        rows, next_at, unwanted, aside = await self.read(ask)
        self.aside([one for one in aside if one[0] not in self._claiming])
        for job_id in unwanted:
            if job_id in self.mine and job_id not in self._claiming:  # else it was claimed here while this was read
                self.unwanted(job_id)
        for row in rows:
            if not genuine(row["provider"], row["model"], row["request"], row["fingerprint"]):
                raise LedgerUnusable(f"the request of job {row['key']} is damaged in the ledger; restore a copy")
        ours = set(batches)
        return [self._job(row) for row in rows if row["batch_id"] in ours], next_at

    async def one(self, job_id: int) -> tuple[Job, Schedule] | None:
        """A job as it is now. Those that are asked for while others are read are read together."""
        if self._next is None:
            ids: set[int] = set()
            self._next = ids, asyncio.get_running_loop().create_task(self._several(ids))
        ids, reading = self._next
        ids.add(job_id)
        row = (await asyncio.shield(reading)).get(job_id)
        if row is None:
            return None
        return self._job(row), Schedule(row["id"], row["next_poll_at"] or 0.0, row["polls"], row["updated_at"])

    async def _several(self, ids: set[int]) -> dict[int, Row]:
        async with self._asking:
            self._next = None  # who asks from now on is answered by the next
            return {row["id"]: row for row in await self.read(partial(_several, list(ids)))}

    async def begin(self, batch: BatchSpec, first: Sequence[JobSpec], left: int) -> int | None:  # noqa: ARG002
        """Whoever leaves a batch to workers leaves all of it."""
        return None

    async def record(self, batch: BatchSpec, jobs: Iterable[JobSpec]) -> int:
        return await super().record(batch, list(jobs))

    def save_schedules(self, schedules: Iterable[Schedule]) -> None:
        """Not kept: whoever takes up another's tasks polls them at once, within what may be polled. To keep them would
        be a tenth of what a job costs the server."""

    async def pace(self, provider: str) -> Learned:
        """This worker's part of what the account bears."""
        ask = partial(shares.part, provider=provider, worker=self.worker, within=self._prune)
        return await self.read(ask)

    def save_pace(self, provider: str, learned: Learned) -> None:
        """Keep what the account bears, by what all workers have found; written behind."""
        about: dict[str, Any] = {"provider": provider, "worker": self.worker, "learned": learned}
        save = partial(shares.save, **about, now=self._now(), within=self._prune)
        asyncio.ensure_future(self.write(save)).add_done_callback(forget)

    def save_hold(self, provider: str, until: float) -> None:
        """Keep a hold for all workers, by the database's clock; written behind."""
        sql = f"UPDATE account SET hold_until = greatest(hold_until, {peers.NOW} + ?) WHERE provider = ?"
        self._behind(sql, [(until - self._now(), provider)])


def _stands(job_id: int, attempt: int, worker: int, connection: Connection) -> bool:
    return peers.stands(connection, job_id, attempt, worker)


def _several(ids: list[int], connection: Connection) -> Any:
    return peers.several(connection, ids)
