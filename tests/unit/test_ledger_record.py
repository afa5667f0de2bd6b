"""Recording a manifest: what is new, what changed, what is gone, and whose file is whose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, JobSpec, RetryBudget, State
from batchrunner.core.limits import Bounds, Limits
from batchrunner.ledger import record as recording
from batchrunner.ledger.address import Address
from batchrunner.ledger.errors import WriteFailed
from batchrunner.ledger.record import OutputClash
from batchrunner.ledger.store import Ledger
from tests.support import START, FakeClock, batch, drive, dump, jobs_of, open_ledger, path_to, spec, with_jobs

BOTH_STORES = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def ledger(path: Address, clock: FakeClock) -> AsyncIterator[Ledger]:
    async with open_ledger(path, clock) as opened:
        yield opened


async def rows(ledger: Ledger, columns: str = "key, revision, current, state, output") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = await ledger.query(
        lambda c: [tuple(r) for r in c.execute(f"SELECT {columns} FROM job ORDER BY id")]
    )
    return found


async def state_of(ledger: Ledger) -> list[str]:
    found: list[str] = await ledger.query(dump)
    return found


async def record(ledger: Ledger, *specs: JobSpec, **of_batch: Any) -> list[Job]:
    return await with_jobs(ledger, specs, **of_batch)


async def test_new_jobs(ledger: Ledger) -> None:
    matrix = {"place": "beach", "on": True, "n": None, "ü": 1.5}
    await record(
        ledger, spec("a", tags=["hero", "ü"], matrix=matrix), spec("b", 2, credits=None, seconds=None, named=False)
    )
    found = await ledger.query(lambda c: [dict(r) for r in c.execute("SELECT * FROM job ORDER BY id")])
    first, second = found
    assert json.loads(first["matrix"]) == matrix
    assert json.loads(first["tags"]) == ["hero", "ü"]
    assert json.loads(first["request"]) == {"model": "kling-3-0-turbo", "prompt": "a a", "duration": 5}
    assert (first["position"], first["revision"], first["current"], first["state"]) == (0, 1, 1, "pending")
    assert (first["created_at"], first["updated_at"]) == (START, START)
    assert (second["shot"], second["take"], second["credits"], second["seconds"], second["named"]) == (
        "b",
        2,
        None,
        None,
        0,
    )
    history = await ledger.query(
        lambda c: [tuple(r) for r in c.execute("SELECT job_id, to_state, event, reason FROM history")]
    )
    assert history == [(1, "pending", "recorded", "revision 1"), (2, "pending", "recorded", "revision 1")]


async def test_a_second_record_changes_nothing(ledger: Ledger) -> None:
    specs = [spec("a"), spec("b", tags=["x"]), spec("c", matrix={"d": 5})]
    jobs = await record(ledger, *specs)
    await drive(ledger, jobs[0], *path_to(State.SUCCEEDED))
    await drive(ledger, jobs[1], *path_to(State.FAILED))
    before = await state_of(ledger)
    await record(ledger, *specs)
    assert await state_of(ledger) == before


async def test_the_batch_is_refreshed(ledger: Ledger, clock: FakeClock) -> None:
    await record(ledger, spec(), max_credits=10)
    clock.forward(60)
    changed = replace(
        batch(retry=RetryBudget(2, 1), profile="final"), submits_per_minute=6.0, in_flight=3, provider="other"
    )
    assert await ledger.record(changed, [spec()]) == 1
    (found,) = await ledger.query(lambda c: [dict(r) for r in c.execute("SELECT * FROM batch")])
    assert (found["max_credits"], found["profile"], found["provider"]) == (None, "final", "other")
    assert (found["submits_per_minute"], found["in_flight"]) == (6.0, 3)
    assert (found["created_at"], found["updated_at"]) == (START, START + 60)
    (read,) = await ledger.batches(["night"])
    assert (read.submits_per_minute, read.in_flight, read.retry, read.output_dir) == (
        6.0,
        3,
        RetryBudget(2, 1),
        Path("/out/night"),
    )
    assert await ledger.batches(["another"]) == []


async def test_bounds_outlive_the_manifest(ledger: Ledger) -> None:
    limits = Limits({"fal": Bounds(None, 4)}, {}, 90.0)
    await ledger.record(replace(batch(), limits=limits.packed()), [spec("a")])
    assert [b.limits for b in await ledger.batches()] == [limits]


async def test_a_changed_request_is_a_new_revision(ledger: Ledger) -> None:
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(State.RUNNING))
    history = await ledger.query(lambda c: [tuple(r) for r in c.execute("SELECT * FROM history WHERE job_id = 1")])
    await record(ledger, spec(prompt="another"))
    assert await rows(ledger) == [
        ("dog-1", 1, 0, "running", "dog-1.mp4"),
        ("dog-1", 2, 1, "pending", "dog-1.r2.mp4"),
    ]
    assert history == await ledger.query(
        lambda c: [tuple(r) for r in c.execute("SELECT * FROM history WHERE job_id = 1")]
    )
    assert await ledger.query(lambda c: c.execute("SELECT reserved FROM batch").fetchone()[0]) == 630


async def test_removed_and_added_back(ledger: Ledger) -> None:
    a, b = spec("a"), spec("b")
    await record(ledger, a, b)
    before = await state_of(ledger)
    await record(ledger, a)
    assert [r[:3] for r in await rows(ledger)] == [("a-1", 1, 1), ("b-1", 1, 0)]
    await record(ledger, a, b)
    assert await state_of(ledger) == before
    await record(ledger)
    assert [r[2] for r in await rows(ledger)] == [0, 0]


async def test_edited_and_reverted(ledger: Ledger) -> None:
    await record(ledger, spec())
    before = await state_of(ledger)
    await record(ledger, spec(prompt="other"))
    await record(ledger, spec())
    assert [r[:4] for r in await rows(ledger)] == [("dog-1", 1, 1, "pending"), ("dog-1", 2, 0, "pending")]
    assert set(before) - set(await state_of(ledger)) == set()
    await record(ledger, spec(prompt="third"))
    assert [r[1:3] for r in await rows(ledger)] == [(1, 0), (2, 0), (3, 1)]


async def test_another_provider_or_model_is_another_request(ledger: Ledger) -> None:
    await record(ledger, spec())
    await record(ledger, spec(provider="elsewhere"))
    await record(ledger, spec(model="veo"))
    assert [r[1:3] for r in await rows(ledger)] == [(1, 0), (2, 0), (3, 1)]


async def test_a_recorded_job_is_refreshed(ledger: Ledger) -> None:
    await record(ledger, spec("a"), spec("b", tags=["x"], credits=None))
    await record(ledger, spec("b", tags=["y"], credits=99, output="elsewhere/b", named=False), spec("a"))
    found = await rows(ledger, "key, position, tags, credits, output, named")
    assert found == [("a-1", 1, "[]", 630, "a-1.mp4", 1), ("b-1", 0, '["y"]', 99, "elsewhere/b", 0)]


@pytest.mark.parametrize("state", State)
async def test_the_name_of_a_file_that_may_exist_stays(ledger: Ledger, state: State) -> None:
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(state))
    await record(ledger, spec(output="new.mp4"))
    expected = "new.mp4" if state in {State.PENDING, State.FAILED} else "dog-1.mp4"
    assert (await rows(ledger))[0][4] == expected


# --- Whose file ------------------------------------------------------------------------------------------

HAS_FILE = {State.SUBMITTING, State.UNCONFIRMED, State.RUNNING, State.DOWNLOADING, State.SUCCEEDED}


@pytest.mark.parametrize("state", State)
async def test_a_new_revision_leaves_the_older_ones_file_alone(ledger: Ledger, state: State) -> None:
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(state))
    await record(ledger, spec(prompt="other"))
    expected = "dog-1.r2.mp4" if state in HAS_FILE else "dog-1.mp4"
    assert (await rows(ledger))[1][4] == expected
    before = await state_of(ledger)
    await record(ledger, spec(prompt="other"))
    assert await state_of(ledger) == before


async def test_the_third_revision(ledger: Ledger) -> None:
    (job,) = await record(ledger, spec(output="x/dog.final.mp4"))
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    jobs = await record(ledger, spec(prompt="2", output="x/dog.final.mp4"))
    await drive(ledger, jobs[1], *path_to(State.SUCCEEDED, "task_2"))
    await record(ledger, spec(prompt="3", output="x/dog.final.mp4"))
    assert [r[4] for r in await rows(ledger)] == ["x/dog.final.mp4", "x/dog.final.r2.mp4", "x/dog.final.r3.mp4"]


async def test_a_name_without_its_extension(ledger: Ledger) -> None:
    (job,) = await record(ledger, spec(matrix={"r": 0.5}, output="dog@r=0.5-1", named=False))
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    await record(ledger, spec(matrix={"r": 0.5}, prompt="2", output="dog@r=0.5-1", named=False))
    assert [r[4] for r in await rows(ledger)] == ["dog@r=0.5-1", "dog@r=0.5-1.r2"]


async def test_a_name_that_moved_to_another_shot(ledger: Ledger) -> None:
    """Shots swap their output names: what is finished keeps its file."""
    (job,) = await record(ledger, spec("a", output="hero.mp4"))
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    await record(ledger, spec("a", output="old.mp4"), spec("b", output="hero.mp4"))
    assert [(r[0], r[4]) for r in await rows(ledger)] == [("a-1", "hero.mp4"), ("b-1", "hero.r2.mp4")]


async def test_two_batches_and_one_file(ledger: Ledger) -> None:
    await record(ledger, spec())
    before = await state_of(ledger)
    with pytest.raises(OutputClash, match=r"batch night of this ledger writes dog-1\.mp4 into the same folder"):
        await record(ledger, spec(), name="other")
    assert await state_of(ledger) == before  # not even the batch
    await record(ledger, spec(), name="other", output_dir="/out/other")
    assert len(await rows(ledger)) == 2


@pytest.mark.parametrize(("state", "clash"), [(State.CANCELLED, False), (State.FAILED, True), (State.SUCCEEDED, True)])
async def test_what_the_other_batchs_job_has_come_to(ledger: Ledger, state: State, clash: bool) -> None:
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(state))
    if clash:
        with pytest.raises(OutputClash):
            await record(ledger, spec(), name="other")
    else:
        await record(ledger, spec(), name="other")


async def test_another_batchs_finished_file_counts_after_its_job_was_removed(ledger: Ledger) -> None:
    pending, done = await record(ledger, spec("a"), spec("b"))
    await drive(ledger, done, *path_to(State.SUCCEEDED))
    await record(ledger)
    await record(ledger, spec("a"), name="other")
    with pytest.raises(OutputClash):
        await record(ledger, spec("b"), name="third")
    assert pending.key == "a-1"


async def test_a_free_name_is_free_in_the_folder_not_only_in_the_batch(ledger: Ledger) -> None:
    await record(ledger, spec("other", output="dog-1.r2.mp4"), name="neighbour")
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    await record(ledger, spec(prompt="2"))
    assert (await rows(ledger))[-1][4] == "dog-1.r3.mp4"


async def test_another_folder_does_not_matter(ledger: Ledger) -> None:
    await record(ledger, spec("other", output="dog-1.r2.mp4"), name="far", output_dir="/far")
    (job,) = await record(ledger, spec())
    await drive(ledger, job, *path_to(State.SUCCEEDED))
    await record(ledger, spec(prompt="2"))
    assert (await rows(ledger))[-1][4] == "dog-1.r2.mp4"


async def test_other_files_can_be_planned_for_what_is_not_sent(ledger: Ledger) -> None:
    one, two = await record(ledger, spec("a", named=False, output="a"), spec("b"))
    await drive(ledger, two, *path_to(State.RUNNING))
    await ledger.rename_outputs([(one.id, "a.2.mp4"), (two.id, "b.2.mp4")])
    assert await rows(ledger, "output, named") == [("a.2.mp4", 1), ("b-1.mp4", 1)]


# --- All or nothing --------------------------------------------------------------------------------------


async def test_two_jobs_of_one_key_are_refused_whole(ledger: Ledger) -> None:
    await record(ledger, spec())
    before = await state_of(ledger)
    with pytest.raises(WriteFailed, match=r"UNIQUE constraint failed: incoming.key"):
        await record(ledger, spec("new"), spec("dog"), spec("dog", prompt="2"))
    assert await state_of(ledger) == before
    await record(ledger, spec("new"), spec("dog"))


async def test_jobs_that_can_be_walked_only_once(ledger: Ledger) -> None:
    """A failing neighbour makes the whole group run again: the second time the jobs must be there too."""
    (job,) = await record(ledger, spec("a"))
    stale = await ledger.advance(job, e.Claimed())
    await ledger.advance(stale, e.NotSent(_problem()))
    specs: Sequence[JobSpec] = [spec("a"), spec("b")]
    # The first put starts a group; what follows shares the next.
    results = await asyncio.gather(
        ledger.cap(["night"], 10_000),
        ledger.record(batch(), (s for s in specs)),
        ledger.advance(stale, e.Accepted("t")),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["NoneType", "int", "Conflict"]
    assert [(r[0], r[2]) for r in await rows(ledger)] == [("a-1", 1), ("b-1", 1)]


def _problem() -> Any:
    from batchrunner.core.job import Problem

    return Problem("x")


async def test_ten_thousand_jobs(ledger: Ledger) -> None:
    specs = [spec(f"s{n}") for n in range(10_000)]
    batch_id = await ledger.record(batch(), specs)
    assert len(await jobs_of(ledger, batch_id)) == 10_000
    edited = [spec(f"s{n}", prompt="new" if n % 100 == 0 else None) for n in range(10_000)]
    await ledger.record(batch(), edited)
    counts = await ledger.query(lambda c: c.execute("SELECT current, count(*) FROM job GROUP BY current").fetchall())
    assert [tuple(r) for r in counts] == [(0, 100), (1, 10_000)]
    assert await ledger.query(lambda c: c.execute("SELECT count(*) FROM history").fetchone()[0]) == 10_100


# --- Jobs that are found unchanged -----------------------------------------------------------------------


def edits() -> list[list[JobSpec]]:
    """Manifests one after the other, each of which is nearly the one before it."""
    plain = [spec(f"s{n}", tags=["x"], credits=630) for n in range(8)]
    return [
        plain,
        [*plain[:3], spec("s3", prompt="new", tags=["x"]), *plain[4:]],  # one changes
        [*plain[:2], *plain[3:]],  # one goes, and the others move up; another comes back to what it was
        [spec("first"), *plain],  # one comes at the top
        [plain[1], plain[0], *plain[2:7], spec("s7", tags=["y"], credits=630)],  # two change places; tags
        [replace(one, credits=None) for one in plain[:4]]
        + [replace(one, output=f"new/{one.key}") for one in plain[4:]],
        [replace(one, named=False) for one in plain],
        [replace(one, tags=("x", "y")) for one in reversed(plain)],
        plain[:5],
        [],
        plain,
        *[[*plain[:2], other, *plain[3:]] for other in only_one_thing_else(plain[2])],
    ]


def only_one_thing_else(one: JobSpec) -> list[JobSpec]:
    """The same in the same place, but for its tags, its price, its file, who named it, or its id."""
    other = replace(one, shot="z", key="z-1")
    return [
        replace(one, tags=("y",)),
        replace(one, tags=("y",), credits=631),
        replace(one, tags=("y",), credits=631, output="z.mp4"),
        replace(one, tags=("y",), credits=631, output="z.mp4", named=not one.named),
        replace(other, tags=("y",), credits=631, output="z.mp4", named=not one.named),
    ]


async def after_edits(ledger: Ledger, clock: FakeClock) -> list[str]:
    """What a ledger holds after all of them, while a night goes on."""
    told: list[str] = []
    for number, specs in enumerate(edits()):
        clock.forward(60)
        jobs = {job.key: job for job in await record(ledger, *specs)}
        for key, state in (("s0-1", State.SUCCEEDED), ("s5-1", State.FAILED), ("s6-1", State.RUNNING)):
            job = jobs.get(key)
            if job is not None and job.state is State.PENDING and number % 2 == 0:
                await drive(ledger, job, *path_to(state, f"task_{key}_{number}"))
        told += [f"--- {number}", *await state_of(ledger)]
    return told


async def test_what_is_left_out_changes_nothing(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same manifests into two ledgers: into one as they are, into the other without a job being left out."""
    told = []
    for leave_out in (True, False):
        with monkeypatch.context() as patch:
            if not leave_out:
                patch.setattr(recording, "_unchanged", lambda *_: False)
            own = FakeClock()
            async with open_ledger(tmp_path / f"{leave_out}.db", own) as ledger:
                told.append(await after_edits(ledger, own))
    assert told[0] == told[1]


async def test_an_unchanged_manifest_writes_no_job_anew(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [spec(f"s{n}") for n in range(50)]
    await record(ledger, *specs)
    written: list[str] = []
    real = recording._incoming

    def counting(position: int, job: JobSpec) -> tuple[object, ...]:
        written.append(job.key)
        return real(position, job)

    monkeypatch.setattr(recording, "_incoming", counting)
    await record(ledger, *specs[:20], spec("s20", prompt="new"), *specs[21:])
    assert written == ["s20-1"]
