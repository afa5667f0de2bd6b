"""Nights whose outputs go into a bucket: the real command line, a provider and a store that keep their own accounts."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.checks import Books
from tests.crash.command_line import CommandLine
from tests.double import Account, Double, Plan
from tests.objects.bucket import BUCKET, SECRET, Bucket, Request

MANIFEST = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 5}
limits: {submits_per_minute: 60000}
output: {dir: "s3://clips/nights/${batch}", name: "${shot}-${take}.mp4"}
shots:
  - {id: dog, prompt: a dog on a boat, takes: 3}
"""
DYING = """
import os, signal, sys
from dataclasses import replace
from batchrunner import app
from batchrunner.cli import errors
real = app.run
def crash(point):
    if point == {point!r}:
        os.kill(os.getpid(), signal.SIGKILL)
app.run = lambda options, watcher: real(replace(options, crash=crash), watcher)
sys.exit(errors.main(sys.argv[1:]))
"""
WITHOUT = """
import sys
sys.modules["s3fs"] = None
from batchrunner.cli import errors
sys.exit(errors.main(sys.argv[1:]))
"""


@dataclass
class Night:
    """A folder with a manifest, an account with the provider, and a bucket."""

    line: CommandLine
    double: Double
    name: str
    bucket: Bucket
    said: str = ""

    def run(self, *words: str, program: str = "") -> int:
        """A whole call; its exit code, negative for a signal."""
        start = ["-c", program] if program else ["-m", "batchrunner"]
        done = subprocess.run(
            [sys.executable, *start, *(words or ("run", "night.yaml", "--quiet"))],
            cwd=self.line.folder,
            env=self.line._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.said = done.stdout + done.stderr
        assert SECRET not in self.said
        assert "Traceback" not in self.said
        return done.returncode

    @property
    def account(self) -> Account:
        return self.double.account(self.name)

    def states(self) -> dict[str, int]:
        return dict(Books(self.line.db, self.line.folder / "copy").states())

    def judge(self, other: Mapping[str, bytes] | None = None, *, jobs: int = 3) -> None:
        """So many outputs, each whole with its sidecar, each paid for once; nothing is left, and no secret is kept."""
        account, found = self.account, self.bucket.objects()
        books = Books(self.line.db, self.line.folder / "copy")
        assert books.states() == {"succeeded": jobs}
        assert len(account.posts) == len(account.tasks) == jobs
        assert account.net == jobs * 630
        for job in books.jobs:
            key = job["file"].removeprefix(f"s3://{BUCKET}/")
            clip, facts = found.pop(key), json.loads(found.pop(f"{key}.json"))
            assert clip == account.clip(job["task_id"])
            digest = hashlib.sha256(clip).hexdigest()
            assert (facts["task_id"], facts["sha256"], facts["bytes"]) == (job["task_id"], digest, len(clip))
            assert (job["sha256"], job["bytes"]) == (digest, len(clip))
        assert found == (other or {})
        assert self.bucket.uploads() == []
        assert not Path(f"{self.line.db}.parts").exists()
        for path in self.line.folder.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.fixture
def night(double: Double, bucket: Bucket, tmp_path: Path) -> Night:
    name = re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")
    door = double.open(name, Plan(polls=1))
    (tmp_path / "night.yaml").write_text(MANIFEST)
    return Night(CommandLine(tmp_path, {**door.environment, **bucket.environment}), double, name, bucket)


def test_a_night_and_what_reads_it(night: Night) -> None:
    assert night.run() == 0, night.said
    night.judge()
    puts = [each for each in night.bucket.seen if each.method == "PUT"]
    assert len(puts) == 6
    assert night.run() == 0
    assert len(night.account.posts) == 3
    assert [each for each in night.bucket.seen if each.method == "PUT"] == puts

    (job, *_) = night.line.ask("jobs", "night")
    assert job["output"] == "s3://clips/nights/night/dog-1.mp4"
    assert night.run("report", "night") == 2
    assert "--out" in night.said
    assert night.run("report", "night", "--out", "page.html") == 0
    page = (night.line.folder / "page.html").read_text()
    assert "s3://clips/nights/night/dog-1.mp4" in page
    assert "X-Amz" not in page

    night.bucket.put("nights/night/dog-1.mp4", b"another")
    night.bucket.client.delete_object(Bucket=BUCKET, Key="nights/night/dog-2.mp4")
    night.run("check", "night")
    assert "dog-1.mp4: the file is not what came" in night.said
    assert "dog-2.mp4: the object is not there any more" in night.said
    assert "dog-3" not in night.said


STEPS = ("download.fetched", "place.sidecar", "place.renamed", "place.folder_synced", "download.placed")


def test_a_run_that_dies_at_every_step_of_placing(night: Night) -> None:
    """A batch dies at each; then one run knows what is there, and fetches only the rest."""
    for n, point in enumerate(STEPS, 1):
        text = MANIFEST.replace("batch: night", f"batch: night-{n}").replace("takes: 3", "takes: 1")
        (night.line.folder / f"{n}.yaml").write_text(text)
        assert night.run("run", f"{n}.yaml", program=DYING.format(point=point)) == -signal.SIGKILL, (point, night.said)
        there = {key for key in night.bucket.objects() if key.startswith(f"nights/night-{n}/")}
        clip, sidecar = f"nights/night-{n}/dog-1.mp4", f"nights/night-{n}/dog-1.mp4.json"
        expected: dict[str, set[str]] = {"download.fetched": set(), "place.sidecar": {sidecar}}
        assert there == expected.get(point, {clip, sidecar}), point
    assert night.run("resume") == 0, night.said
    night.judge(jobs=len(STEPS))
    assert [task.downloads for task in night.account.tasks] == [2, 2, 1, 1, 1]


def test_a_run_that_dies_in_the_middle_of_an_upload(night: Night) -> None:
    night.bucket.fault = lambda request: "stall" if request.puts_object else None
    run = night.line.start("run", "night.yaml")
    assert night.bucket.stalled.wait(60)
    run.kill()
    night.bucket.released.set()
    assert not [key for key in night.bucket.objects() if key.endswith(".mp4")], "there is no half of an object"
    night.bucket.fault = lambda _: None
    assert night.run() == 0, night.said
    night.judge()


def test_a_store_that_is_slow_cuts_off_and_loses_answers(night: Night) -> None:
    """dog-1 meets a storm of 503, dog-2's upload is cut in its middle, dog-3's is done and the answer lost."""
    tried: dict[str, int] = {}

    def fault(request: Request) -> str | None:
        if not request.puts_object:
            return None
        times = tried[request.key] = tried.get(request.key, 0) + 1
        return {"1": "503" if times <= 2 else None, "2": "cut" if times == 1 else None}.get(
            request.key[-5], "lost" if times == 1 else None
        )

    night.bucket.fault = fault
    assert night.run() == 0, night.said
    night.judge()
    assert max(tried.values()) == 3


def test_a_store_that_refuses(night: Night) -> None:
    """At the start nothing is sent. Later what is paid for waits for the next run."""
    night.bucket.fault = lambda _: "403"
    assert night.run() == 2
    assert "AccessDenied" in night.said
    night.bucket.fault = lambda _: "404"
    assert night.run() == 2
    assert "there is no bucket clips" in night.said
    assert night.account.posts == []

    night.bucket.fault = lambda request: "403" if request.puts_object else None
    assert night.run() == 4, night.said
    assert "AccessDenied" in night.said
    sent = len(night.account.posts)
    assert 1 <= sent <= 3
    assert night.states().get("succeeded") is None
    night.bucket.fault = lambda _: None
    assert night.run() == 0, night.said
    night.judge()


def test_what_is_somebody_elses_stays(night: Night) -> None:
    theirs = {"nights/night/dog-1.mp4": b"theirs"}
    night.bucket.put(*next(iter(theirs.items())))
    assert night.run() == 2
    assert "s3://clips/nights/night/dog-1.mp4 exists already" in night.said
    assert night.account.posts == []
    night.bucket.client.delete_object(Bucket=BUCKET, Key="nights/night/dog-1.mp4")

    def appears(request: Request) -> None:
        if request.puts_object and request.key in theirs:
            night.bucket.put(request.key, theirs[request.key])

    night.bucket.fault = appears
    assert night.run() == 0, night.said
    night.judge(theirs)


def test_without_the_extra(night: Night) -> None:
    assert night.run("run", "night.yaml", program=WITHOUT) == 2
    assert "pip install 'batchrunner[objects]'" in night.said
    assert night.account.posts == []
