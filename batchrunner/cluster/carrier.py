"""A run over the jobs that are handed to it one by one: the engine as it is, without a beginning and an end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.job import TERMINAL, Job, State
from ..core.polling import Latencies
from ..engine.account import Account, Share
from ..engine.control import AT_ONCE, Branch, Control, Stop
from ..engine.ports import Batch, Deps, Settings, Work
from ..engine.runner import Runner
from ..ledger.postgres.shared import SharedLedger
from .dispatch import Later, queue

ENDS = TERMINAL | {State.UNCONFIRMED}
"""States in which nobody can do anything for a job but a person."""

LATER = 30
"""Seconds until a job is handed out again that could not be sent for want of money, or by this worker."""

SOON = 5
"""The same of one that has to wait for a bound of its model, where others can take its place."""

AHEAD = 12
"""Jobs of an account that a worker has in hand beside those in flight: the next to be sent, and what is being
downloaded."""

AGAIN = 300.0
"""Seconds after which one of several accounts that a worker stopped sending to (a refused key, no credit, the breaker)
is tried again. Where it has but one it ends, and whoever starts it again decides that."""


async def _nothing(*_: Any) -> None:
    pass


class Standing(Control):
    """The switches of a worker. A batch without money does not stop it: there are others."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.broke: Callable[[], None] = lambda: None

    def halt(self, reason: Stop, message: str) -> None:
        if reason is Stop.BUDGET:
            self.broke()
        else:
            super().halt(reason, message)


