"""One run, from the open ledger to the exit code: where the parts are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from . import plugins
from .core.job import Job, State
from .core.limits import tightest
from .core.selection import Selection
from .core.text import visible
from .engine.clock import Dice
from .engine.control import Control, Stop
from .engine.feed import Feed
from .engine.ground import clear
from .engine.ports import Books, Tally, Work
from .engine.recover import consent, recover
from .engine.runner import Outcome, Runner
from .engine.signals import on_signals
from .environment import person
from .exits import EXIT_STOPPED, UsageError
from .ledger import queries
from .ledger.errors import LedgerUnusable, WriteFailed
from .ledger.sql import Row
from .planning import hold_to, promotion_of
from .recording import names_of, record, to_resume
from .runs import RunResult, exit_code
from .workbench import Workbench

SENT_LATELY = 3600.0
"""Seconds for which an earlier run's submissions are looked for; a rate of one an hour is the slowest that matters."""

LEAVE_NOW = frozenset({Stop.INTERRUPTED, Stop.TERMINATED, Stop.LEDGER})
"""Reasons for which a run leaves the rest of its manifest unrecorded."""

SITES = 1000
"""Outputs looked at together before a run."""


class Night(Workbench):
    """One run, from the open ledger to the exit code."""

    _runner: Runner | None = None
    _feed: Feed | None = None
    _to_come: Set[str] = frozenset()
    _doubted: Set[str] = frozenset()

    async def run(self) -> RunResult:
        every = await self._ledger.batches()
        books = Books(ledger=self._ledger, spool=self._spool, clock=self._clock, crash=self._options.crash)
        await recover(books, [b.id for b in every])
        claims = await self._ledger.claims(self._clock.wall() - SENT_LATELY)
        names = await self._begin()
        batches = [b for b in await self._ledger.batches() if b.name in names] if names else []
        work = Work(batches, self._options.selection)
        if batches and self._options.resubmit:
            asked = await consent(books, work, person(), await self._lookups(work.ids))
            work = replace(work, consents=dict.fromkeys(asked, person()))
        tally = Tally(await self._states(work, everything=True))
        if self._feed is not None:
            tally.states[State.PENDING] = tally.states.get(State.PENDING, 0) + self._feed.left
        await self._check_selection(work, names)
        if tally.states.get(State.UNCONFIRMED):
            self._doubted = await self._lookups(work.ids)
        if not (_has_work(tally.states, await self._states(work)) or self._doubted):
            return await self._result(work, None)
        await self._check_models(work)
        await self._check_outputs(work)
        self._chained = self._chained or await self._ledger.chained(work.ids)
        if self._chained:
            await self._ledger.forget_holds(work.ids)
        outcome = await self._engine(work, tally, claims)
        await self._record_rest(outcome)
        try:
            return await self._result(work, outcome)
        except LedgerUnusable as unusable:  # damaged under the run: what is known is what was counted in memory
            code = exit_code(Stop.LEDGER, tally.states, {}) or EXIT_STOPPED
            return RunResult(code, [], outcome.stop or Stop.LEDGER, outcome.message or str(unusable))

    # --- Before ------------------------------------------------------------------------------------------

    async def _begin(self) -> list[str]:
        """Know what the run is about: the names of its batches."""
        options, ledger = self._options, self._ledger
        if options.promotion is not None:
            ask = partial(promotion_of, options.promotion, options.max_credits, person())
            await ledger.promote(await ledger.query(ask))
            options.crash("start.recorded")
            return [options.promotion.batch]
        if not options.manifests:
            return await to_resume(ledger, options.batches, options.max_credits)
        names = names_of(options.manifests)
        self._chained = any(m.chained for m in options.manifests)
        providers = {name for m in options.manifests for name in m.providers}
        if options.plan is not None:
            await ledger.query(partial(hold_to, options.plan, options.manifests, options.selection))
        self._feed = await record(
            ledger, options.manifests, options.max_credits, options.selection, options.settings, options.crash
        )
        self._to_come = providers if self._feed is not None else set()
        return names

    async def _check_selection(self, work: Work, names: Sequence[str]) -> None:
        if work.selection and not await self._states(work):
            raise selects_nothing(work.selection, names)

    async def _check_models(self, work: Work) -> None:
        """Refuse to go on with jobs of a model that nobody describes: where to send them, or what they make, is not
        known."""
        self._known_models(await self._ledger.query(partial(queries.unfinished_models, batches=work.ids)))

    async def _providers(self, work: Work) -> list[str]:
        """The providers of what is still to be done, sorted; those of what is still to be recorded too."""
        used: list[str] = await self._ledger.query(partial(queries.unfinished_providers, batches=work.ids))
        missing = [name for name in used if name not in plugins.SHIPPED and name not in plugins.names()]
        if missing:
            raise UsageError(
                f"the ledger has unfinished jobs of {', '.join(map(visible, missing))}, and no such provider is "
                "installed here; install its package (`batchrunner providers` lists what there is)"
            )
        return sorted({*used, *self._to_come, *self._doubted})

    async def _check_outputs(self, work: Work) -> None:
        """Refuse to pay for a file whose name is taken on disk by one that this ledger doesn't know."""
        renamed: list[tuple[int, str]] = []
        taken: list[str] = []
        rows: list[Row] = []
        ask = partial(queries.unsent_outputs, batches=work.ids, selection=work.selection, limit=SITES)
        while rows := await self._ledger.query(partial(ask, after=rows[-1] if rows else None)):
            look = partial(
                clear,
                [self._site(row) for row in rows],
                simulate=self._options.simulate,
                rename=lambda job_id, output: renamed.append((job_id, output)),
            )
            taken += await self._looked_at(look)
        if taken:
            raise UsageError(in_the_way(taken))
        if renamed:
            await self._ledger.rename_outputs(renamed)

    # --- The run itself ----------------------------------------------------------------------------------

    async def _engine(self, work: Work, tally: Tally, claims: list[float]) -> Outcome:
        options = self._options
        joined = [await self._connect(name) for name in await self._providers(work)]
        dice = Dice()
        deps = replace(self._deps(joined, dice), tally=tally, simulated=options.simulate)
        shares = [await self._share(replace(deps, provider=one, fetcher=its), work.batches) for one, its in joined]
        control = Control(self._clock, dice, self._stopped, shares[0].hold)
        polls = tightest(b.limits for b in work.batches).polls_per_minute
        settings = replace(
            options.settings,
            submits_per_minute=min(b.submits_per_minute for b in work.batches),
            in_flight=min(b.in_flight for b in work.batches),
            polls_per_minute=options.settings.polls_per_minute if polls is None else polls,
            max_submissions=options.limit,
            deadline=None if options.until is None else self._clock.monotonic() + options.until,
        )
        latencies = await self._latencies()
        sent = self._in_monotonic_time(claims)
        names = [b.name for b in work.batches]
        self._run_id = await self._ledger.start_run(names)
        options.crash("start.noted")
        self._watcher.started(self._run_id, {b.id: b.name for b in work.batches})
        runner = self._runner = Runner(
            deps, control, settings, work, latencies, sent=sent, feed=self._feed, chained=self._chained, shares=shares
        )
        self._watcher.begin(names, tally)
        if self._options.signals:
            on_signals(control)
        async with self._remote(runner):
            return await runner.run()

    @asynccontextmanager
    async def _remote(self, runner: Runner) -> AsyncIterator[None]:
        """The socket that a second terminal asks at, while the run is alive."""
        if not self._options.remote:
            yield
            return
        from .remote.desk import Desk
        from .remote.server import Server

        server = Server(self._beside, Desk(runner, self._observe))
        why_not = await server.open()
        if why_not is not None:
            self._tell("remote_closed", message=why_not)
        try:
            yield
        finally:
            await server.close()

    def _in_monotonic_time(self, claims: list[float]) -> list[float]:
        """When the last submissions of earlier runs were: they count in the rate. A clock that was set back since
        makes them come from the future; then they were just now."""
        wall, now = self._clock.wall(), self._clock.monotonic()
        return [now - max(0.0, wall - at) for at in claims]

    def _observe(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        if job is not None and job.state in {State.SUCCEEDED, State.FAILED} and self._runner is not None:
            self._runner.finished()
        if event == "progress":
            self._ledger.beat(self._run_id, data)
        self._tell(event, job, **data)

    # --- After -------------------------------------------------------------------------------------------

    async def _record_rest(self, outcome: Outcome) -> None:
        """A run that ended while its manifest was being recorded records the rest, unless it was asked to leave."""
        if self._feed is not None and outcome.stop not in LEAVE_NOW:
            with suppress(WriteFailed):  # the ledger says what is missing
                await self._feed.run(lambda: None)

    async def _note_end(self, stop: Stop | None, code: int) -> None:
        with suppress(WriteFailed):  # a full disk: the run's own row is a convenience
            await self._ledger.end_run(self._run_id, stop.value if stop else None, code)
            self._options.crash("end.noted")


def selects_nothing(selection: Selection, names: Sequence[str]) -> UsageError:
    """What is wrong with a selection of no job of these batches."""
    chosen = " ".join([f"--only {o}" for o in selection.only] + [f"--tag {t}" for t in selection.tags])
    return UsageError(f"{chosen} selects no job of {', '.join(names)}; `batchrunner jobs` lists them")


def in_the_way(taken: Sequence[str]) -> str:
    """Why nothing is sent: files that are nobody's, as `ground.clear` names them."""
    more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
    return (
        f"{taken[0]}{more}; this ledger did not write it, and it is never overwritten: "
        "move it away, or change output.dir or output.name"
    )


def _has_work(every: dict[State, int], selected: dict[State, int]) -> bool:
    """Whether anything is to be sent, or anything at all (selected or not) is still to come home."""
    return bool(selected.get(State.PENDING) or every.get(State.RUNNING) or every.get(State.DOWNLOADING))
