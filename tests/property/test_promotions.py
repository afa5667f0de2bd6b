"""Random evenings of drafts, verdicts and promotions in a real ledger: no winner is paid for twice, no loser once."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchrunner.core import events as e
from batchrunner.core.diff import CHARGED, Change
from batchrunner.core.job import Output, State
from batchrunner.core.keys import fingerprint, job_key
from batchrunner.core.promotion import Verdict, Winner, promoted_key, promoted_output
from batchrunner.exits import UsageError
from batchrunner.ledger.naming import Unknown
from batchrunner.ledger.promotions import Judgement
from batchrunner.ledger.store import Ledger
from batchrunner.manifest import Promotion, load_profile
from batchrunner.planning import plan_promotion, promotion_of
from tests.support import FakeClock, batch, dump, open_ledger, path_to, spec

SHOTS = ("a", "b", "c")
PROFILES: dict[str, dict[str, Any]] = {"final": {"resolution": "1080p"}, "long": {"duration": 10}}

steps = st.one_of(
    st.tuples(st.just("record"), st.lists(st.integers(0, 2), min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["finish", "approve", "reject"]), st.sampled_from(SHOTS)),
    st.tuples(st.sampled_from(["promote", "send"]), st.sampled_from(sorted(PROFILES))),
)


def load_final(profiles: dict[str, dict[str, Any]], profile: str) -> Promotion:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "night.yaml"
        path.write_text(f"version: 1\nbatch: night\nprofiles: {json.dumps(profiles)}\nshots: [{{id: x, prompt: x}}]\n")
        return load_profile(path, profile, variables={})


@functools.cache
def promotion(profile: str) -> Promotion:
    return load_final(PROFILES, profile)


class Evening:
    """What a person does, and what must hold after each of it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.tasks = 0

    async def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        found: list[sqlite3.Row] = await self.ledger.query(lambda c: c.execute(sql, values).fetchall())
        return found

    async def take(self, step: tuple[str, Any]) -> None:
        name, value = step
        before = await self._promoted()
        await getattr(self, f"_{name}")(value)
        if name in ("record", "finish", "approve"):
            assert await self._promoted() == before, "none of these has a say in what was promoted"
        await self._check()

    async def _promoted(self) -> list[tuple[Any, ...]]:
        sql = "SELECT id, current, state FROM job WHERE id IN (SELECT job_id FROM promotion) ORDER BY id"
        return [tuple(row) for row in await self.rows(sql)]

    async def _record(self, prompts: list[int]) -> None:
        """Two of three versions of a draft differ only in what the profile `final` says anyway."""
        wanted = []
        for shot, n in zip(SHOTS, prompts, strict=False):
            asked = spec(shot, prompt=f"{shot} {n // 2}")
            request = {**asked.request, "resolution": "720p"} if n == 1 else asked.request
            mark = fingerprint(asked.provider, asked.model, request)
            wanted.append(replace(asked, request=request, fingerprint=mark))
        await self.ledger.record(batch(), wanted)

    async def _home(self, sql: str, *values: Any) -> None:
        """Bring the jobs that are found home, each paid for."""
        ids = [row["id"] for row in await self.rows(sql, *values)]
        for job in await self.ledger.jobs(ids):
            self.tasks += 1
            for event in path_to(State.SUCCEEDED, f"task_{self.tasks}")[:-1]:
                job = await self.ledger.advance(job, event)
            await self.ledger.advance(job, e.Stored(Output(f"/out/{job.output}", "0" * 64, 3)))

    async def _finish(self, shot: str) -> None:
        await self._home("SELECT id FROM job WHERE key = ? AND current = 1 AND state = 'pending'", job_key(shot, {}, 1))

    async def _send(self, profile: str) -> None:
        await self._home("SELECT id FROM job WHERE key GLOB ? AND current = 1 AND state = 'pending'", f"*@{profile}")

    async def _judge(self, shot: str, verdict: Verdict) -> None:
        rows = await self.rows(
            "SELECT id, state FROM job WHERE key = ? ORDER BY current DESC, revision DESC LIMIT 1",
            job_key(shot, {}, 1),
        )
        if rows and rows[0]["state"] == State.SUCCEEDED:
            await self.ledger.judge(Judgement([rows[0]["id"]], verdict, "", "me"))

    async def _approve(self, shot: str) -> None:
        """The draft, and the finals that there are of it."""
        await self._judge(shot, Verdict.APPROVED)
        sql = "SELECT id FROM job WHERE key GLOB ? AND current = 1 AND state = 'succeeded'"
        finals = [row["id"] for row in await self.rows(sql, f"{job_key(shot, {}, 1)}@*")]
        await self.ledger.judge(Judgement(finals, Verdict.APPROVED, "", "me"))

    async def _reject(self, shot: str) -> None:
        await self._judge(shot, Verdict.REJECTED)

    async def _promote(self, profile: str) -> None:
        try:
            asked = await self.ledger.query(partial(promotion_of, promotion(profile), None, "me"))
        except (UsageError, Unknown):
            return  # nothing is approved
        plan = await self.ledger.query(partial(plan_promotion, promotion(profile)))
        await self.ledger.promote(asked)
        once = await self.ledger.query(dump)
        await self.ledger.promote(asked)
        assert await self.ledger.query(dump) == once, "promoting twice is promoting once"
        pending = await self.rows(
            "SELECT key, request FROM job WHERE key GLOB ? AND current = 1 AND state = 'pending'", f"*@{profile}"
        )
        assert {row["key"] for row in pending} == {c.job for c in plan.changes if c.change in CHARGED}
        assert {row["key"] for row in pending} <= {s.key for _, s in asked.jobs}, "only winners are still to be sent"
        for winner, final in asked.jobs:
            assert final.key == f"{winner.key}@{profile}"
            assert "@" not in winner.key, "finals are made from drafts"
            assert final.request == {**winner.request, **PROFILES[profile]}

    async def _check(self) -> None:
        twice = await self.rows(
            "SELECT j.key FROM attempt a JOIN job j ON j.id = a.job_id WHERE a.money <> 'none' "
            "GROUP BY j.key, j.fingerprint HAVING count(*) > 1"
        )
        assert not twice, "the same winner is paid for once"
        outputs = await self.rows(
            "SELECT output FROM job WHERE state = 'succeeded' GROUP BY output HAVING count(*) > 1"
        )
        assert not outputs, "no file is overwritten"
        lost = await self.rows(
            "SELECT job.key FROM promotion JOIN job ON job.id = job_id WHERE job.current = 1 AND job.state = 'pending' "
            "AND (SELECT verdict FROM verdict v JOIN job o ON o.id = v.job_id WHERE o.batch_id = job.batch_id "
            "AND job.key GLOB o.key || '@*' ORDER BY v.id DESC LIMIT 1) = 'rejected'"
        )
        assert not lost, "what was rejected is not sent"


