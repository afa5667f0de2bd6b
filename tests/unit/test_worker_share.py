"""What a worker takes of what all workers together may ask of an account."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from batchrunner.engine.control import Slots
from batchrunner.engine.pacer import Pacer
from batchrunner.engine.ports import Deps, Settings
from tests.support import FakeClock


def test_workers_share_the_polls_of_an_account() -> None:
    deps = cast("Deps", SimpleNamespace(clock=FakeClock(), observe=lambda *_, **__: None))
    pacer = Pacer(deps, Settings(polls_per_minute=600.0), Slots(5))
    whole: Any = pacer.progress()["polls_per_minute_limit"]

    pacer.rebound(None, None, 0.25)
    assert pacer.progress()["polls_per_minute_limit"] == round(whole / 4.0, 1)
    pacer.rebound(None, None)
    assert pacer.progress()["polls_per_minute_limit"] == whole
