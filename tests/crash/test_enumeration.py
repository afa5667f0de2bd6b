"""Every named crash point x what goes wrong outside x a death in the recovery, judged by the double's account.

`BATCHRUNNER_CRASH_SCALE` widens it: 1 is the gate; 3 passes ten thousand runs; 0 is everything.
A scenario that failed can be played again alone; its id stands first in the line:
    python -m tests.crash.driver --only reset_after/submit.answered.1/poll.sent.1/run
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrunner.engine.ports import CRASH_POINTS
from tests.crash.mutants import MUTANTS
from tests.double import Double

SHARDS = 8
SCALE = int(os.environ.get("BATCHRUNNER_CRASH_SCALE", "1"))
RUNS = {0: 20_000, 1: 2_400, 2: 6_000}.get(SCALE, 10_000)
"""Runs (forked processes) that the shards together are held to, at least."""

ROOT = Path(__file__).resolve().parents[2]


def drive(double: Double, *arguments: str) -> dict[str, Any]:
    """Play scenarios in a driver of their own; its report."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.crash.driver", "--double", str(double.port), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode in {0, 1}, "the driver itself failed"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.slow
@pytest.mark.timeout(300 if SCALE == 1 else 7200)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_the_promise_holds_wherever_a_run_dies(
    double: Double, shard: int, record_property: Callable[[str, object], None]
) -> None:
    report = drive(double, "--shard", f"{shard}/{SHARDS}", "--scale", str(SCALE))
    for name in ("runs", "kills", "not_fired", "scenarios"):
        record_property(name, report[name])

    assert report["violations"] == []
    assert report["runs"] >= RUNS / SHARDS
    assert report["kills"] >= report["runs"] * 0.4  # plans that never fired are counted apart
    assert set(report["hits"]) >= set(CRASH_POINTS), "in every shard a run dies at every point"


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_program_that_breaks_the_promise_is_caught(double: Double, mutant: str) -> None:
    report = drive(double, "--mutant", mutant, "--only", MUTANTS[mutant].scenario)

    assert [v for v in report["violations"] if "the run broke" not in v]


@pytest.mark.parametrize("scenario", sorted({mutant.scenario for mutant in MUTANTS.values()}))
def test_the_same_scenarios_hold_without_the_mutant(double: Double, scenario: str) -> None:
    assert drive(double, "--only", scenario)["violations"] == []
