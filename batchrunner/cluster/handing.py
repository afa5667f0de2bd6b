"""`run` and `resume` for workers: record what is asked for, leave it to them, and look on until it has ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.job import State
from ..core.states import LEFT
from ..core.text import visible
from ..engine.clock import SystemClock
from ..engine.control import AT_ONCE, Stop
from ..engine.ground import clear
from ..engine.ports import Books, Tally, Work
from ..engine.recover import consent
from ..engine.runner import Outcome
from ..environment import person
from ..exits import EXIT_OK, UsageError
from ..ledger import queries
from ..ledger.address import Server
from ..ledger.postgres import doubts, opening, peers
from ..ledger.postgres.shared import SharedLedger
from ..ledger.postgres.terms import Terms
from ..ledger.sql import Row
from ..ledger.workers import with_workers
from ..night import in_the_way
from ..planning import hold_to, promotion_of
from ..recording import batch_spec, names_of, to_resume, untouched
from ..runs import LEFT_TO_WORKERS, RunOptions, RunResult, Watcher, exit_code
from ..workbench import Workbench
from .giving import Asked, Rehearsed, give, rehearse
from .reasons import SHORT, why_not
from .shift import PRUNE, join
from .spools import spool

if TYPE_CHECKING:
    from ..providers.base import ProviderKind

LOOK = 1.0
"""Seconds between two looks at how far the workers are."""

NOBODY = 60.0
"""Seconds without any worker after which whoever looks on ends."""

STILL = 120.0
"""Seconds in which nothing changes, where a batch's money does not reach for what is left: then it is that."""


def hand_over(options: RunOptions, watcher: Watcher, *, detach: bool) -> RunResult:
    """Record and leave it to the workers; look on, unless `detach`.

    Raises: as `app.run`.
    """
    return asyncio.run(_hand_over(options, watcher, detach=detach))


async def _hand_over(options: RunOptions, watcher: Watcher, *, detach: bool) -> RunResult:
    db = options.db
    assert isinstance(db, Server)  # noqa: S101  the caller has looked
    if options.simulate:
        raise UsageError("--simulate: for a run of its own; workers have the service's own accounts")
    clock = SystemClock()
    began = clock.monotonic()
    async with AsyncExitStack() as stack:
        ledger = await join(db, clock, PRUNE, options.wait_lock)
        stack.push_async_callback(ledger.close)
        await asyncio.get_running_loop().run_in_executor(None, opening.prepare_shared, db)
        found, ledger.beside = spool(ledger.beside, stack)
        if options.until is not None:  # the time goes on while a run is waited for
            options = replace(options, until=max(0.0, options.until - (clock.monotonic() - began)))
        night = _Handed(options, watcher, clock, ledger, found, stack)
        return await night.give(detach=detach)


