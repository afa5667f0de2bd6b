"""What a manifest means, after it has been read, checked and expanded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.job import JobSpec, RetryBudget
from ..core.limits import Limits
from ..core.notice import Sink
from ..core.places import Place

DEFAULT_SUBMITS_PER_MINUTE = 300.0
DEFAULT_IN_FLIGHT = 50
"""Upper bounds where a manifest names none. The service's own limits are unknown; a 429 holds every call."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One error or warning, sorted by position.

    Attributes:
        file: the file as the user named it (includes: relative to the first manifest's spelling of its folder).
        line, column: 1-based.
        path: where in the tree, such as `shots[3].matrix.duration[1]`; empty for the file itself.
        message: what is wrong and what is allowed.
        warning: True where the run may go on.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        kind = "warning" if self.warning else "error"
        return f"{self.file}:{self.line}:{self.column}: {kind}: {self.message}"


class ManifestError(Exception):
    """The manifest is not valid. Nothing may be submitted.

    Attributes:
        findings: every error and warning, sorted by position; at least one error.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(str(f) for f in findings))
        self.findings = findings


class JobSource(Protocol):
    """Job specs that can be walked more than once, in the manifest's order, without holding them all."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[JobSpec]: ...


@dataclass(slots=True)
class Sums:
    """What the jobs of a manifest come to, as the checks have met them: nobody has to make them for that again.

    Attributes:
        models: name of a model to how many jobs are its.
        credits: what the jobs of a known price would cost together.
        unpriced: how many have none.
    """

    models: Counter[str] = field(default_factory=Counter)
    credits: int = 0
    unpriced: int = 0

    @property
    def jobs(self) -> int:
        """How many there are."""
        return self.models.total()

    def add(self, model: str, price: int | None) -> None:
        """One more job, and its price in credits where that is known."""
        self.models[model] += 1
        if price is None:
            self.unpriced += 1
        else:
            self.credits += price


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest, expanded.

    Attributes:
        file: absolute path of the manifest.
        batch: the batch's name.
        profile: name of the profile that was applied, if any.
        provider: the provider that all models must be of; the default where they may be of any.
        max_credits: `budget.max_credits`, None for no cap.
        submits_per_minute, in_flight: upper bounds.
        retry: new submissions allowed after failed, refunded tasks.
        output_dir: absolute folder of the outputs, or a prefix in object storage.
        jobs: the jobs, in order.
        warnings: what the user should know; the run may go on.
        notify: who is told how a run ended.
        providers: of the models that the jobs use.
        limits: further bounds, of polls, and for single providers and models.
        chained: whether a job needs another one's output.
        sums: what the jobs come to.
    """

    file: Path
    batch: str
    profile: str | None
    provider: str
    max_credits: int | None
    submits_per_minute: float
    in_flight: int
    retry: RetryBudget
    output_dir: Place
    jobs: JobSource
    warnings: tuple[Finding, ...]
    notify: tuple[Sink, ...] = ()
    providers: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    chained: bool = False
    sums: Sums = field(default_factory=Sums)
