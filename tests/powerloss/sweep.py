"""Cuts the power at every step of recorded runs.

By hand, as much as you like:
    python -m tests.powerloss.sweep --images 20000
A loss can be looked at again: its line names the scenario, the step and the luck.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from batchrunner import catalogue
from tests.crash.command_line import MANIFEST
from tests.double import Account, Double, Plan, Rule
from tests.powerloss import checks
from tests.powerloss.disk import Disk, Image, Luck, lucks
from tests.powerloss.record import VOLATILE, Tape, record, why_not

IMAGES = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
MOST_LOSSES = 20
"""Losses after which a sweep has seen enough."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Runs after each other on one ledger, and what the provider does.

    Attributes:
        runs: the changes of each run (see `launcher`); none for the real command line as it is. `resume` for that verb.
        jobs: of the batch.
        plan: the double's.
        more: of the manifest.
        out: the output folder.
        codes: how each run ends.
    """

    runs: Sequence[Sequence[str]]
    codes: Sequence[int]
    jobs: int = 3
    plan: Plan = field(default_factory=lambda: Plan(polls=1))
    more: str = ""
    out: str = "out"


KILLED = -9
LEFT = 4
"""Work may be left, or not: what was on the wire when the disk was full decides."""

SCENARIOS: dict[str, Scenario] = {
    "plain": Scenario([[]], [0]),
    "faults": Scenario(
        [["checkpoints"]],
        [3],
        jobs=6,
        plan=Plan(
            [
                Rule("post", "throttle", first=2, last=2),
                Rule("post", "reset_after", first=4, last=4),
                Rule("post", "reject", first=5, last=5),
                Rule("task", "fail", first=1),
                Rule("media", "gone", task=2),
                Rule("media", "cut", task=4),
            ],
            polls=1,
        ),
        more="retry: {provider: 1}",
    ),
    "killed": Scenario(
        [["kill:submit.recorded:3"], ["kill:place.sidecar:1"], ["kill:place.renamed:1", "checkpoints"], []],
        [KILLED, KILLED, KILLED, 3],
        jobs=4,
        plan=Plan([Rule("post", "hold", first=4, last=4)], polls=1),
    ),
    "spooled": Scenario([["full:2"], []], [LEFT, 0], jobs=3),
    # A commit that its runner did not live to sync: the next one reads it, and must not act upon it, nor tell it.
    "unsynced": Scenario(
        [["die_unsynced:accepted"], ["die_unsynced:stored"], ["resume"], []], [KILLED, KILLED, 0, 0], jobs=1
    ),
    # Several files of one task; the run dies when the second has its name, and another cut comes later.
    "several": Scenario(
        [["kill:place.renamed:2"], []], [KILLED, 0], jobs=1, plan=Plan(polls=1, outputs=2, last_frame=True)
    ),
    # New folders whose names nobody had made durable when their maker died.
    "folders": Scenario([["kill_at_sync:1"], ["kill_at_sync:1"], []], [KILLED, KILLED, 0], jobs=2, out="films/night"),
}


@dataclass(slots=True)
class Report:
    """Attributes:
    steps: places where the power was cut.
    built: images made.
    images: those among them that no other was equal to; each was checked.
    losses: what was wrong, at most `MOST_LOSSES` of it.
    """

    steps: int = 0
    built: int = 0
    images: int = 0
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        self.steps += other.steps
        self.built += other.built
        self.images += other.images
        self.losses += other.losses
        self.seconds += other.seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """A scenario that was played."""

    name: str
    home: str
    out: str
    tape: Tape
    account: Account


def play(double: Double, name: str, mutant: str | None = None) -> Recording:
    """Record a scenario."""
    scenario = SCENARIOS[name]
    account = f"power-{name}-{mutant or 'none'}-{time.monotonic_ns()}"
    door = double.open(account, scenario.plan)
    with tempfile.TemporaryDirectory(prefix="batchrunner-power-") as made:
        home = Path(made) / "home"
        home.mkdir()
        text = MANIFEST.format(jobs=scenario.jobs, in_flight=50, more=scenario.more)
        (home / "night.yaml").write_text(text.replace("dir: out", f"dir: {scenario.out}"))
        tape = Tape(str(home))
        for changes, code in zip(scenario.runs, scenario.codes, strict=True):
            words = ["resume"] if "resume" in changes else ["run", "night.yaml"]
            changed = [c for c in (*changes, mutant) if c and c != "resume"]
            module = ["tests.powerloss.launcher", *changed, "--"] if changed else ["batchrunner"]
            log = Path(made) / "log"
            got = record([sys.executable, "-m", *module, *words, "--json"], home, door.environment, log)
            planned = {0, LEFT} if code == LEFT else {code}
            assert got in planned or mutant, f"{name}: exit code {got}, expected {code}"
            tape.add(log)
            check_recording(tape, home)
    double.release(account)
    return Recording(name, str(home), scenario.out, tape, double.close(account))


def check_recording(tape: Tape, home: Path) -> None:
    """What the log says was done is what stands in the folder: no call was overlooked."""
    disk = Disk()
    for step in tape.steps:
        disk.do(step)
    image = disk.image(Luck(1, 1))
    there = {p.relative_to(home).as_posix(): p for p in home.rglob("*") if p.is_file() and p.name != "night.yaml"}
    here = {n: p.read_bytes() for n, p in there.items() if not n.endswith(VOLATILE)}
    assert image.files.keys() == here.keys(), f"{sorted(image.files)} instead of {sorted(here)}"
    for name, data in here.items():
        if data != (model := image.files[name]):
            first = next((i for i, (a, b) in enumerate(zip(data, model, strict=False)) if a != b), -1)
            raise AssertionError(
                f"{name} has {len(data)} bytes, the model {len(model)}; the first other one at {first}"
            )


def sweep(recording: Recording, each: int, share: tuple[int, int] = (0, 1), seed: int = 1) -> Report:
    """Cut the power at every step, `each` times and the four extremes, and check what no other image was equal to.

    Args:
        recording: what was played.
        each: images with dice at each step.
        share: (i, n): the i-th of n shares of the images.
        seed: of the dice.
    """
    catalogue.models()
    report, began = Report(), time.perf_counter()
    disk, told = Disk(), checks.Told()
    known: set[bytes] = set()
    folder = Path(tempfile.mkdtemp(prefix="batchrunner-image-", dir=IMAGES))
    try:
        for number, step in enumerate(recording.tape.steps):
            concerns_disk = disk.do(step)
            if not told.hear(step) and not concerns_disk:
                continue
            report.steps += 1
            for luck in lucks(seed * 1_000_003 + number, each)[: 1 if disk.settled else None]:
                image = disk.image(luck)
                report.built += 1
                mark = _mark(image, told.count)
                if mark in known:
                    continue
                known.add(mark)
                if mark[0] % share[1] != share[0]:
                    continue
                report.images += 1
                checks.write(image, folder)
                wrong = checks.check(folder, told, recording.account, recording.home, recording.out)
                report.losses += [f"{recording.name}, step {number}, {luck}: {w}" for w in wrong]
                if len(report.losses) >= MOST_LOSSES:
                    return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.perf_counter() - began
    return report


def _mark(image: Image, count: int) -> bytes:
    """The same for equal images that are held against the same words."""
    digest = hashlib.blake2b(repr((count, image.folders)).encode(), digest_size=16)
    for name, data in sorted(image.files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.digest()


def _sweep(arguments: tuple[Recording, int, tuple[int, int], int]) -> Report:
    return sweep(*arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="at least so many different images")
    parser.add_argument("--scenario", action="append", default=[], choices=SCENARIOS)
    parser.add_argument("--mutant", help="break the program first, see `launcher`")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--each", type=int, default=25, help="images with dice at each step, a round")
    options = parser.parse_args()
    if why_not():
        print(why_not(), file=sys.stderr)
        return 2
    total, began, rounds = Report(), time.perf_counter(), 0
    with Double.start() as double, multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        while total.images < options.images and not total.losses:
            rounds += 1  # each round records anew: threads overlap differently
            recordings = [play(double, name, options.mutant) for name in options.scenario or SCENARIOS]
            orders = [
                (r, options.each, (i, options.workers), rounds) for r in recordings for i in range(options.workers)
            ]
            for report in pool.imap_unordered(_sweep, orders):
                total.add(report)
            print(f"round {rounds}: {total.images} images, {len(total.losses)} losses", file=sys.stderr)
    told = asdict(total) | {"rounds": rounds, "wall_seconds": round(time.perf_counter() - began, 1)}
    print(json.dumps(told, indent=1))
    return 1 if total.losses else 0


if __name__ == "__main__":
    sys.exit(main())
