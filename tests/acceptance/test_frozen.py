"""A night that is held to its frozen plan, by the real command line as cron would call it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.cli_support import run_json
from tests.network.stage import CREDITS, Part, Stage, manifest


async def plan(folder: Path, *arguments: str) -> None:
    """`batchrunner plan` in the folder."""
    words = ("-m", "batchrunner", "plan", *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, env={"PATH": "", "HOME": str(folder)}, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def test_a_frozen_plan_is_what_is_paid_for_whatever_becomes_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(manifest(["a", "b"]))
    await plan(tmp_path, "night.yaml", "--out", "plan.json")
    async with Stage({f"{shot}-1": Part() for shot in "abcd"}, together=False) as stage:

        async def run(*more: str) -> tuple[int, str]:
            ended = await run_json(tmp_path, "run", "--plan", "plan.json", *more, environment=stage.environment)
            return ended.code, ended.err

        (tmp_path / "night.yaml").write_text(manifest(["a", "b", "c", "d"]))
        code, said = await run()
        assert code == 2
        assert "c-1 is new and would cost 630 credits; the plan does not pay for it" in said
        assert stage.all_posts() == {}
        assert not (tmp_path / "batchrunner.db").exists(), "nothing is recorded"

        (tmp_path / "night.yaml").write_text(manifest(["a", "b"]))
        assert await run("--limit", "1") == (4, "")
        assert await run() == (0, ""), "what was done meanwhile is no drift"
        assert await run() == (0, "")
        assert stage.all_posts() == {"a-1": 1, "b-1": 1}
        assert stage.strange == []
    frozen = json.loads((tmp_path / "plan.json").read_text("utf-8"))
    assert frozen["batches"][0]["credits"] == 2 * CREDITS
