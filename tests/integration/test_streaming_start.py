"""A large new batch begins to be sent while the rest of it is being recorded, and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from batchrunner import app
from batchrunner.core.job import Job, JobSpec
from batchrunner.core.selection import Selection
from batchrunner.engine.ports import Tally
from batchrunner.exits import UsageError
from batchrunner.ledger.record import OutputClash
from batchrunner.ledger.store import Ledger
from batchrunner.manifest import Manifest
from tests.cli_support import call
from tests.crash.checks import Books, check_end, check_now, check_recorded
from tests.crash.faults import Fault
from tests.crash.workspace import BATCH, SETTINGS, Workspace
from tests.double import ALWAYS, CREDITS, Double, Plan, Rule

JOBS = 12
PARTS = replace(SETTINGS, first_part=3, part=4)
"""Recorded before the first is sent: 3; then 4, 4 and 1."""


class Cut(Exception):
    """A run that ends here."""


class Night:
    """A batch of twelve against the double, in this process."""

    def __init__(self, double: Double, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
        self._double = double
        self._name = folder.name + str(abs(hash(folder)))
        self.space = Workspace(folder, double.open(self._name, fault.plan), fault)
        self.points: list[str] = []
        self.stop_at = ("", 0)
        for name, value in self.space.door.environment.items():
            monkeypatch.setenv(name, value)

    def _pass(self, point: str) -> None:
        self.points.append(point)
        if self.points.count(point) == self.stop_at[1] and point == self.stop_at[0]:
            raise Cut

    def run(self, *manifests: Manifest, watcher: app.Watcher | None = None, **options: object) -> app.RunResult:
        self.points = []
        asked = app.RunOptions(
            db=self.space.db,
            manifests=list(manifests or [self.space.manifest()]),
            settings=PARTS,
            crash=self._pass,
        )
        result = app.run(replace(asked, **options), watcher or app.Watcher())  # type: ignore[arg-type]
        account, books, stop = self._double.account(self._name), self.books, result.stop.value if result.stop else None
        assert check_now(books, account, self.space.outputs, self.space.fault.budget) == []
        if "selection" not in options:
            assert check_end(books, account, self.space.outputs, result.exit_code, stop) == []
        return result

    def cut(self, point: str, number: int = 1) -> None:
        """A run that breaks off at the n-th passing of a point."""
        self.stop_at = (point, number)
        with pytest.raises(Cut):
            self.run()
        self.stop_at = ("", 0)

    @property
    def books(self) -> Books:
        return Books(self.space.db, self.space.folder / "copy")

    @property
    def parts(self) -> int:
        """How many parts the last run has recorded."""
        return self.points.count("start.begun") + self.points.count("record.part")

    def posts(self) -> list[str]:
        return [post.label for post in self._double.account(self._name).posts]


@pytest.fixture
def night(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(double, tmp_path, monkeypatch, Fault(Plan(polls=1), jobs=JOBS))


def test_the_first_is_sent_before_the_last_is_recorded(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Ledger.append

    async def last_of_all(ledger: Ledger, batch_id: int, jobs: Sequence[JobSpec], position: int) -> None:
        """The last part waits for the first submission: if that waited too, this test would never end."""
        while position + len(jobs) == JOBS and "submit.intent" not in night.points:
            await asyncio.sleep(0.001)
        await append(ledger, batch_id, jobs, position)

    monkeypatch.setattr(Ledger, "append", last_of_all)
    result = night.run()
    assert (result.exit_code, night.parts) == (0, 4)
    assert night.points.index("submit.intent") < len(night.points) - 1 - night.points[::-1].index("record.part")
    assert "start.recorded" not in night.points
    # Several are on the wire at once, so that one may overtake its neighbour: each came, and came once.
    assert sorted(night.posts()) == sorted(f"shot{n}-1" for n in range(JOBS))
    assert check_recorded(night.books, JOBS) == []
    assert night.books.unrecorded == 0


def test_what_is_recorded_in_parts_is_what_is_recorded_whole(night: Night, tmp_path: Path) -> None:
    """But for times, and for the order in which the database grew."""
    night.run(limit=1)
    other = replace(night.space, folder=tmp_path / "other")
    other.folder.mkdir()
    options = app.RunOptions(db=other.db, manifests=[other.manifest()], settings=SETTINGS, limit=1)
    app.run(options, app.Watcher())
    seen = []
    for space in (night.space, other):
        books = Books(space.db, tmp_path / "copy")
        drop = {"created_at", "updated_at", "task_id", "file", "sha256", "next_poll_at", "polls"}
        born = sorted((h["job_id"], h["reason"]) for h in books.history if h["event"] == "recorded")
        seen.append(([{k: v for k, v in j.items() if k not in drop} for j in books.jobs[1:]], born))
    assert seen[0] == seen[1]


class Counting(app.Watcher):
    def __init__(self) -> None:
        self.began: list[int] = []

    def begin(self, batches: object, tally: Tally) -> None:
        self.began.append(sum(tally.states.values()))

    def event(self, name: str, job: Job | None = None, /, **data: object) -> None:
        pass


def test_people_are_told_of_the_whole_from_the_start(night: Night) -> None:
    watcher = Counting()
    night.run(watcher=watcher)
    assert watcher.began == [JOBS]


# --- Where it is recorded whole --------------------------------------------------------------------------


def test_a_batch_that_is_known(night: Night) -> None:
    night.run(limit=1)
    night.run()
    assert "start.recorded" in night.points
    assert night.parts == 0


def test_a_batch_of_which_a_part_is_known(night: Night) -> None:
    """Nothing lies in its folder yet."""
    night.cut("start.begun")
    assert night.run().exit_code == 0
    assert (night.points.count("start.recorded"), night.parts) == (1, 0)
    assert check_recorded(night.books, JOBS) == []


def test_a_small_batch(night: Night) -> None:
    night.run(settings=replace(SETTINGS, first_part=JOBS, part=1))
    assert (night.points.count("start.recorded"), night.parts) == (1, 0)


def test_a_selection_is_looked_for_in_all_of_it(night: Night) -> None:
    with pytest.raises(UsageError, match="selects no job"):
        night.run(selection=Selection(only=("nothing",)))
    assert night.posts() == []
    night.run(selection=Selection(only=("shot11-1",)))
    assert night.posts() == ["shot11-1"]


def test_a_folder_with_something_in_it_is_looked_at_whole(night: Night) -> None:
    """What is in the way of the last job is found before the first is sent."""
    night.space.outputs.mkdir()
    (night.space.outputs / "shot11-1.mp4").write_bytes(b"somebody's")
    with pytest.raises(UsageError, match=r"shot11-1\.mp4"):
        night.run()
    assert night.posts() == []


def test_two_batches_in_one_folder_are_held_against_each_other(night: Night) -> None:
    """Also where they come in one command: the last job's file is another's."""
    first = replace(night.space.manifest(), batch="first", jobs=Some(list(night.space.manifest().jobs)[-1:]))
    with pytest.raises(OutputClash, match="first"):
        night.run(first, night.space.manifest())
    assert night.posts() == []


def test_of_two_manifests_the_last_is_recorded_in_parts(night: Night, tmp_path: Path) -> None:
    others = [replace(j, key=f"x{j.key}", shot=f"x{j.shot}") for j in night.space.manifest().jobs][:5]
    second = replace(night.space.manifest(), batch="second", output_dir=tmp_path / "out2", jobs=Some(others))
    night.run(night.space.manifest(), second, limit=2)
    assert (night.points.count("start.recorded"), night.parts) == (1, 2)


class Some:
    """Jobs of another batch."""

    def __init__(self, jobs: list[JobSpec]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self._jobs)


# --- A run that ends while it records --------------------------------------------------------------------


@pytest.mark.parametrize(("point", "number", "there"), [("start.begun", 1, 3), ("record.part", 2, 11)])
def test_what_was_cut_short_is_said_and_made_whole(night: Night, point: str, number: int, there: int) -> None:
    night.cut(point, number)
    books = night.books
    assert (len(books.jobs), books.unrecorded) == (there, JOBS - there)

    said = call("status", "--db", night.space.db)
    if "a run is alive" in said.out:  # it has been heard of in the last few seconds
        assert f"{JOBS - there} more of its manifest are being recorded" in said.out
    else:
        assert f"{JOBS - there} of its manifest were never recorded" in said.out
        assert "resume" not in said.out
    [told] = call("status", "--json", "--db", night.space.db).json["batches"]
    assert told["unrecorded"] == JOBS - there

    resumed = night.run(manifests=[], batches=[BATCH])
    assert resumed.exit_code == 4, "there is more than a ledger can tell"
    assert len(night.books.jobs) == there

    assert night.run().exit_code == 0
    assert "start.recorded" in night.points, "now it is known"
    assert check_recorded(night.books, JOBS) == []
    assert sorted(night.posts()) == sorted(f"shot{n}-1" for n in range(JOBS))


def test_cancelling_says_what_it_does_not_reach(night: Night) -> None:
    night.cut("start.begun")
    said = call("cancel", BATCH, "--db", night.space.db)
    assert said.code == 0
    assert "9 jobs of the manifest never got into the ledger" in said.err
    night.run()
    assert call("cancel", BATCH, "--db", night.space.db).err == ""


@pytest.mark.parametrize(
    ("plan", "options", "budget", "code"),
    [
        (Plan(polls=1), {"limit": 1}, None, 4),
        (Plan(polls=1), {"until": 0.0}, None, 4),
        (Plan(polls=1), {}, 2 * CREDITS, 4),
        (Plan([Rule("post", "unauthorized", last=ALWAYS)]), {}, None, 6),
        (Plan([Rule("post", "no_credit", last=ALWAYS)]), {}, None, 4),
        (Plan([Rule("post", "reset_after", last=ALWAYS)]), {}, None, 3),
    ],
    ids=["limit", "deadline", "budget", "credentials", "credit", "breaker"],
)
def test_whatever_ends_the_sending_the_manifest_is_recorded(
    double: Double,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
    options: dict[str, object],
    budget: int | None,
    code: int,
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(plan, jobs=JOBS, budget=budget))
    assert night.run(**options).exit_code == code  # type: ignore[arg-type]
    assert night.parts == 4
    assert check_recorded(night.books, JOBS) == []
    assert night.books.unrecorded == 0
