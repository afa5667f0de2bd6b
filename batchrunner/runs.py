"""What a run is asked for, what it tells meanwhile, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .catalogue import Model
from .core.frozen import Frozen
from .core.job import Job, State
from .core.selection import Selection
from .core.states import LEFT
from .engine.control import AT_ONCE, Stop
from .engine.ports import Crash, Settings, Tally, no_crash
from .exits import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EXIT_STOPPED,
    EXIT_UNCONFIRMED,
)
from .ledger.address import Address

if TYPE_CHECKING:
    from .ledger.early import EarlyLook
    from .manifest import Manifest, Promotion

LEFT_TO_WORKERS = "left to the workers"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `run` and `resume` were asked for.

    Attributes:
        db: path of the ledger.
        manifests: valid manifests; empty for `resume`. The list is emptied when they are recorded, so that memory
            does not grow with the manifest for the rest of the night.
        promotion: `promote`: the profile that the winners of its batch are promoted to, instead of manifests.
        batches: batches to resume, by name; with no manifests and no names: every unfinished one.
        simulate: against the built-in simulator.
        faults: faults of that simulator.
        selection: `--only`, `--tag`.
        limit: most new submissions, None for no limit.
        max_credits: `--max-credits`; the smaller of it and the manifest's budget holds.
        resubmit: `--on-unconfirmed resubmit`.
        until: seconds from now after which nothing more is submitted.
        wait_lock: seconds to wait for another runner to leave.
        plan: `--plan`: a frozen plan; what would pay for anything else is refused before anything is recorded.
        remote: take a person's word over a socket beside the ledger while the run is alive (docs/live.md).
        signals: SIGINT and SIGTERM end the run; otherwise they are the caller's.
        settings: how the engine behaves, except for what the options and the batches say.
        models: the models there are; None for the shipped ones.
        look: a look at the ledger that has begun already.
        crash: called with the name of every durable step; for tests.
    """

    db: Address
    manifests: list[Manifest] = field(default_factory=list)
    promotion: Promotion | None = None
    batches: Sequence[str] = ()
    simulate: bool = False
    faults: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)
    limit: int | None = None
    max_credits: int | None = None
    resubmit: bool = False
    until: float | None = None
    wait_lock: float = 0.0
    plan: Frozen | None = None
    remote: bool = False
    signals: bool = True
    settings: Settings = field(default_factory=Settings)
    models: Mapping[str, Model] | None = None
    look: EarlyLook | None = None
    crash: Crash = no_crash


class Watcher:
    """Is told what happens in a run; the command line's displays derive from it."""

    def started(self, run_id: int, batches: Mapping[int, str]) -> None:
        """The run has its number in the ledger; its batches, row id to name."""

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        """The work is known and starts now."""

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        """Something happened."""

    def ended(self, result: RunResult) -> None:
        """It is over."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the exit code, the status of its batches, and why it stopped early, if it did.
    `told_by_workers`: it was left to workers, who tell of its end."""

    exit_code: int
    batches: list[dict[str, Any]]
    stop: Stop | None
    message: str
    told_by_workers: bool = False


def exit_code(stop: Stop | None, current: dict[State, int], old: dict[State, int], unrecorded: int = 0) -> int:
    """The exit code of CONTRACT.md for how a run stopped and what it leaves."""
    if stop is Stop.INTERRUPTED:
        return EXIT_SIGINT
    if stop is Stop.TERMINATED:
        return EXIT_SIGTERM
    if stop in AT_ONCE:
        return EXIT_REFUSED
    if current.get(State.UNCONFIRMED) or old.get(State.UNCONFIRMED):
        return EXIT_UNCONFIRMED
    if unrecorded or any(current.get(s) or (s is not State.PENDING and old.get(s)) for s in LEFT):
        return EXIT_STOPPED
    return EXIT_FAILED if current.get(State.FAILED) else EXIT_OK
