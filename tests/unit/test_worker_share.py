"""What a worker takes of what all workers together may ask of an account."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from batchrunner.core.job import RetryBudget
from batchrunner.core.limits import Limits
from batchrunner.engine.pacer import Pacer
from batchrunner.engine.ports import Deps, Settings, poll_budget
from batchrunner.engine.slots import Slots
from batchrunner.ledger.due import Batch
from tests.support import FakeClock


def test_workers_share_the_polls_of_an_account() -> None:
    deps = cast("Deps", SimpleNamespace(clock=FakeClock(), observe=lambda *_, **__: None))
    pacer = Pacer(deps, Settings(polls_per_minute=600.0), Slots(5))
    whole: Any = pacer.progress()["polls_per_minute_limit"]

    pacer.rebound(None, None, 0.25)
    assert pacer.progress()["polls_per_minute_limit"] == round(whole / 4.0, 1)
    pacer.rebound(None, None)
    assert pacer.progress()["polls_per_minute_limit"] == whole


def test_a_manifests_polls_hold_for_all_workers_and_end_with_its_batch() -> None:
    deps = cast("Deps", SimpleNamespace(clock=FakeClock(), observe=lambda *_, **__: None))
    pacer = Pacer(deps, Settings(in_flight=100), Slots(100))
    assert pacer.progress()["polls_per_minute_bound"] == poll_budget(100) == 3000.0
    pacer.poll_at_most(600.0)
    pacer.rebound(None, None, 0.5)
    assert pacer.progress()["polls_per_minute_bound"] == 300.0
    pacer.rebound(None, 200)
    assert pacer.progress()["polls_per_minute_bound"] == 600.0
    pacer.poll_at_most(None)
    pacer.rebound(None, None)
    assert pacer.progress()["polls_per_minute_bound"] == poll_budget(200)


def test_the_polls_of_a_batch_are_shared_by_its_accounts() -> None:
    pytest.importorskip("psycopg")
    from batchrunner.cluster.bounds import bounds_of

    def batch(number: int, polls: float | None) -> Batch:
        return Batch(number, f"b{number}", Path("/out"), 60.0, 20, RetryBudget(), 0, Limits(polls_per_minute=polls))

    batches = [batch(1, 600.0), batch(2, 400.0), batch(3, None)]
    found = bounds_of(batches, {1: {"reapi"}, 2: {"reapi", "fal"}, 3: {"replicate"}})
    assert {name: bounds.polls_per_minute for name, bounds in found.items()} == {
        "reapi": 200.0,
        "fal": 200.0,
        "replicate": None,
    }