APPROVED = [("record", [0, 0]), ("finish", "a"), ("finish", "b"), ("approve", "a"), ("approve", "b")]


@given(st.lists(steps, max_size=25))
@settings(max_examples=40)
@example(
    [
        *[("record", [0, 0]), ("finish", "a"), ("approve", "a"), ("promote", "final"), ("record", [1, 0])],
        *[("finish", "a"), ("approve", "a"), ("promote", "final"), ("record", [0, 0]), ("promote", "final")],
        *[("send", "final"), ("reject", "a"), ("promote", "final"), ("approve", "a"), ("promote", "long")],
    ]
)
@example([*APPROVED, ("promote", "final"), ("reject", "a")])
@example([*APPROVED, ("promote", "final"), ("send", "final"), ("approve", "a"), ("promote", "long")])
@example([*APPROVED, ("promote", "final"), ("record", [2, 0]), ("promote", "final")])
@example(
    [
        *[*APPROVED, ("promote", "final"), ("record", [1, 0]), ("finish", "a"), ("approve", "a"), ("promote", "final")],
        ("reject", "a"),
    ]
)
def test_an_evening(evening: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_ledger(Path(folder) / "l.db", FakeClock()) as ledger:
                one = Evening(ledger)
                await one.take(("record", [0]))
                for step in evening:
                    await one.take(step)

    asyncio.run(play())


def test_another_profile_of_that_name_is_a_new_revision_with_a_file_of_its_own(tmp_path: Path) -> None:
    async def play() -> None:
        async with open_ledger(tmp_path / "l.db", FakeClock()) as ledger:
            one = Evening(ledger)
            for step in (*APPROVED, ("promote", "final"), ("send", "final")):
                await one.take(step)
            other = load_final({"final": {"duration": 10}}, "final")
            plan = await ledger.query(partial(plan_promotion, other))
            assert [(c.job, c.change) for c in plan.changes] == [
                ("a-1@final", Change.CHANGED),
                ("b-1@final", Change.CHANGED),
            ]
            assert {f.name for c in plan.changes for f in c.fields} == {"duration", "resolution"}
            await ledger.promote(await ledger.query(partial(promotion_of, other, None, "me")))
            rows = await one.rows("SELECT revision, output, current FROM job WHERE key = 'a-1@final' ORDER BY revision")
            assert [tuple(row) for row in rows] == [(1, "a-1@final.mp4", 0), (2, "a-1@final.r2.mp4", 1)]

    asyncio.run(play())


shots = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
values = st.text(max_size=12) | st.integers() | st.booleans() | st.none()
profiles = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)


