"""Workers whose batch has several models, or several services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.double import Double
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres

pytest.importorskip("procrastinate")

MODELS = """\
version: 1
batch: night
defaults: {prompt: a dog}
limits: {submits_per_minute: 1200, in_flight: 4, models: {kling-3-0-turbo: {in_flight: 1}}}
output: {dir: out}
shots:
  - {id: slow, model: kling-3-0-turbo, duration: 5, takes: 60}
  - {id: quick, model: wan2.7-video, duration: 5, takes: 4}
"""
"""More of the slow ones than both workers have hands, and they come first."""


@pytest.mark.slow
def test_a_model_with_a_bound_of_its_own_keeps_to_it_and_stands_back_for_the_others(
    double: Double, postgres: Postgres, tmp_path: Path
) -> None:
    with fleet(tmp_path, double, postgres, jobs=64, prune=2.0, delay=0.1, manifest=MODELS) as made:
        job = f'"{made.server.schema}".job'
        made.worker()
        made.worker()
        most = [0]

        def quick_are_done() -> bool:
            [(flying, done)] = made.postgres.ask(
                "SELECT count(*) FILTER (WHERE shot = 'slow' AND state IN ('submitting', 'running')), "
                f"count(*) FILTER (WHERE shot = 'quick' AND state = 'succeeded') FROM {job}"
            )
            most[0] = max(most[0], flying)
            return bool(done == 4)

        made.until(quick_are_done)
        assert most == [1]
        assert made.states()["pending"] > 36, made.said()
