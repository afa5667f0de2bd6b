"""Images and clips, several of a task, a last frame, and what is not as ordered: the real command line against the
simulator."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchrunner.ledger.files import RunLock
from batchrunner.providers import decoder
from batchrunner.simulator import Simulator, SimulatorSettings, parse_faults
from tests.cli_support import Ended, Ran, call, run_json

QUICK = SimulatorSettings(median_seconds=0.05, sigma=0, clips="tiny")
CLIPS = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 3}
shots: [{id: dog, prompt: a dog}]
"""
STILLS = """\
version: 1
batch: night
defaults: {model: z-image, aspect_ratio: "1:1"}
shots: [{id: dog, prompt: a dog}, {id: dog-1, prompt: another}]
"""


@dataclass(frozen=True, slots=True)
class Night:
    """A folder, and the service that its manifest is run against."""

    folder: Path
    simulator: Simulator

    async def run(self, manifest: str, *faults: str) -> Ended:
        self.simulator.set_faults(parse_faults(faults))
        (self.folder / "night.yaml").write_text(manifest)
        paid = {"REAPI_BASE_URL": self.simulator.url, "REAPI_API_KEY": "rk_test"}
        return await run_json(self.folder, "run", "night.yaml", environment=paid)

    async def call(self, *arguments: str) -> Ran:
        return await asyncio.to_thread(call, *arguments, "--db", str(self.folder / "batchrunner.db"))

    async def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("jobs", "--json")).json
        return found

    def names(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "outputs/night").iterdir() if p.suffix != ".json")


@pytest.fixture
async def night(tmp_path: Path) -> AsyncIterator[Night]:
    async with Simulator(QUICK) as simulator:
        yield Night(tmp_path, simulator)


def whole(job: dict[str, Any]) -> bool:
    """Every output is as accounted for, with a sidecar of its own."""
    for one in job["outputs"]:
        path = Path(one["path"])
        facts = json.loads(path.with_name(path.name + ".json").read_text())
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sha256"] == facts["sha256"]
        assert len(data) == one["bytes"] == facts["bytes"]
        assert facts["task_id"] == job["task_id"]
        assert facts["media"] == one["media"]
    first = job["outputs"][0]
    return (job["output"], job["sha256"], job["bytes"]) == (first["path"], first["sha256"], first["bytes"])


async def test_images_get_the_extension_of_what_came(night: Night) -> None:
    ran = await night.run(STILLS, "jpeg=next:1")
    assert ran.code == 0, ran.err
    assert sorted(night.names()) in (["dog-1-1.png", "dog-1.jpg"], ["dog-1-1.jpg", "dog-1.png"])
    assert all(whole(job) and job["outputs"][0]["kind"] == "image" for job in await night.jobs())
    assert {job["media"]["codec"] for job in await night.jobs()} == {"png", "jpeg"}


async def test_several_outputs_are_all_accounted_for_and_take_nobodys_name(night: Night) -> None:
    """`dog-1` gives `dog-1-1`, which is another job's name: both are kept, neither is overwritten."""
    ran = await night.run(STILLS, "several=1:3")
    assert ran.code == 0, ran.err
    first, other = await night.jobs()
    mark = first["task_id"][-8:]
    assert night.names() == sorted(
        [f"dog-1-1.{mark}.png", "dog-1-2.png", "dog-1-3.png", "dog-1-1-1.png", "dog-1-1-2.png", "dog-1-1-3.png"]
    )
    assert [len(job["outputs"]) for job in (first, other)] == [3, 3]
    assert whole(first)
    assert whole(other)
    assert len({one["sha256"] for job in (first, other) for one in job["outputs"]}) == 6
    again = await night.run(STILLS)
    assert again.code == 0
    assert night.simulator.account()["downloads"] == 6, "a finished file is never fetched again"