@given(shots, st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), values, max_size=2), profiles)
def test_no_manifest_makes_the_key_of_a_promotion(shot: str, matrix: dict[str, Any], profile: str) -> None:
    """A manifest's key has at most one @, then with a = behind it; the key of a promotion ends in @ and no =."""
    key = job_key(shot, matrix, 1)
    assert "@" not in key or "=" in key.rpartition("@")[2]
    assert "=" not in promoted_key(key, profile).rpartition("@")[2]
    assert promoted_key(key, profile).rpartition("@") == (key, "@", profile)


@given(st.from_regex(r"([a-z0-9]{1,5}/)?[a-z0-9]([a-z0-9.]{0,7}[a-z0-9])?", fullmatch=True), profiles, st.booleans())
def test_a_promotion_has_a_file_of_its_own_in_the_same_folder(output: str, profile: str, named: bool) -> None:
    made = promoted_output(output, profile, named=named)
    assert made != output
    assert made.rpartition("/")[0] == output.rpartition("/")[0]
    if named:
        assert Path(made).suffix == Path(output).suffix or Path(output).suffix == ""


def test_a_winner_says_what_was_approved() -> None:
    winner = Winner(1, "a-1", 1, "a", 1, {}, ("x",), "reapi", {"model": "kling-3-0-turbo", "prompt": "${x}"}, "a", True)
    made = promotion("final").spec(winner)
    assert made is not None
    assert made.request == {"model": "kling-3-0-turbo", "prompt": "${x}", "resolution": "1080p"}, (
        "never filled in again"
    )
    assert (made.key, made.tags, made.output) == ("a-1@final", ("x",), "a@final")


@pytest.mark.parametrize(
    ("asked", "final"),
    [
        ({"model": "kling-3-0", "prompt": "x", "mode": "std"}, {"mode": "pro"}),
        ({"model": "wan2.7-video", "prompt": "x", "resolution": "720P"}, {"resolution": "1080P"}),
        ({"model": "kling-3-0-turbo", "prompt": "x"}, {"resolution": "1080p"}),
    ],
    ids=lambda value: str(value.get("model", "")),
)
def test_a_profile_speaks_to_every_model_in_its_own_words(asked: dict[str, Any], final: dict[str, Any]) -> None:
    made = promotion("final").spec(Winner(1, "a-1", 1, "a", 1, {}, (), "reapi", asked, "a", True))
    assert made is not None
    assert made.request == {**asked, **final}
    again = Winner(1, "a-1", 1, "a", 1, {}, (), "reapi", made.request, "a", True)
    assert promotion("final").spec(again) is None, "what is so already is not made again"
