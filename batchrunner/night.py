"""One run, from the open ledger to the exit code: where the parts are put together."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import plugins
from .catalogue import models
from .core.job import Job, State
from .core.limits import Bounds, tightest
from .core.pacing import clamp_retry_after
from .core.polling import Latencies
from .core.selection import Selection
from .core.text import visible
from .engine.account import Share
from .engine.clock import Clock, Dice
from .engine.control import Control, Stop
from .engine.feed import Feed
from .engine.ground import Site, clear
from .engine.offer import offerer
from .engine.outputs import EXTENSIONS, ordered
from .engine.ports import Books, Deps, Tally, Work
from .engine.recover import consent, recover
from .engine.runner import Outcome, Runner
from .engine.signals import on_signals
from .engine.spool import Spool
from .engine.stores import Stores
from .environment import THIS_MACHINE, access, connect, has_key, kind_of, person
from .exits import EXIT_STOPPED, UsageError
from .ledger import queries
from .ledger.due import Batch
from .ledger.errors import LedgerUnusable, WriteFailed
from .ledger.sql import Row
from .ledger.store import Ledger
from .planning import hold_to, promotion_of
from .providers.fetch import Transient
from .providers.objects import StoreUnusable
from .recording import names_of, record, to_resume
from .runs import RunOptions, RunResult, Watcher, exit_code

if TYPE_CHECKING:
    from .engine.offer import Offer
    from .providers.base import Access, Provider, ProviderKind
    from .providers.fetch import Fetcher


SENT_LATELY = 3600.0
"""Seconds for which an earlier run's submissions are looked for; a rate of one an hour is the slowest that matters."""

LEAVE_NOW = frozenset({Stop.INTERRUPTED, Stop.TERMINATED, Stop.LEDGER})
"""Reasons for which a run leaves the rest of its manifest unrecorded."""

SITES = 1000
"""Outputs looked at together before a run."""


