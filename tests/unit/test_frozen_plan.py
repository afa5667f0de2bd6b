"""What has drifted since a plan was frozen, as it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from batchrunner.core.chain import Need
from batchrunner.core.diff import Change, JobChange
from batchrunner.core.frozen import (
    Arguments,
    Damaged,
    Frozen,
    FrozenBatch,
    FrozenJob,
    drift,
    from_json,
    to_json,
)
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


PLAN = Frozen(
    "2026-11-26T18:00:00Z",
    "../night.db",
    Arguments("final", {"season": "winter"}, ("dog*", "cat"), ("hero",)),
    (
        FrozenBatch("night", "night.yaml", {"kling-3-0-turbo": "2026-11-01"}, {"dog-1": FROZEN}),
        FrozenBatch("day", "day.yaml", {}, {}),
    ),
)


def test_a_plan_comes_back_as_it_was_written() -> None:
    written = json.loads(json.dumps(to_json(PLAN)))
    assert from_json(written) == PLAN
    bare = from_json(to_json(replace(PLAN, arguments=Arguments())))
    assert bare.arguments == Arguments(variables={})
    with pytest.raises(Damaged):
        from_json({**written, "ledger": "another.db"})


def test_a_parent_that_has_changed_is_told_by_its_key() -> None:
    """Its reference in the request is another one: nothing that a person has written there."""

    def request(of: str) -> dict[str, Any]:
        return {"images": [Need("still-1", of, "output_url").reference, Need("still-2", of, "output_url").reference]}

    asked = replace(spec(), request=request("b" * 32))
    frozen = FrozenJob("new", 630, "another", asked.provider, request("a" * 32))
    ((_, how),) = told(frozen, JobChange(asked.key, Change.NEW, 630, spec=asked))
    assert how == "asks for something else: needs still-1, still-2 changed"
