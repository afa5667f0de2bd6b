"""Two runs at once on one ledger, by the real command line: one works, the other leaves, nothing is sent twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli_support import Ended, run_json
from tests.crash.checks import Books
from tests.network.stage import CREDITS, Part, Scene, Stage, created, manifest
from tests.raw_server import Peer

JOBS = 6

SECONDS: dict[str, tuple[str, ...]] = {
    "the same run": ("run", "night.yaml"),
    "a run of a part": ("run", "night.yaml", "--only", "clip3*"),
    "another batch on the same ledger": ("run", "other.yaml"),
    "with consent to submit again": ("run", "night.yaml", "--on-unconfirmed", "resubmit"),
    "one that waits for a second": ("run", "night.yaml", "--wait-lock", "1s"),
}


class Place:
    """A folder with two manifests, and a server that keeps every first POST waiting until it is told to answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answer = asyncio.Event()
        shots = [f"clip{n}" for n in range(1, JOBS + 1)]
        (folder / "night.yaml").write_text(manifest(shots))
        other = manifest(shots).replace("batch: night", "batch: other").replace("dir: out", "dir: other")
        (folder / "other.yaml").write_text(other)
        self.labels = [f"{shot}-1" for shot in shots]
        self.stage = Stage(dict.fromkeys(self.labels, Part(post=self._held)), together=False)

    async def _held(self, peer: Peer, scene: Scene) -> None:
        await self._answer.wait()
        await created(peer, scene)

    async def call(self, *arguments: str) -> Ended:
        return await run_json(self._folder, *arguments, environment=self.stage.environment)

    async def race(self, calls: Sequence[tuple[str, ...]], apart: float = 0.0) -> list[Ended]:
        """Start them all, so many seconds apart; let the winner's POSTs be answered when all others have left."""
        runs = []
        for arguments in calls:
            runs.append(asyncio.create_task(self.call(*arguments)))
            await asyncio.sleep(apart)
        for left in asyncio.as_completed(runs):
            await left
            if sum(run.done() for run in runs) == len(runs) - 1:
                self._answer.set()
        return [run.result() for run in runs]

    def check(self, winner: Ended) -> None:
        """The winner's jobs are home, and each was paid for once."""
        books = Books(self._folder / "batchrunner.db", self._folder / "copy")
        assert books.sound == "ok"
        mine = [j for j in books.jobs if j["state"] == "succeeded"]
        assert len(mine) == len(books.attempts) == sum(self.stage.all_posts().values())
        assert set(self.stage.all_posts().values()) == {1}
        assert sum(b["spent"] for b in books.batches) == len(mine) * CREDITS
        assert winner.events[-1]["states"]["succeeded"] >= len(mine)


@pytest.mark.parametrize("seed", range(6))
async def test_of_two_equal_runs_one_works_and_the_other_leaves(tmp_path: Path, seed: int) -> None:
    """On a ledger that neither has made yet, and a few milliseconds apart."""
    place = Place(tmp_path)
    apart = random.Random(seed).choice([0.0, 0.02, 0.1, 0.3])
    async with place.stage:
        ended = await place.race([("run", "night.yaml")] * 2, apart)
        assert sorted(run.code for run in ended) == [0, 5], (apart, [run.err for run in ended])
        (winner,) = (run for run in ended if run.code == 0)
        (loser,) = (run for run in ended if run.code == 5)
        assert loser.events == []
        assert "another" in loser.err
        place.check(winner)
        assert len(place.stage.all_posts()) == JOBS
        assert (await place.call("run", "night.yaml")).code == 0
        assert len(place.stage.all_posts()) == JOBS


@pytest.mark.parametrize("second", SECONDS.values(), ids=SECONDS.keys())
async def test_whatever_the_second_run_is_for_one_works(tmp_path: Path, second: tuple[str, ...]) -> None:
    place = Place(tmp_path)
    async with place.stage:
        ended = await place.race([("run", "night.yaml"), second])
        assert sorted(run.code for run in ended) == [0, 5], [run.err for run in ended]
        (winner,) = (run for run in ended if run.code == 0)
        place.check(winner)