class Night:
    """One run, from the open ledger to the exit code."""

    def __init__(
        self,
        options: RunOptions,
        watcher: Watcher,
        clock: Clock,
        ledger: Ledger,
        spool: Spool,
        stack: AsyncExitStack,
    ) -> None:
        self._options = options
        self._models = models() if options.models is None else options.models
        self._watcher = watcher
        self._clock = clock
        self._ledger = ledger
        self._spool = spool
        self._stack = stack
        self._stores = Stores(Path(f"{ledger.beside}.parts"))
        stack.callback(self._stores.tidy)
        self._runner: Runner | None = None
        self._feed: Feed | None = None
        self._to_come: set[str] = set()
        self._doubted: set[str] = set()
        self._simulated = ""
        self._loopback = False
        self._chained = False

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

    async def _states(self, work: Work, everything: bool = False) -> dict[State, int]:
        if not work.batches:
            return {}
        selection = Selection() if everything else work.selection
        current, old = await self._ledger.query(lambda c: queries.selected_states(c, work.ids, selection))
        return {s: current.get(s, 0) + old.get(s, 0) for s in {*current, *old}}

    async def _check_selection(self, work: Work, names: Sequence[str]) -> None:
        if work.selection and not await self._states(work):
            raise selects_nothing(work.selection, names)

    async def _check_models(self, work: Work) -> None:
        """Refuse to go on with jobs of a model that nobody describes: where to send them, or what they make, is not
        known."""
        self._known_models(await self._ledger.query(partial(queries.unfinished_models, batches=work.ids)))

    def _known_models(self, used: Sequence[str]) -> None:
        missing = [name for name in used if name not in self._models]
        if missing:
            raise UsageError(
                f"the ledger has unfinished jobs of {', '.join(missing)}, which no model here describes; name the "
                "folder that does with --models DIR, or BATCHRUNNER_MODELS"
            )

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

    async def _lookups(self, batches: Sequence[int]) -> set[str]:
        """The providers that can be asked what became of the batches' unconfirmed jobs. One whose package or key is
        gone is no reason to refuse the rest: its jobs stay in doubt."""
        found: list[str] = await self._ledger.query(partial(queries.unconfirmed_providers, batches=batches))
        asked: set[str] = set()
        for name in found:
            with suppress(UsageError):
                kind = kind_of(name)
                if kind.capabilities.lookup and self._may_call(kind):
                    asked.add(name)
        return asked

    def _may_call(self, kind: ProviderKind) -> bool:
        """Whether this run has what a provider asks for."""
        return self._options.simulate or has_key(kind)

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

    async def _looked_at(self, look: Callable[[], list[str]]) -> list[str]:
        """What stands in the way of outputs. Raises UsageError where it can't be looked at."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, look)
        except (StoreUnusable, Transient) as failed:
            raise UsageError(f"{failed}; nothing was sent") from None

    def _output_kind(self, model: str) -> str:
        return self._models[model].output  # `_check_models` was before

    def _site(self, row: Row) -> Site:
        extension = "" if row["named"] else EXTENSIONS[self._output_kind(row["model"])]
        ours = json.loads(row["task_ids"]) if row["task_ids"] != "[]" else ()  # most have had none
        return Site(row["id"], self._stores.at(row["output_dir"]), row["output"] + extension, ours)

    @property
    def _beside(self) -> Path:
        """What is kept on this machine for the ledger is named after it."""
        return self._options.db if isinstance(self._options.db, Path) else self._ledger.beside

    # --- The run itself ----------------------------------------------------------------------------------

    async def _engine(self, work: Work, tally: Tally, claims: list[float]) -> Outcome:
        options = self._options
        joined = [await self._connect(name) for name in await self._providers(work)]
        provider, fetcher = joined[0]
        by_name = {one.name: one for one, _ in joined}
        dice = Dice()
        deps = self._deps(
            crash=options.crash,
            tally=tally,
            provider=provider,
            fetcher=fetcher,
            dice=dice,
            provider_of=lambda model: by_name.get(self._models[model].provider),
            fetchers={one.name: its for one, its in joined},
            simulated=options.simulate,
        )
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

    def _deps(self, **more: Any) -> Deps:
        """The parts that the engine is handed, whoever runs it; `more` as in `Deps`."""
        return Deps(
            ledger=self._ledger,
            spool=self._spool,
            clock=self._clock,
            observe=self._observe,
            output_kind=self._output_kind,
            ordered=lambda job: ordered(self._models.get(job.model), job.request),
            fits=self._fits,
            offer=self._offerer(),
            stores=self._stores,
            **more,
        )

    async def _latencies(self) -> Latencies:
        """How long tasks have taken, as the ledger knows it."""
        latencies = Latencies()
        for model, seconds, took in await self._ledger.latencies():
            latencies.add(model, seconds, took)
        return latencies

    async def _share(self, deps: Deps, batches: Sequence[Batch]) -> Share:
        """An account as the ledger knows it."""
        name = deps.provider.name
        hold = clamp_retry_after(await self._ledger.hold_until(name) - self._clock.wall(), 0.0)
        bounds = tightest(batch.limits for batch in batches)
        return Share(deps, await self._ledger.pace(name), hold, bounds.providers.get(name, Bounds()), bounds.models)

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

    def _stopped(self, reason: Stop, message: str) -> None:
        self._tell("stopping", reason=reason.value, message=message)

    def _observe(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        if job is not None and job.state in {State.SUCCEEDED, State.FAILED} and self._runner is not None:
            self._runner.finished()
        if event == "progress":
            self._ledger.beat(self._run_id, data)
        self._tell(event, job, **data)

    def _tell(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        """Tell the watcher. One who has gone (a closed pipe, a full disk under the log) does not stop the work."""
        try:
            self._watcher.event(event, job, **data)
        except OSError:
            self._watcher = Watcher()

    def _offerer(self) -> Offer | None:
        try:
            return offerer(os.environ)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _fits(self, job: Job, request: Mapping[str, Any]) -> str:
        """What is wrong with a request that was made of a chained job's and its parents' URLs, by the model's schema.
        The simulator's own URLs are no public ones, and it looks at them itself."""
        if self._options.simulate or self._loopback:
            return ""
        from .manifest import problems_of

        return problems_of(self._models[job.model], request)

    async def _connect(self, name: str) -> tuple[Provider, Fetcher]:
        """A provider's account, and what fetches its outputs; the ledger is bound to it."""
        provider, fetcher = await self._opened(name)
        await self._bind(provider)
        return provider, fetcher

    async def _opened(self, name: str) -> tuple[Provider, Fetcher]:
        from .providers.fetch import Fetcher

        kind = kind_of(name)
        how = await self._access(kind)
        provider = connect(kind, how, self._clock.wall, self._models)
        self._stack.push_async_callback(provider.aclose)
        self._loopback = self._loopback or provider.loopback
        fetcher = Fetcher(loopback=provider.loopback, user_agent=how.user_agent, clock=self._clock.wall)
        self._stack.push_async_callback(fetcher.aclose)
        return provider, fetcher

    async def _bind(self, provider: Provider) -> None:
        await self._ledger.bind_origin(provider.name, self._origin(provider))
        self._options.crash("start.bound")

    def _origin(self, provider: Provider) -> str:
        """What the ledger is bound to. A loopback server may come back on another port."""
        if self._options.simulate:
            return "the simulator"
        return THIS_MACHINE if provider.loopback else provider.origin

    async def _access(self, kind: ProviderKind) -> Access:
        from .providers.base import Access

        if self._options.simulate:
            self._simulated = self._simulated or await self._simulator()
            return Access(self._simulated, "rk_simulated")
        return access(kind)

    async def _simulator(self) -> str:
        from .simulator import Simulator, SimulatorSettings, parse_faults

        state = self._beside.with_name(self._beside.name + ".account")
        settings = SimulatorSettings(
            state=state,
            faults=parse_faults(list(self._options.faults)),
            models=self._models,
            median_seconds=4.0,
            balance=1_000_000_000,
        )
        simulator = Simulator(settings)
        base: str = await simulator.start()
        self._stack.push_async_callback(simulator.stop)
        return base

    # --- After -------------------------------------------------------------------------------------------

    async def _record_rest(self, outcome: Outcome) -> None:
        """A run that ended while its manifest was being recorded records the rest, unless it was asked to leave."""
        if self._feed is not None and outcome.stop not in LEAVE_NOW:
            with suppress(WriteFailed):  # the ledger says what is missing
                await self._feed.run(lambda: None)

    async def _result(self, work: Work, outcome: Outcome | None) -> RunResult:
        stop, message = (outcome.stop, outcome.message) if outcome else (None, "")
        current, old = (
            await self._ledger.query(lambda c: queries.selected_states(c, work.ids, work.selection))
            if work.batches
            else ({}, {})
        )
        unrecorded = sum(b.unrecorded for b in await self._ledger.batches() if b.id in work.ids)
        code = exit_code(stop, current, old, unrecorded)
        if stop is None and current.get(State.PENDING) and self._chained:
            message = await self._ledger.query(
                partial(queries.waiting_words, batches=work.ids, selection=work.selection)
            )
            stop = Stop.NEEDS if message else None
        if outcome is not None:
            with suppress(WriteFailed):  # a full disk: the run's own row is a convenience
                await self._ledger.end_run(self._run_id, stop.value if stop else None, code)
                self._options.crash("end.noted")
        wall = self._clock.wall()
        found = [await self._ledger.query(partial(queries.status, batch=b.name, now=wall)) for b in work.batches]
        return RunResult(code, found, stop, message)


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