async def test_what_is_not_as_ordered_is_said_and_changes_nothing(night: Night) -> None:
    ran = await night.run(CLIPS, "wrong_duration=1:2", "last_frame=1")
    assert ran.code == 0
    (stored,) = ran.told("stored")
    (job,) = await night.jobs()
    words = ["3 s were ordered, 2 s came"]
    assert stored["warnings"] == words
    assert (job["state"], job["credits"], job["media"]["warnings"]) == ("succeeded", 378, words)
    assert night.names() == ["dog-1-last-frame.png", "dog-1.mp4"]
    assert [one.get("role") for one in job["outputs"]] == [None, "last_frame"]
    assert job["last_frame_url"].startswith(night.simulator.url)
    assert whole(job)
    assert ran.events[-1]["media_warnings"] == 1
    assert night.simulator.account()["posts"] == 1
    assert "WARNING    3 s were ordered, 2 s came" in (await night.call("show", "dog-1")).out
    assert "1 not as ordered" in (await night.call("status")).out
    checked = await night.call("check", "night")
    assert (checked.code, checked.out.splitlines()) == (
        1,
        [f"dog-1: {words[0]}", "1 job, 2 files: 1 not as they should be"],
    )


async def test_a_last_frame_that_is_gone_fails_no_clip(night: Night) -> None:
    ran = await night.run(CLIPS, "last_frame_gone=1")
    assert ran.code == 0
    (job,) = await night.jobs()
    assert night.names() == ["dog-1.mp4"]
    assert job["media"]["warnings"] == ["last frame: not fetched: the output's server answered HTTP 403"]
    assert job["last_frame_url"]
    assert whole(job)


@pytest.mark.parametrize("manifest", [CLIPS, STILLS])
async def test_another_kind_of_file_is_no_output(night: Night, manifest: str) -> None:
    """It is not what was paid for, and is not saved as if it were; nothing is paid for again."""
    ran = await night.run(manifest, "wrong_kind")
    assert ran.code == 1
    assert {job["error"]["kind"] for job in await night.jobs()} == {"expired"}
    assert night.names() == []
    assert night.simulator.account()["posts"] == len(await night.jobs())


async def test_check_looks_at_the_files_again(night: Night) -> None:
    await night.run(STILLS)
    good = await night.call("check", "night", "--decode")
    assert (good.code, good.out) == (0, "2 jobs, 2 files: all as ordered\n")
    assert [job["media"]["frames"] for job in await night.jobs()] == [1, 1]
    one, two = (Path(job["output"]) for job in await night.jobs())
    data = bytearray(one.read_bytes())
    data[-20] ^= 1
    one.write_bytes(data)
    two.unlink()
    bad = await night.call("check", "dog*", "--json")
    assert bad.code == 1
    assert [f["disk"] for f in bad.json["found"]] == [
        [f"{one}: the file is not what came: it has been changed since"],
        [f"{two}: the file is not there any more"],
    ]
    assert [job["media"]["warnings"] for job in await night.jobs()] == [[], []], (
        "what the disk has lost is told, not kept"
    )
    lock = RunLock(night.folder / "batchrunner.db")
    lock.acquire()
    try:
        assert (await night.call("check", "night")).code == 5
    finally:
        lock.release()
    assert (await night.call("check", "cat")).code == 2
    assert call("check", "x", "--db", night.folder / "none.db").code == 2, "without a ledger nothing is begun"


async def test_decoding_finds_what_headers_hide(tmp_path: Path) -> None:
    """A clip whose pictures are damaged is whole by its boxes. What a decoder does, it does elsewhere."""
    settings = SimulatorSettings(median_seconds=0.05, sigma=0)
    async with Simulator(settings) as simulator:
        night = Night(tmp_path, simulator)
        assert (await night.run(CLIPS)).code == 0
        (job,) = await night.jobs()
        path = Path(job["output"])
        assert (await asyncio.to_thread(decoder.decode, path, "MP4", "video")) == decoder.Decoded(12, None)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    data[start + 700 : start + 4000] = bytes(3300)
    path.write_bytes(data)
    found = decoder.decode(path, "MP4", "video")
    assert found.told
    assert found.broken is not None
    path.write_bytes(b"\0\0\0\x18ftypisom" + b"\xff" * 4000)
    assert decoder.decode(path, "MP4", "video").broken is not None
