"""A power cut at every step of a run loses nothing that was acknowledged, and leaves no half file.

The system calls of real runs are recorded with strace; from every prefix of the log come images of the disk, with what
no sync had covered dropped, reordered and torn; each is opened by the real recovery. More of it, as a target:
    python -m tests.powerloss.sweep --images 20000
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable

import pytest

from tests.double import Double
from tests.powerloss.disk import Disk, Luck
from tests.powerloss.launcher import CHANGES
from tests.powerloss.record import ROOT_NODE, Cut, Entered, Synced, Wrote, why_not
from tests.powerloss.sweep import SCENARIOS, play, sweep

SHARE = (0, 4)
"""The gate checks every fourth image, `make powerloss-long` every one."""
SHARE_OF_MISTAKES = (0, 2)
"""A mistake shows in few of the images: every second one is looked at."""

IMAGES = {
    "plain": 135,
    "faults": 250,
    "killed": 155,
    "spooled": 150,
    "several": 100,
    "folders": 115,
    "unsynced": 95,
}
"""Different images that the gate checks of each scenario, at least."""

MUTANTS = {
    "normal": ("plain", "lost:"),
    "no_folder_sync": ("plain", "lost:"),
    "no_part_sync": ("plain", "P3"),
    "no_sidecar_sync": ("plain", "P3"),
    "no_spool_sync": ("spooled", "stood in the spool"),
    "late_intent": ("plain", "P1"),
}
"""A program that breaks the promise -> the scenario where it shows, and the words for it."""

recorded = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can be recorded")


@recorded
@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_cut_loses_nothing(double: Double, name: str, record_property: Callable[[str, object], None]) -> None:
    report = sweep(play(double, name), each=1, share=SHARE)
    for word in ("steps", "built", "images", "seconds"):
        record_property(word, getattr(report, word))

    assert report.losses == []
    assert report.images >= IMAGES[name]


@recorded
@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_program_that_forgets_a_sync_is_caught(double: Double, mutant: str) -> None:
    scenario, words = MUTANTS[mutant]

    report = sweep(play(double, scenario, mutant), each=1, share=SHARE_OF_MISTAKES)

    assert any(words in loss for loss in report.losses)


def test_every_mutant_is_tried() -> None:
    assert set(MUTANTS) == set(CHANGES) - {"checkpoints"}
    assert set(IMAGES) == set(SCENARIOS)
    assert sum(IMAGES.values()) >= 1000


# --- The disk itself: a harness that forgets nothing finds nothing -----------------------------------------

FILE = 1
NOTHING, EVERYTHING = Luck(0, 0), Luck(1, 1)


def make(disk: Disk) -> None:
    disk.do(Entered(0, 0, ROOT_NODE, {"a": FILE}))


def test_what_is_not_synced_may_be_lost() -> None:
    disk = Disk()
    make(disk)
    disk.do(Wrote(1, 1, FILE, 0, b"hello"))

    assert disk.image(NOTHING).files == {}
    assert disk.image(EVERYTHING).files == {"a": b"hello"}
    assert disk.image(Luck(0, 1)).files == {"a": b""}
    assert not disk.settled


def test_a_sync_of_the_file_is_none_of_the_folder() -> None:
    disk = Disk()
    make(disk)
    disk.do(Wrote(1, 1, FILE, 0, b"hello"))
    disk.do(Synced(3, 3, FILE, 2))
    assert disk.image(NOTHING).files == {}

    disk.do(Synced(5, 5, ROOT_NODE, 4))

    assert disk.image(NOTHING).files == {"a": b"hello"}
    assert disk.settled


def test_a_sync_covers_what_had_ended_when_it_began() -> None:
    disk = Disk()
    make(disk)
    disk.do(Synced(1, 1, ROOT_NODE, 0.5))
    disk.do(Wrote(2, 4, FILE, 0, b"early"))
    disk.do(Synced(5, 5, FILE, 3))

    assert disk.image(NOTHING).files == {"a": b""}


def test_data_are_torn_at_sectors_and_come_in_any_order() -> None:
    disk = Disk()
    make(disk)
    disk.do(Synced(1, 1, ROOT_NODE, 0.5))
    disk.do(Wrote(2, 2, FILE, 100, b"x" * 1000))
    disk.do(Wrote(3, 3, FILE, 512, b"y" * 512))
    dice = random.Random(1)

    seen = {disk.image(Luck(0.5, 1, dice.randrange(1 << 30))).files["a"][512:513] for _ in range(100)}

    assert seen >= {b"\0", b"x", b"y"}, "dropped, early, late"
    for _ in range(50):
        data = disk.image(Luck(0.5, 1, dice.randrange(1 << 30))).files["a"]
        assert len(set(data[100:512])) <= 1 or len(data) < 512, "a sector is written whole or not at all"


def test_a_rename_is_one_change_and_a_truncation_may_be_lost() -> None:
    disk = Disk()
    make(disk)
    disk.do(Wrote(1, 1, FILE, 0, b"hello"))
    disk.do(Synced(3, 3, FILE, 2))
    disk.do(Synced(5, 5, ROOT_NODE, 4))
    disk.do(Entered(6, 6, ROOT_NODE, {"a": None, "b": FILE}))
    disk.do(Cut(7, 7, FILE, 2))

    seen = {tuple(disk.image(Luck(0.5, 0.5, seed)).files.items()) for seed in range(60)}

    assert {f for (f,) in seen} >= {("a", b"hello"), ("b", b"hello"), ("a", b"he"), ("b", b"he")}


def test_folders_hang_on_their_names() -> None:
    disk = Disk()
    disk.do(Entered(0, 0, ROOT_NODE, {"out": 7}, makes=True))
    disk.do(Entered(1, 1, 7, {"a": FILE}))
    disk.do(Synced(3, 3, 7, 2))

    assert disk.image(NOTHING).folders == []
    assert disk.image(EVERYTHING).files == {"out/a": b""}


def test_nothing_is_skipped_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where strace is missing the reason is said, and how to mend it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)

    assert "strace is not installed" in why_not.__wrapped__()
