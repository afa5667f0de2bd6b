"""What the engine is handed: everything outside the rules, by what it must do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..core import events as e
from ..core.job import Job, State
from ..core.media import Ordered, warnings_of
from ..core.places import Place
from ..core.polling import PollPolicy
from ..core.selection import Selection
from ..ledger.due import Batch
from ..ledger.store import Ledger, Schedule
from ..providers.base import Provider
from ..providers.fetch import Fetcher
from .clock import Clock, Dice
from .spool import Spool
from .stores import Stores

Crash = Callable[[str], None]
"""Called with the name of every durable step and effect as it is passed. Does nothing, except in tests."""

CRASH_POINTS = (
    "start.opened",
    "recover.restored",
    "recover.spool",
    "recover.cleared",
    "recover.interrupted",
    "start.begun",
    "start.recorded",
    "record.part",
    "word.recorded",
    "start.bound",
    "start.noted",
    "supply.polled",
    "supply.held",
    "submit.before_intent",
    "submit.intent",
    "submit.answered",
    "submit.spooled",
    "submit.recorded",
    "poll.sent",
    "poll.answered",
    "poll.recorded",
    "download.start",
    "download.fetched",
    "place.sidecar",
    "place.renamed",
    "place.folder_synced",
    "download.placed",
    "download.recorded",
    "download.link_died",
    "end.noted",
)
"""Every name that `Crash` is called with in a run over the shipped services; a test holds the list complete."""

LOOKUP_POINTS = ("lookup.answered", "lookup.recorded", "lookup.noted")
"""And where a service can be asked what became of a submission."""


class Observer(Protocol):
    """Is told what happens: progress display, NDJSON, log."""

    def __call__(self, event: str, job: Job | None = None, /, **data: Any) -> None: ...


def no_crash(point: str) -> None:
    del point


def _nothing(job: Job) -> Ordered:
    del job
    return Ordered()


def _anything(job: Job, request: Mapping[str, Any]) -> str:
    del job, request
    return ""


class NotOffered(Exception):
    """The upload command gave no URL; the message says why."""


def _nobody(event: str, job: Job | None = None, /, **data: Any) -> None:
    del event, job, data


@dataclass(frozen=True, slots=True)
class Settings:
    """How one run behaves. Times in seconds.

    Attributes:
        submits_per_minute: upper bound on the rate of POSTs.
        in_flight: upper bound on POSTs and running tasks together.
        max_posts: POSTs on the wire at once: bounds what a crash can leave in doubt.
        max_polls: polls on the wire at once.
        polls_per_minute: budget of polls shared by everything in flight, of several accounts each a part; None for
            `poll_budget(in_flight)`.
        max_downloads: downloads at once.
        max_submissions: `--limit`, None for none.
        deadline: monotonic time by which what is submitted should be done, None for none; see `core.deadline`.
        grace: how long after the deadline what is in flight is followed, before it is left to the next run.
        poll: when to poll.
        lost_after: how long the provider must not know a task before it is lost.
        poll_patience: how long the polls of one task may go on failing before it is left for the next run.
        download_patience: how long a download may go on failing before it is left for the next run.
        bad_content_tries: how often a complete but unusable file is fetched again from one URL.
        retry_delay: shortest wait before a failed download or poll is repeated.
        min_free_bytes: free space on the output disk below which nothing is submitted.
        batch_sync: seconds between two notes of the poll schedule.
        first_part: jobs of a large new batch that are recorded before the first is sent.
        part: jobs of it that are recorded together after that.
    """

    submits_per_minute: float = 300.0
    in_flight: int = 50
    max_posts: int = 32
    max_polls: int = 32
    polls_per_minute: float | None = None
    max_downloads: int = 12
    max_submissions: int | None = None
    deadline: float | None = None
    grace: float = 3600.0
    poll: PollPolicy = field(default_factory=PollPolicy)
    lost_after: float = 900.0
    poll_patience: float = 3600.0
    download_patience: float = 900.0
    bad_content_tries: int = 3
    retry_delay: float = 1.0
    min_free_bytes: int = 128 * 1024 * 1024
    batch_sync: float = 5.0
    first_part: int = 1000
    part: int = 200


def poll_budget(in_flight: int) -> float:
    """Polls a minute that a run may make: 20 a second, or one every two seconds for each slot in flight, whichever is
    more. The service recommends a poll every 1 to 3 s for one task (REAPI.md, Errors); the schedule asks for far fewer,
    and this is only the bound on its bursts."""
    return max(1200.0, 30.0 * in_flight)


@dataclass(slots=True)
class Tally:
    """Counts of the run's jobs by state, kept up to date in memory for people to watch."""

    states: dict[State, int] = field(default_factory=dict)

    def move(self, before: State, after: State) -> None:
        self.states[before] = self.states.get(before, 0) - 1
        self.states[after] = self.states.get(after, 0) + 1


