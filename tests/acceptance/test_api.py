"""The Python interface, against the double: what a program can do without the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import batchrunner
from batchrunner.core.diff import Change
from batchrunner.engine.control import Stop
from tests.cli_support import MANIFEST
from tests.double import ALWAYS, Door, Double, Plan, Rule

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/nightly.py"


@pytest.fixture
def name(tmp_path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")


@pytest.fixture
def door(double: Double, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith(("REAPI_", "BATCHRUNNER_")):
            monkeypatch.delenv(variable)
    door = double.open(name, Plan(polls=1))
    for variable, value in door.environment.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "night.yaml").write_text(MANIFEST)
    return door


@pytest.mark.usefixtures("door")
async def test_load_plan_and_run(tmp_path: Path, double: Double, name: str) -> None:
    manifest = batchrunner.load("night.yaml")
    assert len(manifest.jobs) == 3
    before = batchrunner.plan(manifest)
    assert (before.totals.credits, before.totals.counts[Change.NEW]) == (1890, 3)
    assert not (tmp_path / "batchrunner.db").exists()

    first = await batchrunner.run(manifest, only=["dog"], limit=1)
    assert (first.exit_code, first.stop) == (4, Stop.LIMIT)
    heard: list[batchrunner.Event] = []
    result = await batchrunner.run([manifest], on_event=heard.append)

    assert (result.exit_code, result.stop) == (0, None)
    assert result.batches[0]["states"]["succeeded"] == 3
    assert len(double.account(name).posts) == 3
    stored = [event for event in heard if event.name == "stored"]
    assert len(stored) == 2
    assert {event.batch for event in stored} == {"night"}
    assert {event.state for event in stored} == {"succeeded"}
    assert all("task_id" in event.data for event in heard if event.name == "accepted")
    assert heard[0].name == "run_started"
    assert batchrunner.plan(manifest).totals.counts[Change.UNCHANGED] == 3


@pytest.mark.usefixtures("door")
async def test_events_end_with_the_result(tmp_path: Path) -> None:
    manifest = batchrunner.load("night.yaml", variables={})
    found = [event async for event in batchrunner.events(manifest, db=tmp_path / "other.db")]
    assert found[0].name == "run_started"
    assert found[-1].name == "summary"
    assert found[-1].result is not None
    assert found[-1].result.exit_code == 0
    assert all(event.result is None for event in found[:-1])
    assert (tmp_path / "other.db").exists()


async def test_one_who_leaves_early_orphans_nothing(door: Door, double: Double, name: str) -> None:
    """The loop is left while a submission is on the wire: it is answered and recorded first."""
    double.open(name, Plan([Rule("post", "hold", 2, ALWAYS)], polls=1))
    manifest = batchrunner.load("night.yaml")

    async def let_go() -> None:
        double.release(name)

    releasing: asyncio.Task[None] | None = None
    async with contextlib.aclosing(batchrunner.events(manifest)) as happening:
        async for event in happening:
            if event.name == "accepted":
                while double.account(name).waiting < 2:
                    await asyncio.sleep(0.01)
                releasing = asyncio.create_task(let_go())  # runs when the run that is being left waits
                break
    assert releasing is not None
    await releasing

    double.open(name, Plan(polls=1))
    result = await batchrunner.run([])
    assert result.exit_code == 0, result
    assert len(double.account(name).posts) == 3, "each was paid for once, by the run that was left"


async def test_a_cancelled_run_lets_the_ledger_go(door: Door, double: Double, name: str) -> None:
    double.open(name, Plan([Rule("poll", "hold", task=0, last=ALWAYS)]))
    manifest = batchrunner.load("night.yaml")
    accepted = asyncio.Event()
    task = asyncio.create_task(
        batchrunner.run(manifest, on_event=lambda event: accepted.set() if event.name == "accepted" else None)
    )
    await accepted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    double.open(name, Plan(polls=1))
    double.release(name)
    assert (await batchrunner.run([])).exit_code == 0
    assert len(double.account(name).posts) == 3


@pytest.mark.usefixtures("door")
async def test_signals_stay_the_callers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    seen = []

    def look(event: batchrunner.Event) -> None:
        del event
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])

    await batchrunner.run(batchrunner.load("night.yaml"), on_event=look)
    assert seen
    assert all(handlers == before for handlers in seen)


async def test_time_is_up_before_it_begins(door: Door, double: Double, name: str) -> None:
    result = await batchrunner.run(batchrunner.load("night.yaml"), seconds=0.0)
    assert (result.exit_code, result.stop) == (4, Stop.DEADLINE)
    assert double.account(name).posts == []


@pytest.mark.usefixtures("door")
async def test_what_can_go_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nbatch: night\nshots: [{id: a, prompt: b, modle: c}]\n")
    with pytest.raises(batchrunner.ManifestError) as caught:
        batchrunner.load("bad.yaml")
    assert caught.value.findings[0].line == 3
    with pytest.raises(batchrunner.UsageError, match="contains an API key"):
        batchrunner.load("night.yaml", variables={"x": os.environ["REAPI_API_KEY"]})
    manifest = batchrunner.load("night.yaml")
    with pytest.raises(batchrunner.UsageError, match="nothing is selected"):
        batchrunner.plan(manifest, only=["nobody"])
    with pytest.raises(batchrunner.UsageError, match="need simulate"):
        await batchrunner.run(manifest, faults=["fail"])
    (tmp_path / "batchrunner.db").write_text("no database, and longer than nothing")
    with pytest.raises(batchrunner.LedgerUnusable):
        [event async for event in batchrunner.events(manifest)]


def test_two_at_once(door: Door, double: Double, name: str) -> None:
    double.open(name, Plan([Rule("poll", "hold", task=0, last=ALWAYS)]))

    async def both() -> None:
        manifest = batchrunner.load("night.yaml")
        async with contextlib.aclosing(batchrunner.events(manifest)) as happening:
            async for event in happening:
                if event.name == "accepted":
                    with pytest.raises(batchrunner.LedgerBusy):
                        await batchrunner.run(manifest)
                    break

    asyncio.run(both())


def test_every_name_is_there_and_costs_nothing_before_it_is_used() -> None:
    for each in batchrunner.__all__:
        assert getattr(batchrunner, each) is not None
        assert each in dir(batchrunner)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        batchrunner.nothing  # type: ignore[attr-defined]  # noqa: B018
    code = "import sys; before = set(sys.modules); import batchrunner; print(sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "['__future__', 'batchrunner']"


@pytest.mark.parametrize(("most", "code"), [(5000, 0), (1000, 4)])
def test_the_example(door: Door, double: Double, name: str, tmp_path: Path, most: int, code: int) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLE, "night.yaml", "--most", str(most)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    if code:
        assert "would cost 1890 credits, 1000 are allowed" in ran.stderr
        assert double.account(name).posts == []
    else:
        assert "3 of 3 for 1890 credits" in ran.stdout
        assert f"dog-1 is in {tmp_path}/outputs/night/dog-1.mp4" in ran.stdout


def test_the_page_shows_the_example() -> None:
    assert EXAMPLE.read_text() in (ROOT / "docs/api.md").read_text()
