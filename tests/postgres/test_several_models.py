"""Workers whose batch has several models, or several services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.test_kill import scenario
from tests.cli_support import call
from tests.double import ALWAYS, Double, Plan, Rule
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres
from tests.voices import VOICES

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


SERVICES = """\
version: 1
batch: night
defaults: {prompt: a dog, duration: 5}
limits: {submits_per_minute: 1200, in_flight: 3}
output: {dir: out}
shots:
  - {id: here, model: kling-3-0-turbo, takes: 5}
  - {id: there, model: fal-ai/kling-video/v3/turbo/pro/text-to-video, takes: 5}
"""


@pytest.mark.slow
def test_a_worker_does_the_jobs_of_the_services_whose_keys_it_has_and_the_others_are_left_to_peers(
    double: Double, postgres: Postgres, tmp_path: Path
) -> None:
    fal = VOICES["fal"].variables
    with fleet(tmp_path, double, postgres, jobs=10, prune=2.0, manifest=SERVICES) as made:
        made.environment |= dict(zip(fal, (made.door.url, made.door.key), strict=True))
        one = made.worker(without="FAL_KEY")
        made.posted(1)
        status = made.ask("status")
        assert (status["workers"][0]["providers"], status["batches"][0]["left_to_workers"]["unserved"]) == (
            ["reapi"],
            ["fal"],
        )
        told = call("status", "--db", f"{made.server.url}?schema={made.server.schema}").out
        assert "no worker that is alive has the key for fal" in told
        assert made.ended(one) == 0, made.said()
        assert "jobs of fal are left to workers that have its key" in made.said()
        assert made.states() == {"succeeded": 5, "pending": 5}

        assert made.ended(made.worker()) == 0, made.said()

        assert made.states() == {"succeeded": 10}, made.said()
        assert {task.service for task in made.account().tasks} == {"reapi", "fal"}
        assert len(made.account().tasks) == 10


IMPATIENT = """\
from batchrunner.cluster import carrier
carrier.AGAIN, carrier.LATER = 0.5, 1
from batchrunner.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("refusals", "code"), [(2, 0), (ALWAYS, 6)])
def test_a_key_that_is_refused_stops_one_account_of_a_worker_for_a_while(
    double: Double, postgres: Postgres, tmp_path: Path, refusals: int, code: int
) -> None:
    fal = VOICES["fal"].variables
    rule = Rule("post", "unauthorized", last=refusals)
    other = double.open(f"{scenario(tmp_path)}-other", Plan((rule,), polls=1))
    program = ("-c", IMPATIENT) if code == 0 else ("-m", "batchrunner")
    with fleet(tmp_path, double, postgres, jobs=10, prune=2.0, manifest=SERVICES, program=program) as made:
        made.environment |= dict(zip(fal, (other.url, other.key), strict=True))

        assert made.ended(made.worker()) == code, made.said()

        assert "fal: " in made.said(), "it is said, once or twice"
        assert made.states() == ({"succeeded": 10} if code == 0 else {"succeeded": 5, "pending": 5}), made.said()
        sent = double.account(other.scenario).posts
        assert len(sent) == 7 if code == 0 else 1 <= len(sent) <= 3, "what was on the wire when the first was answered"