@dataclass(slots=True, kw_only=True)
class Books:
    """What it takes to write something down: the ledger, and everybody who wants to hear of it."""

    ledger: Ledger
    spool: Spool
    clock: Clock
    observe: Observer = _nobody
    crash: Crash = no_crash
    tally: Tally = field(default_factory=Tally)

    async def advance(self, job: Job, event: e.Event) -> Job:
        """A durable transition that everybody who watches hears of. Raises as `Ledger.advance` does."""
        after = await self.ledger.advance(job, event)
        self.tally.move(job.state, after.state)
        self.observe(type(event).__name__.lower(), after, state=after.state.value, **_details(event))
        return after


@dataclass(slots=True, kw_only=True)
class Deps(Books):
    """The parts that a run is put together from (by `app.py`)."""

    provider: Provider
    fetcher: Fetcher
    dice: Dice
    output_kind: Callable[[str], str]
    """Model name to `video`, `image` or `audio`."""
    ordered: Callable[[Job], Ordered] = _nothing
    """What a job's request asks for, as far as a file can be held against it."""
    fits: Callable[[Job, Mapping[str, Any]], str] = _anything
    """What is wrong with a request that was made for a job; empty for nothing."""
    offer: Callable[[Path], Awaitable[str]] | None = None
    """Makes a file public, by the user's own command, and gives its URL, which is not trusted. Raises NotOffered. None
    where the user has named none."""
    moved: Callable[[Job], None] | None = None
    """Is told of a job that another writer of the ledger has moved on: it is nobody's here any more. None where there
    is no other writer, so that it would be a bug."""
    provider_of: Callable[[str], Provider | None] | None = None
    """Model name to the account that has its tasks, where the run has that; None where all are `provider`'s."""
    fetchers: Mapping[str, Fetcher] = field(default_factory=dict)
    """Provider name to what fetches its outputs, where that is not `fetcher`."""
    stores: Stores = field(default_factory=Stores)
    """Where outputs are kept."""
    simulated: bool = False
    """Whether the provider is the built-in simulator: sidecars say so."""


def _details(event: e.Event) -> dict[str, Any]:
    match event:
        case e.Accepted():
            return {"task_id": event.task_id, "request_id": event.request_id}
        case e.Identified():
            return {"task_id": event.task_id}
        case e.Stored(output=output, kept=kept):
            files = [one.output.path for one in kept if one.output is not None]
            told = {"output": output.path, "sha256": output.sha256, "bytes": output.size}
            return {
                **told,
                **({"outputs": files} if len(files) > 1 else {}),
                **({"warnings": words} if (words := warnings_of(kept)) else {}),
            }
        case e.Claimed() | e.Completed() | e.Resubmitted() | e.Abandoned() | e.Retried() | e.Withdrawn():
            return {}
        case _:
            problem = event.problem
            return {"error": {"code": problem.code, "message": problem.message, "request_id": problem.request_id}}


@dataclass(frozen=True, slots=True)
class Work:
    """Which jobs a run is about.

    Attributes:
        batches, selection: whose jobs, and which of them.
        consents: row ids of unconfirmed jobs, and who has said that they may be sent again, once their service was
            asked.
    """

    batches: Sequence[Batch]
    selection: Selection = field(default_factory=Selection)
    consents: Mapping[int, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[int]:
        return [b.id for b in self.batches]

    def place(self, job: Job) -> Place:
        """Where the outputs of a job's batch go."""
        return self._batch(job).output_dir

    def name(self, job: Job) -> str:
        """The name of a job's batch."""
        return self._batch(job).name

    def _batch(self, job: Job) -> Batch:
        return next(b for b in self.batches if b.id == job.batch_id)


__all__ = [
    "CRASH_POINTS",
    "Batch",
    "Books",
    "Crash",
    "Deps",
    "NotOffered",
    "Observer",
    "Schedule",
    "Settings",
    "Tally",
    "Work",
    "no_crash",
    "poll_budget",
]
