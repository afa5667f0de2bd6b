"""Workers that die at every step of their own, one after the other, on one batch: the next goes on with it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.double import Double
from tests.integration.test_notify import listening
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres
from tests.postgres.test_postgres_kill import look

pytest.importorskip("procrastinate")

from batchrunner.cluster.points import CRASH_POINTS

JOBS = 24

CLAIMING = ("submit.before_intent", "submit.intent", "submit.answered", "submit.recorded")
LEAVING = ("carry.left", "carry.given_back")
TELLING = ("ending.claimed", "ending.heard", "ending.noted")
HANDED = ("carry.fetched",)


def test_each_step_of_a_worker_is_here() -> None:
    assert {*HANDED, *LEAVING, *TELLING} == {*CRASH_POINTS}


@pytest.mark.slow
def test_at_whatever_step_a_worker_dies_the_next_goes_on(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "notify:\n  - webhook: {url_env: HOOK}\n    on: always"
    with (
        listening() as seen,
        fleet(tmp_path, double, postgres, jobs=JOBS, prune=2.0, in_flight=3, delay=0.05, more=more) as made,
    ):
        monkeypatch.setenv("HOOK", seen.url())

        def died(point: str, *, told: bool = False) -> None:
            """Start one that dies there, at SIGTERM if it is told so; look at what it has left."""
            posts = len(made.account().posts)
            number = made.worker(dies=point)
            if told:
                made.posted(posts + 1)
                made.processes[number].send_signal(signal.SIGTERM)
            assert made.ended(number) == -signal.SIGKILL, (point, made.said())
            labels = [task.label for task in made.account().tasks]
            assert len(set(labels)) == len(labels), f"paid twice: {point}"
            look(made.server, made.line, made.account())

        for point in (*HANDED, *CLAIMING):
            died(point)
        for point in LEAVING:
            died(point, told=True)
        heard = {}
        for point in TELLING:
            died(point)
            heard[point] = len(seen.requests)
        assert made.ended(made.worker()) == 0, made.said()

        assert heard == {"ending.claimed": 0, "ending.heard": 1, "ending.noted": 2}
        notices = [json.loads(body) for _, _, body in seen.requests]
        assert len(notices) == 2, "what is noted is told no more"
        assert len({notice["ending"] for notice in notices}) == 1, "who heard it twice can tell"
        states = made.states()
        assert set(states) <= {"succeeded", "unconfirmed"}, made.said()
        assert sum(states.values()) == JOBS
        assert states["unconfirmed"] <= 3 * len(CLAIMING), "what was on the wire when one died"
        look(made.server, made.line, made.account(), 3 if states["unconfirmed"] else 0)
