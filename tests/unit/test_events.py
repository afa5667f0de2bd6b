"""Events are frozen values, and each has its place."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_args

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Problem

CLASSES = [c for _, c in inspect.getmembers(e, dataclasses.is_dataclass) if c.__module__ == e.__name__]


def test_every_class_belongs_to_an_event_or_an_answer() -> None:
    known = {*get_args(e.Event), *get_args(e.SubmitAnswer), *get_args(e.PollAnswer)}
    assert set(CLASSES) == known


def test_every_submit_answer_is_a_transition_and_some_poll_answers_are_not() -> None:
    assert set(get_args(e.SubmitAnswer)) < set(get_args(e.Event))
    # Throttled and Refused as answers to a poll hold or stop the run; they are transitions of submissions only.
    assert set(get_args(e.PollAnswer)) - set(get_args(e.Event)) == {e.StillRunning, e.Missing, e.PollFailed}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)


def test_an_interruption_says_what_was_seen() -> None:
    assert e.Interrupted() == e.Interrupted(Problem(e.Interrupted().problem.message, "interrupted"))
    assert "between sending the request and reading its answer" in e.Interrupted().problem.message


def test_defaults_claim_nothing() -> None:
    problem = Problem("x")
    assert (problem.code, problem.http_status, problem.request_id) == (None, None, None)
    assert e.TaskFailed(problem).again is False
    assert e.TaskFailed(problem).moderated is False
    assert e.Throttled(problem).retry_after is None
    assert e.Completed(()).credits is None
    assert e.StillRunning().known is True
