"""One scenario's own place: a folder with a ledger and outputs, and a batch to run in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchrunner.core.chain import Need
from batchrunner.core.job import JobSpec
from batchrunner.core.keys import fingerprint, job_key
from batchrunner.core.polling import PollPolicy
from batchrunner.engine.ports import Settings
from batchrunner.manifest import Manifest
from tests.crash.faults import Fault
from tests.double import Door
from tests.voices import VOICES

BATCH = "night"

SETTINGS = Settings(
    poll=PollPolicy(shortest=0.004, longest=0.012),
    retry_delay=0.004,
    lost_after=0.03,
    polls_per_minute=1e6,
    min_free_bytes=1,
)
"""A night in milliseconds."""


class Jobs:
    """Job specs as a manifest has them."""

    def __init__(self, number: int, price: int, *, chain: bool = False, services: Sequence[str] = ("reapi",)) -> None:
        self._jobs: list[JobSpec] = []
        for n in range(number):
            last = self._jobs[-1] if chain and self._jobs else None
            self._jobs.append(_job(f"shot{n}", price, last, services[n % len(services)]))

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self._jobs)


def _job(shot: str, price: int, last: JobSpec | None, service: str) -> JobSpec:
    frame = None if last is None else Need(last.key, last.fingerprint, "output_url").reference
    request = VOICES[service].request(f"a {shot}", frame)
    key = job_key(shot, {}, 1)
    return JobSpec(
        key=key,
        fingerprint=fingerprint(service, request["model"], request),
        shot=shot,
        take=1,
        matrix={},
        tags=(),
        provider=service,
        model=request["model"],
        request=request,
        credits=price,
        output=key,
        named=False,
        seconds=5,
    )


@dataclass(frozen=True, slots=True)
class Workspace:
    """Attributes:
    folder: empty at first, and nobody else's.
    door: the double's account for it.
    fault: what goes wrong.
    """

    folder: Path
    door: Door
    fault: Fault

    @property
    def db(self) -> Path:
        return self.folder / "night.db"

    @property
    def outputs(self) -> Path:
        return self.folder / "out"

    def manifest(self) -> Manifest:
        return Manifest(
            file=self.folder / "night.yaml",
            batch=BATCH,
            profile=None,
            provider="reapi",
            max_credits=self.fault.budget,
            submits_per_minute=60_000.0,
            in_flight=self.fault.in_flight,
            retry=self.fault.retry,
            output_dir=self.outputs,
            jobs=Jobs(self.fault.jobs, self.fault.plan.credits, chain=self.fault.chain, services=self.fault.services),
            warnings=(),
            chained=self.fault.chain,
            providers=frozenset(self.fault.services),
        )
