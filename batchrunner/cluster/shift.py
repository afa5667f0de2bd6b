"""One worker, from joining the ledger to the exit code: where the parts are put together."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakSet

import procrastinate
from procrastinate.exceptions import ConnectorException

from .. import loops
from ..core import events as e
from ..core.job import Job, State
from ..core.notice import Sink
from ..core.pacing import clamp_retry_after
from ..engine.clock import Clock, Dice, SystemClock
from ..engine.control import AT_ONCE, Stop
from ..engine.ports import Books, Crash, Settings, Work, no_crash
from ..engine.recover import restore
from ..engine.runner import Outcome
from ..engine.signals import on_signals
from ..engine.spool import Spool
from ..environment import served
from ..exits import EXIT_BUG, EXIT_OK, EXIT_STOPPED
from ..ledger.address import Server
from ..ledger.due import Batch
from ..ledger.errors import Conflict, LedgerError
from ..ledger.postgres import peers, terms
from ..ledger.postgres.opening import prepare_shared
from ..ledger.postgres.session import sever
from ..ledger.postgres.shared import SharedLedger
from ..providers.base import Provider, Traceable
from ..runs import RunOptions, RunResult, Watcher, exit_code
from ..workbench import Workbench
from . import dispatch, endings
from .bounds import bounds_of
from .carrier import AHEAD, Carrier, Standing
from .reasons import why_not
from .spools import spool

PRUNE = 30.0
"""Seconds without a sign of life after which a worker is taken for dead. A database that restarts takes less."""

SWITCH = 0.0005
"""Seconds after which a busy event loop lets the thread go on that has everybody's turn to write."""

DEAF = 2.0
"""Least seconds for which a sign of life may stay without an answer, before the connections are given up."""

PULSE = 1.0
"""Seconds between two signs of life."""

PARTS = {"all": ("submit", "download"), "submit": ("submit",), "download": ("download",)}
"""What a worker does -> the queues that it listens to."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker was asked for.

    Attributes:
        db: the ledger.
        providers: whose jobs it does; empty for all whose keys are set here.
        in_flight: most tasks in flight of this worker, None for as many as all workers may have.
        part: one of `PARTS`.
        until_idle: it ends when no batch that was left to workers has anything unfinished.
        prune: seconds without a sign of life after which a worker is taken for dead; the same for all workers.
        wait_lock: seconds to wait for a run that has the ledger to itself.
        models: the models there are, None for the shipped ones.
        words: what is said of a batch that has ended; None to tell nobody.
        sinks: whom this host tells of every batch, besides those whom the manifests name.
        crash: called with the name of every durable step; for tests.
    """

    db: Server
    providers: Sequence[str] = ()
    in_flight: int | None = None
    part: str = "all"
    until_idle: bool = False
    prune: float = PRUNE
    wait_lock: float = 0.0
    models: Any = None
    words: endings.Words | None = None
    sinks: Sequence[Sink] = ()
    crash: Crash = no_crash


def run(options: WorkerOptions, watcher: Watcher) -> Outcome:
    """Be a worker until told to end.

    Raises:
        UsageError, LedgerUnusable: exit code 2. LedgerBusy: exit code 5. Anything else is a bug.
    """
    main = partial(_run, options, watcher)
    sys.setswitchinterval(SWITCH)
    return loops.run(main)


