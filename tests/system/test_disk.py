"""Disks that are full, broken, read-only, or gone: the exact state, the exit code, and no id lost.

Where a tmpfs can be mounted the disk is really full; a file-size limit and failing calls stand beside it everywhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchrunner.engine.ports import CRASH_POINTS
from tests.crash.checks import Books, check_end, check_now
from tests.crash.command_line import CommandLine
from tests.double import Account, Double, Plan, Rule
from tests.system.conftest import mount
from tests.system.player import FILLER, Ended, Order, Play, fill


@dataclass
class Place:
    """A folder with a ledger, its account, and what is played there."""

    double: Double
    play: Play
    folder: Path
    looks: Path
    jobs: int = 1

    def __post_init__(self) -> None:
        self.name = re.sub(r"[^a-z0-9]+", "-", str(self.looks).lower()).strip("-")
        self.door = self.double.open(self.name, Plan(polls=1))
        self.outputs = self.folder / "out"

    def run(self, what: str = "", point: str = "-", n: int = 1, min_free: int = 1) -> Ended:
        order = Order(
            str(self.folder), str(self.outputs), self.door.environment, self.jobs, what, point, n, min_free=min_free
        )
        return self.play(order)

    def mend(self) -> None:
        (self.folder / FILLER).unlink(missing_ok=True)

    @property
    def account(self) -> Account:
        return self.double.account(self.name)

    def books(self) -> Books:
        """The ledger as it is; the promise holds."""
        books = Books(self.folder / "night.db", self.looks)
        assert check_now(books, self.account, self.outputs, None) == []
        return books

    def job(self) -> dict[str, object]:
        (job,) = self.books().jobs
        return job

    def finish(self, code: int = 0) -> Books:
        """The next run, on a machine that works."""
        ended = self.run()
        assert (ended.code, ended.message) == (code, ""), ended
        books = self.books()
        assert check_end(books, self.account, self.outputs, code, None) == []
        return books


@pytest.fixture
def place(double: Double, play: Play, tmp_path: Path) -> Place:
    folder = tmp_path / "night"
    folder.mkdir()
    return Place(double, play, folder, tmp_path / "looks")


@pytest.fixture
def small(double: Double, play: Play, tmp_path: Path, small_disk: Path) -> Place:
    return Place(double, play, small_disk, tmp_path / "looks")


# --- At a named moment -------------------------------------------------------------------------------------


def claim(place: Place, what: str) -> None:
    ended = place.run(what, "submit.before_intent")

    assert (ended.code, ended.stop, ended.fired) == (4, "ledger", True)
    assert place.account.posts == [], "no intent, no POST"
    assert place.job()["state"] == "pending"
    place.mend()
    place.finish()
    assert len(place.account.posts) == 1


def accepted(place: Place, what: str) -> None:
    ended = place.run(what, "submit.answered")

    (task,) = place.account.tasks
    assert (ended.code, ended.stop) == (4, "ledger")
    assert [(u["task_id"], u["spooled"]) for u in ended.unrecorded] == [(task.id, True)]
    job = place.job()
    assert (job["state"], job["task_id"]) == ("submitting", None)
    assert task.id.encode() in (place.folder / "night.db.spool").read_bytes()
    place.mend()
    books = place.finish()
    assert books.jobs[0]["task_id"] == task.id
    assert [h["event"] for h in books.history][2:4] == ["accepted", "completed"]
    assert len(place.account.posts) == 1, "the id was kept; it is not paid for again"


def completed(place: Place, what: str) -> None:
    ended = place.run(what, "poll.answered")

    assert (ended.code, ended.stop) == (4, "ledger")
    assert place.job()["state"] == "running"
    place.mend()
    place.finish()
    assert len(place.account.posts) == 1


def downloading(place: Place, what: str) -> None:
    ended = place.run(what, "download.start")

    assert (ended.code, ended.stop) == (4, "disk")
    assert place.job()["state"] == "downloading"
    assert list(place.outputs.glob("*")) == [], "no half file"
    place.mend()
    place.finish()
    assert len(place.account.posts) == 1


def sidecar(place: Place, what: str) -> None:
    ended = place.run(what, "download.fetched")

    assert (ended.code, ended.stop) == (4, "disk")
    assert place.job()["state"] == "downloading"
    assert [p.name for p in place.outputs.glob("*") if p.suffix in {".mp4", ".json"}] == []
    place.mend()
    books = place.finish()
    assert sorted(p.suffix for p in place.outputs.glob("*")) == [".json", ".mp4"], "and nothing is left over"
    assert books.jobs[0]["state"] == "succeeded"


def stored(place: Place, what: str) -> None:
    ended = place.run(what, "place.folder_synced")

    assert (ended.code, ended.stop) == (4, "ledger")
    assert place.job()["state"] == "downloading"
    assert sorted(p.suffix for p in place.outputs.glob("*")) == [".json", ".mp4"], "it is home, and not recorded"
    place.mend()
    place.finish()
    assert place.account.tasks[0].served == 1, "what is home is not fetched again"


@pytest.mark.parametrize("moment", [claim, accepted, completed, downloading, sidecar, stored])
def test_a_full_disk(small: Place, moment: object) -> None:
    assert callable(moment)
    moment(small, "full")


@pytest.mark.parametrize("moment", [claim, accepted, completed, stored])
def test_a_ledger_that_may_not_grow(place: Place, moment: object) -> None:
    """A file-size limit (EFBIG): the ledger's log is beyond it, the spool is not."""
    assert callable(moment)
    moment(place, "limit")


