"""What a run, a worker and whoever leaves work to workers are put together from: the ledger's parts, the services, and
how it stands in the end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalogue import models
from .core.job import Job, State
from .core.limits import Bounds, tightest
from .core.pacing import clamp_retry_after
from .core.polling import Latencies
from .core.selection import Selection
from .engine.account import Share
from .engine.clock import Clock, Dice
from .engine.control import Stop
from .engine.ground import Site
from .engine.offer import offerer
from .engine.outputs import EXTENSIONS, ordered
from .engine.ports import Deps, Work
from .engine.runner import Outcome
from .engine.spool import Spool
from .engine.stores import Stores
from .environment import THIS_MACHINE, access, connect, has_key, kind_of
from .exits import UsageError
from .ledger import queries
from .ledger.due import Batch
from .ledger.sql import Row
from .ledger.store import Ledger
from .providers.fetch import Transient
from .providers.objects import StoreUnusable
from .runs import RunOptions, RunResult, Watcher, exit_code

if TYPE_CHECKING:
    from .engine.offer import Offer
    from .providers.base import Access, Provider, ProviderKind
    from .providers.fetch import Fetcher


class Workbench:
    """Everything that is at hand, once the ledger is open."""

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
        self._simulated = ""
        self._loopback = False
        self._chained = False

    # --- What the ledger has ----------------------------------------------------------------------------

    async def _counted(self, work: Work) -> tuple[dict[State, int], dict[State, int]]:
        """As `queries.selected_states`: current jobs that the work is about, and old revisions that are still live."""
        found: tuple[dict[State, int], dict[State, int]] = {}, {}
        if work.batches:
            found = await self._ledger.query(lambda c: queries.selected_states(c, work.ids, work.selection))
        return found

    async def _states(self, work: Work, everything: bool = False) -> dict[State, int]:
        """Of both together; `everything`: of all jobs of its batches."""
        current, old = await self._counted(replace(work, selection=Selection()) if everything else work)
        return {s: current.get(s, 0) + old.get(s, 0) for s in {*current, *old}}

    def _known_models(self, used: Sequence[str]) -> None:
        missing = [name for name in used if name not in self._models]
        if missing:
            raise UsageError(
                f"the ledger has unfinished jobs of {', '.join(missing)}, which no model here describes; name the "
                "folder that does with --models DIR, or BATCHRUNNER_MODELS"
            )

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

    async def _result(self, work: Work, outcome: Outcome | None) -> RunResult:
        """How it stands with the batches; `outcome`: how a run of them has ended."""
        stop, message = (outcome.stop, outcome.message) if outcome else (None, "")
        current, old = await self._counted(work)
        unrecorded = sum(b.unrecorded for b in await self._ledger.batches() if b.id in work.ids)
        code = exit_code(stop, current, old, unrecorded)
        if stop is None and current.get(State.PENDING) and self._chained:
            message = await self._ledger.query(
                partial(queries.waiting_words, batches=work.ids, selection=work.selection)
            )
            stop = Stop.NEEDS if message else None
        if outcome is not None:
            await self._note_end(stop, code)
        wall = self._clock.wall()
        found = [await self._ledger.query(partial(queries.status, batch=b.name, now=wall)) for b in work.batches]
        return RunResult(code, found, stop, message)

    async def _note_end(self, stop: Stop | None, code: int) -> None:
        """Have it in the ledger, where this is a run that the ledger knows of."""

    # --- What the engine is handed -----------------------------------------------------------------------

    def _deps(self, joined: Sequence[tuple[Provider, Fetcher]], dice: Dice) -> Deps:
        """The parts that the engine is handed, whoever runs it.

        Args:
            joined: the accounts and what fetches from them; the first stands for all where they are not told apart.
            dice: for its delays.
        """
        provider, fetcher = joined[0]
        by_name = {one.name: one for one, _ in joined}
        return Deps(
            ledger=self._ledger,
            spool=self._spool,
            clock=self._clock,
            observe=self._observe,
            crash=self._options.crash,
            provider=provider,
            fetcher=fetcher,
            dice=dice,
            output_kind=self._output_kind,
            ordered=lambda job: ordered(self._models.get(job.model), job.request),
            fits=self._fits,
            offer=self._offerer(),
            provider_of=lambda model: by_name.get(self._models[model].provider),
            fetchers={one.name: its for one, its in joined},
            stores=self._stores,
        )

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

    # --- The services ------------------------------------------------------------------------------------

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

    # --- What happens ------------------------------------------------------------------------------------

    def _stopped(self, reason: Stop, message: str) -> None:
        self._tell("stopping", reason=reason.value, message=message)

    def _observe(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        """Hear what the engine tells."""
        self._tell(event, job, **data)

    def _tell(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        """Tell the watcher. One who has gone (a closed pipe, a full disk under the log) does not stop the work."""
        try:
            self._watcher.event(event, job, **data)
        except OSError:
            self._watcher = Watcher()