async def _run(options: WorkerOptions, watcher: Watcher) -> Outcome:
    clock = SystemClock()
    asyncio.get_running_loop().set_exception_handler(_unheard)
    await asyncio.get_running_loop().run_in_executor(None, prepare_shared, options.db)
    async with AsyncExitStack() as stack:
        ledger = await join(options.db, clock, options.prune, options.wait_lock)
        stack.push_async_callback(ledger.close)
        found, ledger.beside = spool(ledger.beside, stack)
        return await Shift(options, watcher, clock, ledger, found, stack).work()


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a task of the engine ends with when its database is gone is known from elsewhere."""
    if not isinstance(context.get("exception"), ConnectorException):
        loop.default_exception_handler(context)


async def join(db: Server, clock: Clock, prune: float, wait: float = 0.0) -> SharedLedger:
    """The ledger, beside other workers. Raises as `SharedLedger.join`; LedgerBusy after `wait` seconds."""
    return await loops.once_free(partial(SharedLedger.join, db, clock.wall, prune), clock, wait)


class Shift(Workbench):
    """One worker's time at work."""

    _carrier: Carrier
    _control: Standing

    def __init__(
        self,
        options: WorkerOptions,
        watcher: Watcher,
        clock: Clock,
        ledger: SharedLedger,
        spool: Spool,
        stack: AsyncExitStack,
    ) -> None:
        run = RunOptions(options.db, models=options.models, crash=options.crash)
        super().__init__(run, watcher, clock, ledger, spool, stack)
        self._shared = ledger
        self._served: list[str] = []
        self._joined: dict[str, Provider] = {}
        self._bound: set[str] = set()
        self._binding = asyncio.Lock()
        self._left: set[str] = set()
        self._lines: WeakSet[Any] = WeakSet()
        self._how = options
        self._endings = (
            None
            if options.words is None
            else endings.Endings(
                ledger, options.prune, self._how_it_ended, options.words, options.sinks, self._tell, options.crash
            )
        )

    async def work(self) -> Outcome:
        """Do what is handed out, until told to end."""
        how, ledger = self._how, self._shared
        self._served = [*dict.fromkeys(how.providers)] or served()
        joined = [await self._opened(name) for name in self._served]
        self._joined = {provider.name: provider for provider, _ in joined}
        for name in await ledger.read(peers.accounts) & self._joined.keys():
            await self._bind_once(name)
        books = Books(ledger=ledger, spool=self._spool, clock=self._clock)
        await restore(books, [batch.id for batch in await ledger.batches()])
        ledger.worker = await ledger.write(
            partial(peers.join, providers=self._served, host=socket.gethostname(), pid=os.getpid(), part=how.part)
        )
        self._stores.writer = f".w{ledger.worker}"
        await self._bounded()
        dice = Dice()
        control = self._control = Standing(self._clock, dice, self._stopped)
        deps = replace(self._deps(joined, dice), moved=self._moved)
        rate = sum(60.0 * ledger.bounds_of(name).submits for name in self._served)
        settings = Settings(submits_per_minute=rate, in_flight=self._most)
        latencies = await self._latencies()
        # What holds for all workers together is in the ledger: here nothing is bounded besides.
        shares = [await self._share(replace(deps, provider=one, fetcher=its), []) for one, its in joined]
        if len(shares) == 1:
            control.held(shares[0].hold)
        self._carrier = Carrier(deps, control, settings, ledger, latencies, shares, how.part)
        self._carrier.bind = self._bind_once
        self._carrier.know = self._bounded
        self._limit(dict.fromkeys(self._served, 1.0))
        on_signals(control)
        app = dispatch.app(how.db, self._carry, self._lines)
        async with app.open_async():
            return await self._go(app)

    async def _carry(self, job_id: int) -> None:
        """What Procrastinate hands out. What goes wrong with it is seen, and tried again; a bug ends the worker."""
        try:
            await self._carrier.carry(job_id)
        except dispatch.Later:
            raise
        except LedgerError as error:
            self._tell("carry_failed", message=str(error))
            raise
        except Exception as error:
            self._control.bug(error)
            raise

    async def _go(self, app: procrastinate.App) -> Outcome:
        loop = asyncio.get_running_loop()
        apps = {name: dispatch.beside(app, self._carry) for name in self._served}
        fetching = [loop.create_task(self._fetch(one, name), name=f"fetching {name}") for name, one in apps.items()]
        beside = {"pulse": self._pulse(app), "sweeper": self._sweep(app)}
        if self._how.until_idle:
            beside["idle"] = self._leave_when_idle()
        others = [loop.create_task(one, name=name) for name, one in beside.items()]
        for task in (*fetching, *others):
            task.add_done_callback(self._ended)
        outcome: Outcome | None = None
        try:
            outcome = await self._carrier.run()
        finally:
            # What is still in hand is on nobody's wire any more: others may have it at once.
            await dispatch.over([*fetching, *others])
            if self._endings is not None:
                await self._endings.settle()
            stop = outcome.stop.value if outcome is not None and outcome.stop else None
            code = EXIT_BUG if outcome is None else code_of(outcome)
            with suppress(LedgerError):
                await self._shared.write(partial(peers.leave, worker=self._shared.worker, stop=stop, code=code))
        return outcome

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.bug(error)

    # --- Beside the work ---------------------------------------------------------------------------------

    async def _fetch(self, app: procrastinate.App, provider: str) -> None:
        """Let Procrastinate hand out a provider's jobs, each one's on their own: so that none fills the hands before
        another. It ends where the database is lost; what is in hand is done all the same."""
        queues = [dispatch.queue(provider, part) for part in PARTS[self._how.part]]
        while True:
            try:
                most = self._in_flight(provider) + AHEAD
                await dispatch.work(app, queues, most, self._how.prune, self._clock, self._how.crash)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  whatever it is: the ledger says what is to be done
                self._tell("dispatch_lost", message=str(error))
            await self._clock.sleep(min(1.0, self._how.prune / 4.0))

    async def _pulse(self, app: procrastinate.App) -> None:
        """Give signs of life, by a connection of their own, and hear what concerns everybody."""
        sql = (
            f"UPDATE worker SET beat_at = {peers.NOW}, progress = %(progress)s, provider = %(serving)s "
            f"WHERE id = %(id)s RETURNING (SELECT json_object_agg(provider, hold_until - {peers.NOW}) FROM account "
            f"WHERE hold_until > {peers.NOW}) AS holds"
        )
        beats = 0
        while True:
            progress = json.dumps({**self._carrier.progress(), "in_hand": self._carrier.in_hand})
            unanswered = asyncio.get_running_loop().call_later(max(DEAF, self._how.prune / 2.0), self._cut)
            try:
                serving = " ".join(self._carrier.serving)
                row = await app.connector.execute_query_one_async(
                    sql, progress=progress, serving=serving, id=self._shared.worker
                )
                self._carrier.held({name: clamp_retry_after(hold, 0.0) for name, hold in (row["holds"] or {}).items()})
                if beats % 5 == 0:
                    await self._bounded()
                    await self._carrier.look_again()
                    self._limit(await self._polls())
                beats += 1
            except (ConnectorException, LedgerError):
                pass  # it comes back, or the ledger's own patience ends
            finally:
                unanswered.cancel()
            await self._clock.sleep(min(PULSE, self._how.prune / 5.0))

    async def _polls(self) -> dict[str, float]:
        """This worker's part of what each account may be polled: they are shared by all that are alive."""
        alive = await self._shared.read(partial(peers.alive, within=self._how.prune))
        polling = [one for one in alive if one.part != "download"]
        return {name: 1.0 / max(1, sum(one.serves(name) for one in polling)) for name in self._served}

    def _limit(self, polls: Mapping[str, float]) -> None:
        self._carrier.bound({name: self._in_flight(name) for name in self._served}, self._most, polls)

    def _cut(self) -> None:
        """Nothing comes back from the database, and nothing says that the network is gone: have done with it. What is
        open now may stay silent for ever; what is opened anew finds out in `connect_timeout`."""
        self._tell("cut", message="no answer from the database; connecting anew")
        for line in list(self._lines):
            sever(line)
        self._shared.cut()

    async def _bounded(self) -> None:
        """What all workers together may do of each account: the tightest of what the batches say that are at work."""
        at_work = await self._shared.read(peers.at_work)
        batches = [batch for batch in await self._shared.batches() if batch.id in at_work]
        self._shared.own |= bounds_of(batches, at_work)
        for name in sorted(set().union(*at_work.values()) - {*self._served, *self._left}):
            self._left.add(name)
            self._tell("not_served", provider=name)

    def _in_flight(self, provider: str) -> int:
        bound = self._shared.bounds_of(provider).in_flight
        return bound if self._how.in_flight is None else min(bound, self._how.in_flight)

    @property
    def _most(self) -> int:
        """Tasks in flight of this worker, at all accounts together."""
        every = sum(self._in_flight(name) for name in self._served)
        return every if self._how.in_flight is None else min(every, self._how.in_flight)

    async def _bind_once(self, provider: str) -> None:
        """Have an account in the ledger, bound to its server, before the first of its jobs is taken."""
        if provider in self._bound:
            return
        async with self._binding:
            if provider not in self._bound:
                await self._bind(self._joined[provider])
                lookup = isinstance(self._joined[provider], Traceable)
                await self._shared.write(partial(peers.rated, provider=provider, lookup=lookup))
                self._bound.add(provider)

    async def _sweep(self, app: procrastinate.App) -> None:
        """See to what dead workers have left, and to what nobody carries."""
        every = max(0.5, self._how.prune / 3.0)
        mine = partial(peers.sweeps, worker=self._shared.worker, within=self._how.prune, every=every)
        while True:
            try:
                if await self._shared.read(mine):
                    await dispatch.retry_stalled(app, self._how.prune)
                    await self._give_up_dead()
                    if await self._shared.read(peers.uncarried):
                        self._tell("swept", jobs=await self._shared.write(peers.defer))
                if self._endings is not None and not self._how.until_idle:
                    await self._endings.look()
            except (ConnectorException, LedgerError):
                pass  # the next sweep sees it
            await self._clock.sleep(every)

    async def _leave_when_idle(self) -> None:
        """End when there is nothing more to do for anybody, and nobody to tell of it."""
        while True:
            with suppress(LedgerError):
                left = await self._shared.read(partial(peers.unfinished, providers=self._carrier.serving))
                told = self._endings is None or await self._endings.look()  # of all that has ended by then
                if told and not left:
                    self._carrier.leave()
            await self._clock.sleep(0.5)

    async def _how_it_ended(self, batch: Batch) -> RunResult:
        """As a run of its own would have ended."""
        selection = await self._shared.read(partial(terms.selection_of, batch=batch.id))
        work = Work([batch], selection)
        self._chained = await self._ledger.chained(work.ids)
        result = await self._result(work, None)
        why = await self._shared.read(partial(why_not, batches=work.ids, selection=selection))
        if result.stop is None and why is not None:
            return replace(result, stop=why[0], message=why[1])
        return result

    async def _give_up_dead(self) -> None:
        """Submissions of workers that are dead: nobody can tell what became of them."""
        dead = await self._shared.read(partial(peers.dead_claims, within=self._how.prune))
        for job in await self._shared.jobs(dead) if dead else []:
            if job.state is State.SUBMITTING:
                with suppress(Conflict):  # it was not dead after all
                    after = await self._shared.advance(job, e.Interrupted())
                    self._tell(
                        "interrupted",
                        after,
                        state=after.state.value,
                        error={"code": None, "message": "a worker died while it was sending it"},
                    )

    # --- What happens ------------------------------------------------------------------------------------

    def _observe(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        if hasattr(self, "_carrier"):
            self._carrier.told(event, job, data)
        if job is not None and job.state in {State.SUCCEEDED, State.FAILED}:
            self._carrier.finished()
        self._tell(event, job, **data)

    def _moved(self, job: Job) -> None:
        self._carrier.moved(job)
        self._tell("moved", job)

    def _stopped(self, reason: Stop, message: str) -> None:
        super()._stopped(reason, message)
        self._carrier.stopped()


def code_of(outcome: Outcome) -> int:
    """A worker's exit code: how it ended, and not how the jobs did."""
    if outcome.stop is None:
        return EXIT_OK
    return exit_code(outcome.stop, {}, {}) if outcome.stop in AT_ONCE else EXIT_STOPPED


__all__: Sequence[str] = ("PARTS", "PRUNE", "WorkerOptions", "code_of", "join", "run")