@pytest.mark.parametrize("moment", [downloading, sidecar])
def test_no_file_may_grow(place: Place, moment: object) -> None:
    assert callable(moment)
    moment(place, "limit0")


@pytest.mark.parametrize("moment", [claim, accepted, completed, stored])
def test_an_io_error_of_the_ledger(place: Place, moment: object) -> None:
    assert callable(moment)
    moment(place, "eio")


def test_an_io_error_of_the_outputs(place: Place) -> None:
    downloading(place, "sync_eio")


def test_an_id_that_nothing_can_take_is_printed(place: Place) -> None:
    """Neither ledger nor spool can be written: the line that is printed is the only place that has the id."""
    ended = place.run("limit0", "submit.answered")

    (task,) = place.account.tasks
    assert (ended.code, ended.stop) == (4, "ledger")
    assert [(u["job"], u["task_id"], u["spooled"]) for u in ended.unrecorded] == [(task.label, task.id, False)]
    assert place.job()["state"] == "submitting"
    assert place.run().code == 3
    assert place.job()["state"] == "unconfirmed", "a person is asked"
    assert len(place.account.posts) == 1


def test_a_passing_error_is_tried_again(place: Place) -> None:
    ended = place.run("eio_once", "submit.answered")

    assert place.job()["state"] == "succeeded"
    assert (ended.code, ended.stop) == (0, "ledger"), "it stopped submitting, and brought home what was paid for"
    place.finish()
    assert len(place.account.posts) == 1


# --- A ledger that can't be read any more ------------------------------------------------------------------


@pytest.mark.parametrize("point", ["submit.recorded", "poll.recorded", "download.placed"])
def test_a_ledger_that_turns_out_to_be_damaged(place: Place, point: str) -> None:
    """Something was submitted, so it is no 2; work is left, and the next run says what is wrong."""
    place.jobs = 3

    ended = place.run("unreadable", point)

    assert (ended.code, ended.stop) == (4, "ledger"), ended
    assert "can't be read" in ended.message
    assert "malformed" in ended.message
    place.books()
    place.finish()
    assert len(place.account.posts) == 3


def test_a_damaged_ledger_with_a_doubt(place: Place) -> None:
    """A person must look: that wins."""
    place.jobs = 3
    place.door = place.double.open(place.name, Plan([Rule("post", "reset_after")], polls=1))

    ended = place.run("unreadable", "poll.recorded")

    assert (ended.code, ended.stop) == (3, "ledger"), ended


def test_a_ledger_that_is_damaged_before_anything_was_sent(place: Place) -> None:
    ended = place.run("unreadable")

    assert ended.code == 2, ended
    assert "can't be read" in ended.message
    assert not place.account.posts


def full_from_the_beginning(place: Place, what: str) -> None:
    ended = place.run(what)

    assert ended.code == 2, ended
    assert "night.db" in ended.message, "it says which file"
    assert place.account.posts == []
    place.mend()
    place.finish()


def test_a_disk_that_is_full_from_the_beginning(small: Place) -> None:
    full_from_the_beginning(small, "full")


@pytest.mark.parametrize("what", ["limit", "limit0"])
def test_no_file_may_grow_from_the_beginning(place: Place, what: str) -> None:
    full_from_the_beginning(place, what)


@pytest.mark.parametrize("what", ["full", "limit0"])
def test_a_full_disk_under_a_ledger_that_is_there(small: Place, what: str) -> None:
    """A night's second run finds no room at all."""
    assert small.run("eio", "poll.answered").code == 4

    ended = small.run(what)

    assert ended.code in {2, 4}, ended
    small.mend()
    small.finish()
    assert len(small.account.posts) == 1


def test_too_little_room_stops_before_anything_is_paid_for(small: Place) -> None:
    ended = small.run(min_free=64 << 20)

    assert (ended.code, ended.stop) == (4, "disk")
    assert "free" in ended.message
    assert small.account.posts == []
    assert small.job()["state"] == "pending"
    small.finish()


