"""A person's word, as what it is to a job."""

from __future__ import annotations

from batchrunner.core import events as e
from batchrunner.core.promotion import Verdict
from batchrunner.core.words import Judge, Resolve


def test_how_an_unconfirmed_job_is_settled() -> None:
    assert Resolve("a-1", task_id="task_1", why="seen").event("mia") == e.Identified("task_1", "mia", "seen")
    assert Resolve("a-1", resubmit=True, why="never came").event("mia") == e.Resubmitted("mia", "never came")
    assert Resolve("a-1", abandon=True, why="too dear").event("mia") == e.Abandoned("mia", "too dear")


def test_a_verdict_says_what_was_done() -> None:
    assert [Judge(("a-1",), verdict).did for verdict in Verdict] == ["approved", "rejected"]
