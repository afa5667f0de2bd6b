"""Every named crash point x what goes wrong outside x deaths in the recovery, judged by the double's account.

`BATCHRUNNER_CRASH_SCALE` widens it: 1 is the gate, 4 is `make crash-long`, 0 is everything.
A scenario that failed can be played again alone; its identifier stands first in the line:
    python -m tests.crash.driver --only reset_after/run:submit.answered.1/run:poll.sent.1/run
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchrunner.engine.ports import CRASH_POINTS, LOOKUP_POINTS
from tests.crash.mutants import MUTANTS
from tests.crash.scenarios import EFFECTS, RUNS, SIGNALS, WORDS

SHARDS = 2
"""Drivers beside each other."""
SCALE = float(os.environ.get("BATCHRUNNER_CRASH_SCALE", "1"))
ENOUGH = 10_000 if SCALE == 1 else 30_000
"""Runs (processes, each with a history that no other has) that they are held to together, at least."""

ROOT = Path(__file__).resolve().parents[2]

ONLY_LATER = {"recover.restored", "recover.spool", "recover.cleared", "recover.interrupted", "word.recorded"}
"""What a run that begins with an empty ledger never passes."""

UNSTOPPED = {"submit.spooled", "end.noted"}
"""Where a signal has no say: nobody knows how long a disk stays full, and a run that has noted its end has ended."""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A driver of their own for some scenarios."""
    command = [sys.executable, "-W", "error", "-m", "tests.crash.driver", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def ended(driver: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Its report."""
    said, _ = driver.communicate()
    assert driver.returncode in {0, 1}, "the driver itself failed"
    report: dict[str, Any] = json.loads(said)
    return report


def drive(*arguments: str) -> dict[str, Any]:
    """Play scenarios in a driver of their own; its report."""
    return ended(start(*arguments))


@pytest.mark.slow
@pytest.mark.timeout(3700 if SCALE == 1 else 14_400)
def test_the_promise_holds_wherever_a_run_dies() -> None:
    drivers = [start("--shard", f"{n}/{SHARDS}", "--scale", str(SCALE)) for n in range(SHARDS)]
    reports = [ended(driver) for driver in drivers]
    counts = ("runs", "repeated", "kills", "stops", "not_fired", "cpu")
    total = {name: sum(r[name] for r in reports) for name in counts}
    print(total)  # shown with `pytest -rP`
    hits, again, signals, verbs = (_sum(reports, name) for name in ("hits", "again", "signals", "verbs"))

    assert [v for r in reports for v in r["violations"]] == []
    assert total["runs"] >= ENOUGH
    assert total["kills"] >= ENOUGH * 0.35
    assert total["not_fired"] <= total["kills"] * 0.25, "a plan that never fires proves nothing"
    assert set(hits) >= {*CRASH_POINTS} - ONLY_LATER, "first runs die at every point"
    assert set(again) >= {*CRASH_POINTS} - {"submit.spooled"}, "and so do the runs after them"
    assert set(hits) | set(again) >= {*EFFECTS}, "runs die at everything that is done to the disk"
    assert set(verbs) == RUNS | WORDS
    stopped = {f"{number.name}{twice}" for number in SIGNALS for twice in ("", " twice")}
    first = {f"{point} {how}" for point in {*CRASH_POINTS} - ONLY_LATER - UNSTOPPED for how in stopped}
    later = {f"{point} {how} again" for point in {*CRASH_POINTS} - UNSTOPPED for how in stopped}
    assert set(signals) >= first | later, "every signal comes at every point, once and twice, in first runs and later"


def _sum(reports: list[dict[str, Any]], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report[name])
    return total


def test_the_list_of_crash_points_is_complete() -> None:
    """Every `crash("...")` in the source is in the lists, and nothing else. Those of a lookup are died at in
    tests/providers/test_lookup.py: no shipped service has one."""
    found = set()
    for path in (ROOT / "batchrunner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and (getattr(node.func, "attr", "") or getattr(node.func, "id", "")) == "crash"
            ):
                found.add(ast.literal_eval(node.args[0]))

    assert found == {*CRASH_POINTS, *LOOKUP_POINTS}
    assert len(found) == len(CRASH_POINTS) + len(LOOKUP_POINTS)


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_program_that_breaks_the_promise_is_caught(mutant: str) -> None:
    report = drive("--mutant", mutant, "--only", MUTANTS[mutant].scenario)

    assert [v for v in report["violations"] if "the run broke" not in v]


def test_the_same_scenarios_hold_without_the_mutants() -> None:
    scenarios = sorted({mutant.scenario for mutant in MUTANTS.values()})
    report = drive(*(word for scenario in scenarios for word in ("--only", scenario)))

    assert report["violations"] == []
    assert report["runs"] >= len(scenarios)