@pytest.mark.parametrize("display", [[], ["--json"], ["--quiet"]])
def test_the_command_line_on_a_full_disk(double: Double, small_disk: Path, display: list[str]) -> None:
    """What a user reads."""
    name = re.sub(r"[^a-z0-9]+", "-", str(small_disk).lower()).strip("-")
    line = CommandLine.at(small_disk, double.open(name, Plan(polls=1)))
    line.write(1)
    fill(small_disk)
    command = [sys.executable, "-m", "batchrunner", "run", "night.yaml", *display]

    done = subprocess.run(
        command, cwd=small_disk, env=line._environment(), capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    assert double.account(name).posts == []
    (small_disk / FILLER).unlink()
    assert line.call("run", "night.yaml") == 4, "2 MiB are less than `Settings.min_free_bytes`"
    assert double.account(name).posts == []


# --- At every moment ---------------------------------------------------------------------------------------

ENGINE = ("submit.", "poll.", "download.", "place.")
MOMENTS = [p for p in CRASH_POINTS if p.startswith(ENGINE) and p not in {"submit.spooled", "download.link_died"}]
"""Every point that two jobs pass on a good night."""


def everywhere(place: Place, what: str, point: str) -> None:
    """Two jobs, the fault at a point; then a machine that works, as often as it takes."""
    place.jobs = 2
    for n in (1, 2):
        ended = place.run(what, point, n)
        place.mend()
        assert ended.code in {0, 4} or (ended.code == 3 and what == "limit0"), ended
        assert ended.stop in {None, "ledger", "disk"}
        place.books()
    last = place.run()
    assert last.code in {0, 3}, last
    books = place.books()
    assert check_end(books, place.account, place.outputs, last.code, last.stop) == []
    assert len(place.account.posts) == 2
    if what != "limit0":
        assert books.states() == {"succeeded": 2}


@pytest.mark.parametrize("point", MOMENTS)
def test_a_full_disk_everywhere(small: Place, point: str) -> None:
    everywhere(small, "full", point)


@pytest.mark.parametrize("what", ["limit", "limit0", "eio", "eio_once", "sync_eio"])
@pytest.mark.parametrize("point", MOMENTS)
def test_a_failing_disk_everywhere(place: Place, what: str, point: str) -> None:
    everywhere(place, what, point)


# --- The output folder -------------------------------------------------------------------------------------


def test_a_file_where_the_output_folder_should_be(place: Place) -> None:
    place.outputs.write_text("mine")

    ended = place.run()

    assert (ended.code, ended.stop) == (4, "disk")
    assert f"{place.outputs} is not a folder" in ended.message
    assert place.job()["state"] == "pending"
    assert not place.account.posts
    assert place.outputs.read_text() == "mine"
    place.outputs.unlink()
    place.finish()
    assert len(place.account.posts) == 1


def test_a_read_only_output_folder(place: Place) -> None:
    place.outputs.mkdir()
    problem = mount(place.outputs, "ro")
    if problem:
        pytest.skip(f"a read-only folder is not tested here: no tmpfs can be mounted ({problem})")
    try:
        ended = place.run()
    finally:
        subprocess.run(["umount", str(place.outputs)], check=True)

    assert (ended.code, ended.stop) == (4, "disk")
    assert f"{place.outputs} can't be written to" in ended.message
    assert place.job()["state"] == "pending"
    assert not place.account.posts
    place.finish()
    assert len(place.account.posts) == 1


@pytest.mark.parametrize("point", ["download.fetched", "place.sidecar", "place.renamed", "place.folder_synced"])
def test_the_output_folder_vanishes(place: Place, point: str) -> None:
    ended = place.run("vanish", point)

    books = Books(place.folder / "night.db", place.looks)
    assert ended.code in {0, 4}, ended
    assert len(place.account.posts) == 1
    if point == "place.folder_synced":
        # Somebody removed a finished file before it was recorded: nobody can know. It is not paid for again.
        assert books.states() == {"succeeded": 1}
        return
    assert books.states() in ({"succeeded": 1}, {"downloading": 1})
    place.finish()
    assert len(place.account.posts) == 1


# --- The wall clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["forward", "back"])
@pytest.mark.parametrize("point", [p for p in MOMENTS if not p.startswith("place")])
def test_the_clock_jumps_a_day(place: Place, what: str, point: str) -> None:
    place.jobs = 2

    ended = place.run(what, point)

    assert (ended.code, ended.stop, ended.fired) == (0, None, True)
    books = place.books()
    assert books.states() == {"succeeded": 2}
    assert len(place.account.posts) == 2


@pytest.mark.parametrize("what", ["forward", "back"])
def test_the_clock_jumps_between_two_runs(place: Place, what: str) -> None:
    """What was planned by a clock of another day is not waited for."""
    place.jobs = 2
    assert place.run("eio", "poll.answered").code == 4

    ended = place.run(what)

    assert (ended.code, ended.stop) == (0, None)
    assert place.books().states() == {"succeeded": 2}
    assert len(place.account.posts) == 2
