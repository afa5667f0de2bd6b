"""What has drifted since a plan was frozen, as it is told."""

from __future__ import annotations

from typing import Any

import pytest

from batchrunner.core.diff import Change, JobChange
from batchrunner.core.frozen import FrozenBatch, FrozenJob, drift
from tests.support import spec


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("ein Bär", "a bear", 'prompt: "ein Bär" -> "a bear"'),
        ("a\x1b[31m", "a", 'prompt: "a\\u001b[31m" -> "a"'),
        ("a" * 1000, "a", 'prompt: "' + "a" * 58 + '… -> "a"'),
    ],
)
def test_a_prompt_is_told_in_its_own_letters_and_not_at_length(before: str, after: str, said: str) -> None:
    asked = spec(prompt=after)
    frozen = FrozenJob("new", 630, "another", asked.provider, {**asked.request, "prompt": before})
    (line,) = told(frozen, JobChange(asked.key, Change.NEW, 630, spec=asked))
    assert line == (asked.key, f"asks for something else: {said}")


def told(frozen: FrozenJob, now: JobChange) -> Any:
    return list(drift(FrozenBatch("night", "night.yaml", {}, {now.job: frozen}), [now]))


FROZEN = FrozenJob("new", 630, "aa", "reapi", {"prompt": "a"})


def now(change: Change, fingerprint: str = "aa", credits: int | None = 0) -> JobChange:  # noqa: A002
    return JobChange("dog-1", change, credits, fingerprint=fingerprint)


@pytest.mark.parametrize("change", [Change.UNCHANGED, Change.IN_FLIGHT])
def test_what_was_done_meanwhile_is_no_drift(change: Change) -> None:
    assert told(FROZEN, now(change)) == []


@pytest.mark.parametrize("change", [Change.UNCHANGED, Change.IN_FLIGHT])
def test_what_is_asked_for_instead_and_was_paid_for_before_is_drift(change: Change) -> None:
    """The plan's own request would no longer be made."""
    assert [key for key, _ in told(FROZEN, now(change, "bb"))] == ["dog-1"]


def test_what_is_no_longer_asked_for_is_drift() -> None:
    removed = told(FROZEN, now(Change.REMOVED, ""))
    never_recorded = list(drift(FrozenBatch("night", "night.yaml", {}, {"dog-1": FROZEN}), []))
    assert removed == never_recorded != []


@pytest.mark.parametrize("change", [Change.UNCHANGED, Change.IN_FLIGHT, Change.REMOVED])
def test_what_the_plan_never_paid_for_and_the_run_does_not_either_is_no_drift(change: Change) -> None:
    assert list(drift(FrozenBatch("night", "night.yaml", {}, {}), [now(change)])) == []


def test_a_price_that_is_no_longer_known_is_drift() -> None:
    asked = spec(credits=None)
    frozen = FrozenJob("new", 630, asked.fingerprint, asked.provider, asked.request)
    ((key, how),) = told(frozen, JobChange(asked.key, Change.NEW, None, spec=asked))
    assert key == asked.key
    assert "unknown price" in how
    assert told(frozen, JobChange(asked.key, Change.NEW, 630, spec=asked)) == []