@dataclass(slots=True)
class _Handed:
    """A job in these hands."""

    batch_id: int
    account: Account
    state: State
    over: asyncio.Future[Later | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Carrier(Runner):
    """A runner of what is handed to it. Its batches are those of the jobs in its hands.

    Args:
        deps: whose `observe` and `moved` have to call `told` and `moved`.
        control: its `broke` is set.
        settings: bounds of this worker.
        ledger: of this worker.
        batches: the batches in hand; this list is the run's, and is changed.
        latencies: what is known of how long tasks take.
        shares: the accounts whose jobs it does.
        part: `all`, `submit` or `download`: what it does.
    """

    def __init__(
        self,
        deps: Deps,
        control: Standing,
        settings: Settings,
        ledger: SharedLedger,
        latencies: Latencies,
        shares: Sequence[Share],
        part: str,
    ) -> None:
        self._batches: list[Batch] = []
        super().__init__(deps, control, settings, Work(self._batches), latencies, shares=shares)
        self._ledger = ledger
        self._part = part
        self._hands: dict[int, _Handed] = {}
        self._resting: set[str] = set()
        self._knowing = asyncio.Lock()
        self.leaving = False
        """It takes nothing more, and ends when its hands are empty."""
        control.broke = self._broke
        ledger.unwanted = self._let_go
        ledger.aside = self._set_aside
        self.bind: Callable[[str], Awaitable[None]] = _nothing
        """Called with the provider of every job that is taken."""
        self.know: Callable[[], Awaitable[None]] = _nothing
        """Called when a batch comes in hand: what it says of limits holds from its first job on."""

    # --- In and out --------------------------------------------------------------------------------------

    async def carry(self, job_id: int) -> None:
        """Do what there is to do for a job, until nothing more is. May be cancelled; then the job stays in hand.

        Raises:
            Later: it is to be handed out again.
        """
        handed = self._hands.get(job_id)
        if handed is None:
            handed = await self._take(job_id)
        if handed is not None and (later := await asyncio.shield(handed.over)) is not None:
            raise later

    async def look_again(self) -> None:
        """What manifests say of batches may be another since; and batches that are done are no concern any more."""
        found = {batch.id: batch for batch in await self._ledger.batches()}
        in_hand = {handed.batch_id for handed in self._hands.values()}
        self._batches[:] = [found[one] for one in sorted(in_hand)]

    @property
    def in_hand(self) -> int:
        """Jobs that it has."""
        return len(self._hands)

    def in_hand_of(self, provider: str) -> int:
        """Jobs of a provider that it has."""
        return sum(handed.account.name == provider for handed in self._hands.values())

    @property
    def serving(self) -> list[str]:
        """The providers to whom it sends, and has not stopped to."""
        return [account.name for account in self._accounts if account.control.submitting]

    def bound(self, in_flight: Mapping[str, int], total: int, polls: Mapping[str, float]) -> None:
        """Other bounds of this worker: tasks in flight of each account and of all; the part of the polls of each that
        are its own. What all workers may send is in the ledger."""
        for account in self._accounts:
            bounds = self._ledger.bounds_of(account.name)
            rate = 60.0 * bounds.submits
            account.pacer.poll_at_most(bounds.polls_per_minute)
            account.pacer.rebound(rate, in_flight[account.name], polls[account.name])
        if self._total is not None and self._rate is not None:
            self._total.limit = total
            self._rate.per_minute = sum(60.0 * self._ledger.bounds_of(a.name).submits for a in self._accounts)
        self.control.wake_all()

    async def _take(self, job_id: int) -> _Handed | None:
        if self.control.ended:
            await asyncio.get_running_loop().create_future()  # until it is given back, with what is in hand
        found = await self._ledger.one(job_id)
        if found is None or job_id in self._hands:
            return self._hands.get(job_id)
        job, schedule = found
        consent = await self._ledger.question(job) if job.state is State.UNCONFIRMED else None
        if job.state is State.SUBMITTING or (job.state in ENDS and consent is None):
            return None  # of the first, whoever sends it takes care, or the sweeper
        account = self._of(job)
        if consent is not None and (account is None or not account.lookups.possible or account.control.ended):
            raise Later(LATER)
        if account is None or (job.state is State.PENDING and not account.control.submitting):
            raise Later(LATER)
        if job.state is State.RUNNING and account.control.ended:
            raise Later(LATER)
        if job.state is State.DOWNLOADING and self._part == "submit":
            raise Later(0, queue(job.provider, "download"))
        await self.bind(job.provider)
        await self._know(job.batch_id)
        handed = self._hands[job_id] = _Handed(job.batch_id, account, job.state)
        match job.state:
            case State.PENDING:
                self._ledger.mine.add(job_id)
                account.submitter.more()
            case State.UNCONFIRMED:
                account.lookups.ask(job, consent or "")
            case State.RUNNING:
                account.slots.take(job.model)
                account.poller.resume(job, schedule)
            case _:
                self._downloads.add(job)
        return handed

    async def _know(self, batch_id: int) -> None:
        """Have the batch of a job."""
        if any(batch.id == batch_id for batch in self._batches):
            return
        async with self._knowing:  # its first jobs come together
            if not any(batch.id == batch_id for batch in self._batches):
                await self._learn(batch_id)

    async def _learn(self, batch_id: int) -> None:
        found = {batch.id: batch for batch in await self._ledger.batches()}
        in_hand = {handed.batch_id for handed in self._hands.values()} | {batch_id}
        await self.know()
        self._batches[:] = [found[one] for one in sorted(in_hand)]

    def _let_go(self, job_id: int, later: Later | None = None) -> None:
        """Have a job no longer."""
        self._ledger.mine.discard(job_id)
        handed = self._hands.pop(job_id, None)
        if handed is not None and not handed.over.done():
            handed.over.set_result(later)
        if not self._hands:
            self._wake.notify()

    def held(self, holds: Mapping[str, float]) -> None:
        """Others were told by these providers to wait for so many seconds."""
        for account in self._accounts:
            if (seconds := holds.get(account.name, 0.0)) > 0.0:
                account.control.held(seconds)

    def _set_aside(self, jobs: Sequence[tuple[int, str]]) -> None:
        """Jobs whose models have reached their bounds: with full hands, no more of them are kept than can be sent until
        they are handed out again."""
        kept: Counter[str] = Counter()
        for job_id, model in jobs:
            account = self._hands[job_id].account
            if self.in_hand_of(account.name) < account.slots.limit + AHEAD:
                return
            bounds = self._ledger.bounds_of(account.name).models
            kept[model] += 1
            rate = bounds[model].submits_per_minute if model in bounds else None
            if kept[model] > AHEAD + SOON * (rate or 0.0) / 60.0:
                self._let_go(job_id, Later(SOON))

    def leave(self) -> None:
        """Take nothing more, and end when its hands are empty."""
        self.leaving = True
        self._wake.notify()

    # --- What happens ------------------------------------------------------------------------------------

    def told(self, event: str, job: Job | None, data: dict[str, Any]) -> None:
        """Something happened to a job."""
        if job is None or (handed := self._hands.get(job.id)) is None:
            return
        if event == "left_behind":
            self._let_go(job.id, Later(LATER))
        elif "state" in data:
            handed.state = job.state
            self._goes_on(job)

    def _goes_on(self, job: Job) -> None:
        account = self._hands[job.id].account
        if job.state is State.UNCONFIRMED and account.lookups.possible and not account.control.ended:
            self._ledger.mine.discard(job.id)  # it is asked for: `_asked`
        elif job.state in ENDS:
            self._let_go(job.id)
        elif job.state is State.PENDING:
            if account.control.submitting:
                self._ledger.mine.add(job.id)
            elif not self.control.ended:
                self._let_go(job.id, Later(LATER))
        else:
            self._ledger.mine.discard(job.id)
            if job.state is State.RUNNING and _gone(account):
                self._let_go(job.id, Later(LATER))

    def _asked(self, job: Job) -> None:
        handed = self._hands.get(job.id)
        if handed is not None and handed.state is State.UNCONFIRMED:
            self._let_go(job.id)

    def moved(self, job: Job) -> None:
        """Another worker has it."""
        self._let_go(job.id)

    def stopped(self) -> None:
        """Nothing more is sent by this worker, or to one of several accounts: others may. Where it ends at once, all
        that it has is given back with its end, and not a while later."""
        if self.control.ended:
            return
        for job_id, handed in list(self._hands.items()):
            account = handed.account
            mine = job_id in self._ledger.mine and not account.control.submitting
            if mine or (handed.state in {State.RUNNING, State.UNCONFIRMED} and _gone(account)):
                self._let_go(job_id, Later(LATER))
        for account in self._accounts:
            branch = account.control
            if isinstance(branch, Branch) and branch.own is not None and account.name not in self._resting:
                self._resting.add(account.name)
                asyncio.get_running_loop().call_later(AGAIN, self._again, account, branch)

    def _again(self, account: Account, branch: Branch) -> None:
        """An account that was stopped is tried again."""
        self._resting.discard(account.name)
        if branch.ended:
            account.poller.forget()  # others have those
        branch.again()

    def _broke(self) -> None:
        for job_id in list(self._ledger.mine):
            handed = self._hands[job_id]
            if handed.batch_id in handed.account.submitter.broke:
                self._let_go(job_id, Later(LATER))
        for account in self._accounts:
            account.submitter.requeued()

    def _completed(self, job: Job) -> None:
        if self._part == "submit":
            self._let_go(job.id, Later(0, queue(job.provider, "download")))
        else:
            super()._completed(job)

    async def _take_up(self) -> None:
        """It begins with empty hands."""

    @property
    def _idle(self) -> bool:
        posts = any(account.submitter.posts for account in self._accounts)
        return (self.leaving or not self.serving) and not self._hands and not posts


def _gone(account: Account) -> bool:
    """Whether one of several accounts can't be called any more, while the others can."""
    return isinstance(account.control, Branch) and account.control.own in AT_ONCE
