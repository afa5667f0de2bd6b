"""Runs that die at every named point, and again in the recovery, at every service: as tests/crash has it for reAPI,
through the same driver, judged by the same account."""

from __future__ import annotations

import pytest

from batchrunner.engine.ports import CRASH_POINTS
from batchrunner.plugins import SHIPPED
from tests.crash.faults import SERVICES, WHERE
from tests.crash.test_enumeration import ONLY_LATER, drive
from tests.voices import VOICES

AGAIN = {*CRASH_POINTS} - {"submit.spooled"}
"""What runs die at that follow a death: a full disk is for a first run."""


@pytest.mark.parametrize("service", ["fal", "replicate"])
def test_the_promise_holds_wherever_a_run_dies_at(service: str) -> None:
    report = drive("--service", service)

    assert report["violations"] == []
    assert set(report["hits"]) >= {*CRASH_POINTS} - ONLY_LATER, "first runs die at every point"
    assert set(report["again"]) >= AGAIN, "and so do the runs after them"
    assert report["not_fired"] <= report["kills"] * 0.25


def test_and_in_a_batch_of_a_chain_over_all_of_them() -> None:
    report = drive("--service", "all")

    assert report["violations"] == []
    assert set(report["hits"]) >= {p for p in CRASH_POINTS if p.startswith(("submit.before", "submit.rec", "poll."))}
    assert report["kills"] >= 20


def test_no_service_is_forgotten() -> None:
    assert {*VOICES} == {*SHIPPED} == {"reapi", *SERVICES} - {"all"}
    assert all(name.partition(".")[2] in WHERE for of in SERVICES.values() for name in of)


@pytest.mark.parametrize(
    ("mutant", "fault"), [("resend", "reset_after/run:submit.answered.1"), ("free_failures", "moderate")]
)
def test_a_program_that_breaks_the_promise_is_caught_at_each(mutant: str, fault: str) -> None:
    scenarios = [f"{service}.{fault}/run" for service in ("fal", "replicate")]
    report = drive("--mutant", mutant, *(word for scenario in scenarios for word in ("--only", scenario)))

    caught = [v for v in report["violations"] if "the run broke" not in v]
    assert all(any(v.startswith(scenario) for v in caught) for scenario in scenarios)
