"""The Python interface: load a manifest, see its price, run it, hear what happens. See docs/api.md.

The command line is made of the same parts; what it does, a program can. Nothing is imported here before it is used.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from .exits import DEFAULT_DB, UsageError, simulated_name
from .ledger.address import Address, is_url, parse

if TYPE_CHECKING:
    from .catalogue import Model
    from .core.job import Job
    from .engine.ports import Tally
    from .manifest import Manifest
    from .planning import Plan
    from .runs import RunOptions, RunResult

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        name: as `run --json` has it under `event`; the last one is `summary`.
        at: unix seconds.
        batch, job: the batch's name and the job's key; None where it concerns the whole run.
        state: the job's state from now on, where it has one.
        data: the rest, as `run --json` has it.
        result: how the run ended, in `summary` only.
    """

    name: str
    at: float
    batch: str | None = None
    job: str | None = None
    state: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    result: RunResult | None = None


class Options(TypedDict, total=False):
    """What `run` and `events` may be asked for besides the manifests; each as the flag of `batchrunner run`.

    Attributes:
        db: the ledger; by default what BATCHRUNNER_DB says, or `batchrunner.db` in the current folder. With
            `simulate` and no `db`: the one beside it with `.sim` in its name.
        simulate: against the built-in simulator, free and without a key.
        faults: faults of that simulator, such as `drop_after=0.02`.
        only, tags: which jobs.
        limit: at most so many new submissions.
        max_credits: cap on each batch's credits.
        resubmit: consent to submit unconfirmed jobs again, which may pay for them twice.
        until: be done by this local time.
        seconds: be done in so many seconds; the earlier of the two holds.
        grace: seconds after that for which what is in flight is followed.
        wait_lock: seconds to wait for another runner to leave.
    """

    db: PathLike | None
    simulate: bool
    faults: Sequence[str]
    only: Sequence[str]
    tags: Sequence[str]
    limit: int | None
    max_credits: int | None
    resubmit: bool
    until: datetime.time | None
    seconds: float | None
    grace: float
    wait_lock: float


def load(
    file: PathLike,
    *,
    profile: str | None = None,
    variables: Mapping[str, str] | None = None,
    models: Mapping[str, Model] | None = None,
) -> Manifest:
    """Read a manifest, check all of it, and expand it.

    Args:
        file: the manifest; findings show it as it is spelled here.
        profile: name of the profile to apply.
        variables: name to text, over the manifest's `vars`.
        models: the models there are; None for the shipped ones.

    Raises:
        ManifestError: with everything that is wrong, by position.
        UsageError: a variable contains the API key.
    """
    from .environment import secrets
    from .manifest import load as load_manifest

    return load_manifest(file, profile=profile, variables=variables, secrets=secrets(variables), models=models)


def plan(manifest: Manifest, *, db: PathLike | None = None, only: Sequence[str] = (), tags: Sequence[str] = ()) -> Plan:
    """What a run would do, cost and take. Nothing is recorded or sent, and no ledger is made.

    Raises:
        UsageError: nothing is selected. LedgerUnusable: the ledger can't be read.
    """
    from .app import read_ledger
    from .core.selection import Selection
    from .planning import make_plans

    connection = read_ledger(_ledger(db))
    try:
        [found] = make_plans([manifest], connection, Selection(tuple(only), tuple(tags)))
    finally:
        if connection is not None:
            connection.close()
    return found


async def run(
    manifests: Manifest | Sequence[Manifest],
    *,
    on_event: Callable[[Event], None] | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """Submit what is pending, poll and download, until everything has ended; continue what an earlier run has left.

    To cancel the task that awaits this ends the run as a signal does: submissions on the wire are answered and
    recorded first, and the next run goes on. Signal handlers are the caller's business.

    Args:
        manifests: valid ones; none for every unfinished batch of the ledger.
        on_event: called in the run's own event loop with everything that happens. It must return soon, and not raise.
        options: see `Options`.

    Returns:
        How the run ended, with the exit code that the command line would have.

    Raises:
        UsageError, LedgerUnusable: it could not begin; nothing was sent. LedgerBusy: another runner has the ledger.
    """
    from .app import run_here

    return await run_here(_options(manifests, options), _listener(on_event or _nobody))


async def events(manifests: Manifest | Sequence[Manifest], **options: Unpack[Options]) -> AsyncGenerator[Event, None]:
    """`run`, as the events that happen in it; the last one, `summary`, has the result.

    To leave the loop early ends the run as a cancelled `run` does, at once where the iterator is closed
    (`contextlib.aclosing`), otherwise when Python gets to it.

    Raises:
        As `run`, in place of the last event.
    """
    import asyncio

    from .engine.clock import wall

    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    task = asyncio.ensure_future(run(manifests, on_event=queue.put_nowait, **options))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (event := await queue.get()) is not None:
            yield event
        yield Event("summary", wall(), result=await task)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def _nobody(event: Event) -> None:
    del event


def _ledger(db: PathLike | None, *, simulate: bool = False) -> Address:
    text = os.fspath(db if db is not None else os.environ.get("BATCHRUNNER_DB") or DEFAULT_DB)
    simulate = simulate and db is None
    if is_url(text):
        try:
            server = parse(text)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return server.simulated if simulate else server
    path = Path(os.path.abspath(text))
    return path.with_name(simulated_name(path.name)) if simulate else path


def _options(manifests: Manifest | Sequence[Manifest], given: Options) -> RunOptions:
    from .app import RunOptions, Settings, seconds_left
    from .core.selection import Selection

    simulate = given.get("simulate", False)
    if given.get("faults") and not simulate:
        raise UsageError("faults need simulate=True")
    until, seconds = given.get("until"), given.get("seconds")
    ends = [end for end in (None if until is None else seconds_left(until), seconds) if end is not None]
    return RunOptions(
        db=_ledger(given.get("db"), simulate=simulate),
        manifests=list(manifests) if isinstance(manifests, Sequence) else [manifests],
        simulate=simulate,
        faults=given.get("faults", ()),
        selection=Selection(tuple(given.get("only", ())), tuple(given.get("tags", ()))),
        limit=given.get("limit"),
        max_credits=given.get("max_credits"),
        resubmit=given.get("resubmit", False),
        until=min(ends, default=None),
        wait_lock=given.get("wait_lock", 0.0),
        settings=Settings(grace=given.get("grace", Settings().grace)),
        signals=False,
    )


def _listener(hear: Callable[[Event], None]) -> Any:
    from .app import Watcher
    from .engine.clock import wall

    class Listener(Watcher):
        """Hands on what it is told."""

        def __init__(self) -> None:
            self._names: Mapping[int, str] = {}

        def started(self, run_id: int, batches: Mapping[int, str]) -> None:
            del run_id
            self._names = batches

        def begin(self, batches: Sequence[str], tally: Tally) -> None:
            states = {s.value: n for s, n in tally.states.items() if n}
            hear(Event("run_started", wall(), data={"batches": list(batches), "states": states}))

        def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
            if job is None:
                hear(Event(name, wall(), data=data))
                return
            state = data.pop("state", job.state.value)
            hear(Event(name, wall(), self._names.get(job.batch_id), job.key, state, data))

    return Listener()
