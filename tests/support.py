"""Small builders for tests: job specs, a ledger on a temporary path, and a clock that the test moves."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from batchrunner.core import events as e
from batchrunner.core.job import Job, JobSpec, Output, Problem, RetryBudget, State
from batchrunner.core.keys import fingerprint, job_key
from batchrunner.ledger.address import Address
from batchrunner.ledger.record import BatchSpec
from batchrunner.ledger.sql import TABLES, Connection
from batchrunner.ledger.store import Ledger

START = 1_800_000_000.0
"""Unix seconds at which a `FakeClock` starts."""


class FakeClock:
    """Both clocks, standing still until the test moves them."""

    def __init__(self, wall: float = START, monotonic: float = 1000.0) -> None:
        self.wall_now = wall
        self.monotonic_now = monotonic

    def wall(self) -> float:
        return self.wall_now

    def monotonic(self) -> float:
        return self.monotonic_now

    async def sleep(self, seconds: float) -> None:
        self.forward(seconds)

    def forward(self, seconds: float) -> None:
        self.wall_now += seconds
        self.monotonic_now += seconds


def spec(
    shot: str = "dog",
    take: int = 1,
    *,
    prompt: str | None = None,
    matrix: dict[str, Any] | None = None,
    tags: Sequence[str] = (),
    credits: int | None = 630,  # noqa: A002
    output: str | None = None,
    named: bool = True,
    provider: str = "reapi",
    model: str = "kling-3-0-turbo",
    seconds: int | None = 5,
) -> JobSpec:
    """A job as a manifest would ask for it; a changed `prompt` makes another revision of the same key."""
    key = job_key(shot, matrix or {}, take)
    request = {"model": model, "prompt": prompt or f"a {shot}", "duration": 5}
    return JobSpec(
        key=key,
        fingerprint=fingerprint(provider, model, request),
        shot=shot,
        take=take,
        matrix=matrix or {},
        tags=tuple(tags),
        provider=provider,
        model=model,
        request=request,
        credits=credits,
        output=f"{key}.mp4" if output is None else output,
        named=named,
        seconds=seconds,
    )


def batch(
    name: str = "night",
    *,
    max_credits: int | None = None,
    output_dir: str = "/out/night",
    retry: RetryBudget = RetryBudget(),  # noqa: B008
    profile: str | None = None,
) -> BatchSpec:
    """What a manifest says of its batch."""
    return BatchSpec(
        name=name,
        provider="reapi",
        manifest="/m/manifest.yaml",
        profile=profile,
        output_dir=output_dir,
        max_credits=max_credits,
        submits_per_minute=60.0,
        in_flight=20,
        retry=retry,
    )


@asynccontextmanager
async def open_ledger(path: Address, clock: FakeClock) -> AsyncIterator[Ledger]:
    """A real ledger in its own thread, closed at the end whatever happens."""
    ledger = await Ledger.open(path, clock.wall)
    try:
        yield ledger
    finally:
        await ledger.close()


async def with_jobs(ledger: Ledger, specs: Sequence[JobSpec], **of_batch: Any) -> list[Job]:
    """Record a batch, and return its jobs that are to be sent, in the manifest's order."""
    batch_id = await ledger.record(batch(**of_batch), specs)
    await ledger.batches()
    return await jobs_of(ledger, batch_id)


async def jobs_of(ledger: Ledger, batch_id: int) -> list[Job]:
    """Every job of a batch, oldest first."""
    ids = await ledger.query(lambda c: c.execute("SELECT id FROM job WHERE batch_id = ?", (batch_id,)).fetchall())
    return await ledger.jobs([row["id"] for row in ids])


async def drive(ledger: Ledger, job: Job, *events: e.Event) -> Job:
    """Let events happen to a job, each durable before the next."""
    for event in events:
        job = await ledger.advance(job, event)
    return job


def path_to(state: State, task_id: str = "task_1") -> tuple[e.Event, ...]:
    """The shortest way of a new job to a state."""
    accepted = (e.Claimed(), e.Accepted(task_id, "req_1"))
    completed = (*accepted, e.Completed(("https://x.test/a.mp4",)))
    return {
        State.PENDING: (),
        State.SUBMITTING: (e.Claimed(),),
        State.UNCONFIRMED: (e.Claimed(), e.Ambiguous(Problem("reset", "reset"))),
        State.RUNNING: accepted,
        State.DOWNLOADING: completed,
        State.SUCCEEDED: (*completed, e.Stored(Output("/out/a.mp4", "0" * 64, 3))),
        State.FAILED: (e.Claimed(), e.Rejected(Problem("no", 40000, 400, "req_2"))),
        State.CANCELLED: (e.Withdrawn("me", "no"),),
    }[state]


def dump(connection: Connection) -> list[str]:
    """Everything in a ledger: as SQL, or a line a row where it is no file."""
    if isinstance(connection, sqlite3.Connection):
        return list(connection.iterdump())
    return [
        f'INSERT INTO "{table}" {tuple(row)}'
        for table in TABLES
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
    ]


async def money(ledger: Ledger, name: str = "night") -> tuple[int, int, int]:
    """(spent, reserved, at risk) of a batch."""
    row = await ledger.query(
        lambda c: c.execute("SELECT spent, reserved, at_risk FROM batch WHERE name = ?", (name,)).fetchone()
    )
    return tuple(row)
