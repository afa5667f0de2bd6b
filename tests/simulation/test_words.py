"""A person's word beside a live run, at any moment of a bad night: seeds as in test_simulation, and somebody who
resolves what is in doubt and retries what has failed while the run goes on."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from batchrunner import catalogue
from batchrunner.core.words import Resolve, Retry
from batchrunner.exits import UsageError
from batchrunner.ledger.errors import LedgerError
from batchrunner.ledger.naming import Unknown
from batchrunner.runs import RunResult
from tests.simulation import run as harness
from tests.simulation.run import BATCH, Simulation, collected, scratch
from tests.simulation.world import World

SEEDS = int(os.environ.get("BATCHRUNNER_WORD_SEEDS", "30"))

SAID: Counter[str] = Counter()


class _Visited(harness._Night):
    """A night that somebody looks at now and then."""

    world: World

    async def run(self) -> RunResult:
        person = asyncio.ensure_future(
            self._person(random.Random(f"person {self.world.seed} {self.world.life.number}"))
        )
        try:
            return await super().run()
        finally:
            person.cancel()
            with suppress(asyncio.CancelledError):
                await person

    async def _person(self, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / 2.0))
            if self._runner is not None:
                with suppress(Unknown, UsageError, LedgerError):  # it has moved on; a full disk
                    await self._say(rng)

    async def _say(self, rng: random.Random) -> None:
        assert self._runner is not None
        if rng.random() < 0.5:
            for key in await self._column("SELECT key FROM job WHERE error_kind = 'rejected'"):
                self.world.spoken(key)  # the double counts a request that was refused as one too many
            done = await self._runner.speak(Retry((BATCH,)), "me")
            SAID["retried"] += len(done.jobs)
            return
        keys = await self._column("SELECT key FROM job WHERE state = 'unconfirmed' ORDER BY id")
        if not keys:
            return
        key = rng.choice(keys)
        known = await self._column("SELECT task_id FROM attempt")
        lost = [task.id for task in self.world.account.tasks.values() if task.label == key and task.id not in known]
        if lost and rng.random() < 0.7:
            await self._runner.speak(Resolve(key, task_id=rng.choice(lost)), "me")
            SAID["identified"] += 1
        else:
            self.world.spoken(key)
            await self._runner.speak(Resolve(key, resubmit=True), "me")
            SAID["resubmitted"] += 1

    async def _column(self, sql: str) -> list[str]:
        return [row[0] for row in await self._ledger.query(lambda c: c.execute(sql).fetchall())]


def test_the_promise_holds_whoever_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_Night", _Visited)
    catalogue.models()
    wrong, posts = [], 0
    with collected() as collect:
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory(prefix="batchrunner-sim-", dir=scratch()) as folder:
                simulation = Simulation(seed, Path(folder))
                monkeypatch.setattr(_Visited, "world", simulation.world, raising=False)
                verdict = simulation.play()
            posts += verdict.posts
            if verdict.wrong:
                wrong.append(str(verdict))
            if seed % 20 == 0:
                collect()
    assert wrong == []
    assert min(SAID[word] for word in ("retried", "identified", "resubmitted")) > SEEDS / 10, SAID