class _Handed(Workbench):
    """One who gives work away."""

    def __init__(self, options: RunOptions, watcher: Watcher, clock: Any, ledger: SharedLedger, *rest: Any) -> None:
        super().__init__(options, watcher, clock, ledger, *rest)
        self._shared = ledger
        self._stop: Stop | None = None
        self._message = ""

    async def give(self, *, detach: bool) -> RunResult:
        """Check, then record and defer; look on."""
        options = self._options
        asked = await self._asked()
        if not options.manifests or not all(untouched(m.output_dir) for m in options.manifests):
            try:
                await self._shared.write(partial(rehearse, asked, self._clock.wall()))
            except Rehearsed as rehearsed:
                await self._check_sites(rehearsed.rows)
        given = await self._shared.write(partial(give, asked, self._clock.wall()))
        deferred = given.deferred
        options.manifests.clear()
        options.crash("start.recorded")
        batches = [batch for batch in await self._ledger.batches() if batch.id in given.batches]
        work = Work(batches, options.selection)
        if options.resubmit:
            books = Books(ledger=self._ledger, spool=self._spool, clock=self._clock)
            await consent(books, work, person(), asked.askable)  # of those, workers ask first
            deferred += await self._shared.write(peers.defer)
        self._watcher.begin(asked.names, Tally(await self._states(work)))
        self._tell("deferred", jobs=deferred)
        if not detach:
            await self._look_on(work)
        elif await self._left(work):
            found = (await self._result(work, None)).batches
            batches = await self._ledger.query(partial(with_workers, statuses=found))
            return RunResult(EXIT_OK, batches, None, LEFT_TO_WORKERS, told_by_workers=True)
        outcome = Outcome(self._stop, self._message, 0) if self._stop else None
        return await self._ended(work, outcome)

    async def _asked(self) -> Asked:
        """What the options ask for."""
        options = self._options
        promotion, plan = options.promotion, options.plan
        manifests = [(batch_spec(m, options.max_credits), list(m.jobs)) for m in options.manifests]
        if promotion is not None:
            names = [promotion.batch]
        elif manifests:
            names = names_of(options.manifests)
        else:
            names = await to_resume(self._ledger, options.batches, options.max_credits)
        return Asked(
            names,
            person(),
            check=lambda c: None if plan is None else hold_to(plan, options.manifests, options.selection, c),
            fits=self._known_models,
            terms=Terms(options.selection, options.until, options.limit),
            askable=await self._askable(names),
            consent=options.resubmit,
            batches=manifests,
            promotion=None if promotion is None else partial(promotion_of, promotion, options.max_credits, person()),
        )

    async def _askable(self, names: Sequence[str]) -> list[str]:
        """The providers that can be asked what became of the batches' unconfirmed jobs."""
        batches = [batch.id for batch in await self._ledger.batches(names)] if names else []
        return sorted(await self._lookups(batches)) if batches else []

    def _may_call(self, kind: ProviderKind) -> bool:  # noqa: ARG002
        """The keys are the workers'."""
        return True

    async def _check_sites(self, rows: Sequence[Row]) -> None:
        """As `_check_outputs`, of what is not recorded yet."""
        look = partial(clear, [self._site(row) for row in rows], simulate=False, rename=lambda *_: None)
        taken = await self._looked_at(look)
        if taken:
            raise UsageError(in_the_way(taken))

    async def _ended(self, work: Work, outcome: Outcome | None) -> RunResult:
        result = await self._result(work, None)
        if outcome is None:
            return replace(result, told_by_workers=True)
        current, old = await self._counted(work)
        code = exit_code(outcome.stop, current, old)
        over = outcome.stop not in AT_ONCE
        return RunResult(code, result.batches, outcome.stop, outcome.message, told_by_workers=over)

    async def _left(self, work: Work) -> bool:
        """Whether workers can go on with anything."""
        states = await self._states(work)
        return any(states.get(state) for state in LEFT) or await self._in_question(work)

    async def _in_question(self, work: Work) -> bool:
        """Whether a service is to be asked for a job in doubt."""
        return await self._shared.read(partial(doubts.any_open, batches=work.ids))

    async def _look_on(self, work: Work) -> None:
        """Show progress until everything has ended, nothing can go on, or a signal. The work goes on without it."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()

        def interrupted(stop: Stop) -> None:
            self._stop, self._message = stop, "the workers go on with it"
            over.set()

        loop.add_signal_handler(signal.SIGINT, interrupted, Stop.INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, interrupted, Stop.TERMINATED)
        before: object = None
        changed = seen = self._clock.monotonic()
        while not over.is_set():
            now = self._clock.monotonic()
            states = await self._states(work)
            workers = await self._shared.read(partial(peers.alive, within=PRUNE))
            missing, goes_on = await self._served(work, states, workers)
            seen = now if goes_on else seen
            if states != before:
                before, changed = states, now
            self._told(states, await self._ledger.money(work.ids), len(workers))
            if not any(states.get(state) for state in LEFT):
                asked = bool(workers) and await self._in_question(work)
                if not asked or now - seen > NOBODY:
                    return
            if await self._stuck(work, states):
                why = await self._shared.read(partial(why_not, batches=work.ids, selection=work.selection))
                self._stop, self._message = why or (None, "")
                return
            if now - seen > NOBODY:
                whose = f" that has the key for {' and '.join(missing)}" if workers and missing else ""
                message = f"no worker is alive{whose}; start one, the batch waits for it"
                self._stop, self._message = Stop.UNREACHABLE, message
            elif now - changed > STILL and await self._short(work):
                self._stop, self._message = Stop.BUDGET, SHORT
            if self._stop is not None:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), LOOK)

    async def _served(
        self, work: Work, states: dict[State, int], workers: Sequence[peers.Alive]
    ) -> tuple[list[str], bool]:
        """The providers of what is left whose jobs none of the workers does; whether they can go on all the same."""
        left: list[str] = await self._ledger.query(partial(queries.unfinished_providers, batches=work.ids))
        does = [name for name in left if any(one.serves(name) for one in workers)]
        missing = [visible(name, 60) for name in left if name not in does]
        if not missing or not does or any(states.get(state) for state in LEFT if state is not State.PENDING):
            return missing, bool(does)
        able = partial(peers.able, batches=work.ids, selection=work.selection, providers=does)
        return missing, await self._shared.read(able)

    async def _stuck(self, work: Work, states: dict[State, int]) -> bool:
        """Whether all that is left waits for something that no worker can give."""
        if {state for state in LEFT if states.get(state)} != {State.PENDING}:
            return False
        return not await self._shared.read(partial(peers.able, batches=work.ids, selection=work.selection))

    async def _short(self, work: Work) -> bool:
        return bool(await self._shared.read(partial(peers.short_of_money, batches=work.ids)))

    def _told(self, states: dict[State, int], money: dict[str, int], workers: int) -> None:
        flight = sum(states.get(s, 0) for s in (State.SUBMITTING, State.RUNNING))
        self._tell(
            "progress",
            states={s.value: n for s, n in states.items() if n},
            in_flight=flight,
            in_flight_limit=self._shared.bounds.in_flight,
            hold=0.0,
            per_minute=0.0,
            eta_seconds=None,
            eta_range=None,
            stop=None,
            paused_by=None,
            workers=workers,
            credits=money,
        )
