"""Draft, approve, promote, by the real command line: a winner's final is paid for once, through edits and deaths."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli_support import Ran, call, run_json
from tests.network.stage import Part, Scene, Stage, manifest, say
from tests.raw_server import Peer, http

PROFILE = "profiles: {final: {resolution: 1080p}}"

DIES = """
import os, signal, sys
from pathlib import Path
from batchrunner import app
from batchrunner.core.promotion import promoted
from batchrunner.manifest import load_profile

def crash(point):
    if point == "start.recorded":
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
promotion = load_profile(folder / "night.yaml", "final", variables={})
options = app.RunOptions(
    folder / "batchrunner.db", promotion=promotion, selection=promoted("final"), crash=crash
)
app.run(options, app.Watcher())
"""


async def _created(peer: Peer, scene: Scene) -> None:
    """As `created`, under an id that a service could give: it has no @."""
    await say(http(200, {**scene.task(), "id": scene.task_id.replace("@", "_")}))(peer, scene)


class Place:
    """A folder with a manifest, and the service that plays to it."""

    def __init__(self, folder: Path, *shots: str) -> None:
        self.folder = folder
        keys = [f"{shot}-1" for shot in shots]
        parts = dict.fromkeys([*keys, *(f"{key}_final" for key in keys)], Part())
        self.stage = Stage({**parts, **{f"{key}@final": Part(post=_created) for key in keys}}, together=False)
        self.write(*shots)

    def write(self, *shots: str, prompt: str = "a dog") -> None:
        text = manifest(list(shots), more=PROFILE)
        (self.folder / "night.yaml").write_text(text.replace("prompt: a dog", f"prompt: {prompt}"))

    async def run(self, *words: str) -> int:
        return (await run_json(self.folder, *words, environment=self.stage.environment)).code

    async def promote(self, *options: str) -> int:
        return await self.run("promote", "night", "--profile", "final", *options)


async def tell(*words: str) -> Ran:
    """A verb that asks nobody else, beside the test's own event loop."""
    return await asyncio.to_thread(call, *words)


async def approve(*names: str) -> None:
    assert (await tell("approve", *names)).code == 0


async def jobs() -> dict[str, Any]:
    """The current jobs."""
    return {j["job"]: j for j in (await tell("jobs", "--json")).json if j["current"]}


async def test_a_winner_is_paid_for_once_and_a_new_revision_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, "a", "b")
    async with place.stage as stage:
        assert await place.run("run", "night.yaml") == 0
        await approve("a-1")
        assert await place.promote("--max-credits", "2000") == 4, "the cap of the batch is the promotion's too"
        assert stage.posts("a-1@final") == 0
        assert (await tell("plan", "night.yaml", "--json")).json["summary"]["credits"] == 788, (
            "a run would send it, and says so"
        )
        assert (await tell("reject", "a-1")).code == 0
        assert await place.run("resume", "night") == 0
        assert stage.posts("a-1@final") == 0, "what was not sent is not sent after a rejection"

        await approve("a-1")
        for _ in range(2):
            assert await place.promote() == 0
        assert stage.all_posts() == {"a-1": 1, "b-1": 1, "a-1@final": 1}
        final = (await jobs())["a-1@final"]
        assert final["promoted_from"] == {"job": "a-1", "revision": 1, "profile": "final"}
        assert final["request"] == {**(await jobs())["a-1"]["request"], "resolution": "1080p"}
        assert Path(final["output"]).name == "a-1@final.mp4"
        assert json.loads(Path(final["output"] + ".json").read_text("utf-8"))["promoted_from"] == "a-1"

        place.write("a", "b", prompt="a wolf")
        assert await place.run("run", "night.yaml") == 0
        assert (await jobs())["a-1@final"]["state"] == "succeeded", "the manifest has no say in it"
        refused = await tell("promote", "night", "--profile", "final")
        assert refused.code == 2
        assert "no job of night is approved" in refused.err
        await approve("a-1")
        assert await place.promote() == 0
        assert stage.all_posts() == {"a-1": 2, "b-1": 2, "a-1@final": 2}
        again = (await jobs())["a-1@final"]
        assert (again["revision"], again["promoted_from"]["revision"]) == (2, 2)
        assert again["request"]["prompt"] == "a wolf"
        assert Path(final["output"]).exists()
        assert len({j["output"] for j in (await jobs()).values()} | {final["output"]}) == 4
        shown = (await tell("show", "a-1", "--revision", "1", "--json")).json
        assert [(p["job"], p["revision"], p["state"]) for p in shown["promotions"]] == [("a-1@final", 1, "succeeded")]
        assert stage.strange == []


async def test_a_death_between_recording_and_submitting_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, "a", "b", "c")
    async with place.stage as stage:
        assert await place.run("run", "night.yaml") == 0
        await approve("a-1", "b-1")
        dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, str(tmp_path))
        assert await dying.wait() == -signal.SIGKILL
        assert {k: j["state"] for k, j in (await jobs()).items() if "@" in k} == {
            "a-1@final": "pending",
            "b-1@final": "pending",
        }
        assert (await tell("reject", "b-1")).code == 0
        await approve("c-1")
        assert await place.promote() == 0
        assert stage.all_posts() == {"a-1": 1, "b-1": 1, "c-1": 1, "a-1@final": 1, "c-1@final": 1}
        await approve("b-1")
        assert await place.promote("--limit", "1") == 0
        assert stage.posts("b-1@final") == 1
        assert {j["revision"] for j in (await jobs()).values()} == {1}
