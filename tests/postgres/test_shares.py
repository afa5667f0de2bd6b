"""What several workers have learned of one account: a part each, the account's limit together."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from batchrunner.core.adaptive import Learned
from batchrunner.ledger import pace
from batchrunner.ledger.postgres.shared import SharedLedger
from tests.postgres.server import Postgres
from tests.postgres.test_shared import _silent_since, two
from tests.support import FakeClock

pytest.importorskip("procrastinate")


async def says(ledger: SharedLedger, progress: dict[str, Any]) -> None:
    """With a sign of life."""
    text = json.dumps(progress)
    await ledger.write(lambda c: c.execute("UPDATE worker SET progress = ? WHERE id = ?", (text, ledger.worker)))


async def account(ledger: SharedLedger) -> Learned:
    """What is kept of it, for a run and for people."""
    await ledger.write(lambda _: None)  # what was written behind is written
    return await ledger.read(partial(pace.read, "reapi"))


@pytest.mark.parametrize("several", [False, True], ids=["one service", "several services"])
async def test_parts_are_added_up_and_a_worker_begins_with_its_own(postgres: Postgres, several: bool) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        found: dict[str, Any] = {"learned": {"submits_per_minute": 120.0, "in_flight": 7, "calls_per_minute": None}}
        nothing = {"learned": dict.fromkeys(found["learned"])}
        await says(other, {**nothing, "providers": {"reapi": found, "fal": nothing}} if several else found)

        one.save_pace("reapi", Learned(1.0, 4, None))

        assert await account(one) == Learned(3.0, 11, None)
        assert await one.pace("reapi") == Learned(1.5, 6, None)
        await _silent_since(one, other.worker)
        assert await one.pace("reapi") == Learned(3.0, 11, None), "it is alone, and has all of it"


async def test_of_what_one_has_not_met_nothing_is_said_and_what_none_has_met_is_forgotten(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.save_pace("reapi", Learned(1.0, None, 9.0))
        assert await account(one) == Learned(), "it is a part of an account's limit that nobody knows"
        await says(other, {"learned": {"submits_per_minute": 60.0, "in_flight": None, "calls_per_minute": 60.0}})
        one.save_pace("reapi", Learned(1.0, None, 9.0))
        assert await account(one) == Learned(2.0, None, 10.0)

        one.save_pace("reapi", Learned(None, None, 5.0))
        assert await account(one) == Learned(2.0, None, 6.0)
        await says(other, {})
        one.save_pace("reapi", Learned())
        assert await account(one) == Learned()
