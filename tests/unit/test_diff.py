"""What a manifest asks for against what is known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from batchrunner.core.diff import Change, FieldChange, JobChange, Known, Totals, diff
from batchrunner.core.job import JobSpec, State
from tests.support import spec


def known(of: JobSpec, state: State, *, revision: int = 1, current: bool = True) -> Known:
    return Known(of.fingerprint, revision, state, current, of.provider, json.dumps(of.request))


def one(asked: JobSpec, *revisions: Known) -> JobChange:
    (change,) = diff([asked], {asked.key: revisions})
    return change


@pytest.mark.parametrize(
    ("state", "change", "price"),
    [
        (State.PENDING, Change.NEW, 630),
        (State.SUBMITTING, Change.IN_FLIGHT, 0),
        (State.UNCONFIRMED, Change.IN_FLIGHT, 0),
        (State.RUNNING, Change.IN_FLIGHT, 0),
        (State.DOWNLOADING, Change.IN_FLIGHT, 0),
        (State.SUCCEEDED, Change.UNCHANGED, 0),
        (State.FAILED, Change.UNCHANGED, 0),
        (State.CANCELLED, Change.UNCHANGED, 0),
    ],
)
def test_the_same_request_costs_only_while_it_was_never_sent(state: State, change: Change, price: int) -> None:
    assert one(spec(), known(spec(), state)) == JobChange("dog-1", change, price, state=state)


def test_an_unknown_key_is_new() -> None:
    assert list(diff([spec()], {})) == [JobChange("dog-1", Change.NEW, 630)]


@pytest.mark.parametrize("state", list(State))
def test_another_request_is_changed_whatever_became_of_the_old_one(state: State) -> None:
    found = one(spec(prompt="a dog at night"), known(spec(), state))
    assert found == JobChange("dog-1", Change.CHANGED, 630, (FieldChange("prompt", "a dog", "a dog at night"),))


def test_a_change_that_is_recorded_and_not_sent_is_still_a_change() -> None:
    new = spec(prompt="b")
    found = one(new, known(spec(), State.SUCCEEDED, current=False), known(new, State.PENDING, revision=2))
    assert found == JobChange("dog-1", Change.CHANGED, 630, (FieldChange("prompt", "a dog", "b"),), State.PENDING)


def test_a_first_request_that_comes_back_unsent_takes_nobodys_place() -> None:
    later = known(spec(prompt="b"), State.SUCCEEDED, revision=2)
    found = one(spec(), known(spec(), State.PENDING, current=False), later)
    assert found == JobChange("dog-1", Change.NEW, 630, state=State.PENDING)


def test_a_request_that_comes_back_is_the_job_that_it_was() -> None:
    later = known(spec(prompt="b"), State.SUCCEEDED, revision=2)
    assert one(spec(), known(spec(), State.SUCCEEDED, current=False), later).change is Change.UNCHANGED


def test_fields_that_appear_go_or_change_their_type_are_named() -> None:
    before = known(spec(), State.SUCCEEDED)
    request = {"model": "kling-3-0-turbo", "prompt": "a dog", "duration": True, "watermark": False}
    found = one(replace(spec(), request=request, fingerprint="f" * 32, provider="other"), before)
    assert found.fields == (
        FieldChange("provider", "reapi", "other"),
        FieldChange("duration", 5, True),
        FieldChange("watermark", None, False),
    )
    gone = one(replace(spec(), request={"model": "kling-3-0-turbo"}, fingerprint="e" * 32), before)
    assert {f.name: f.after for f in gone.fields} == {"prompt": None, "duration": None}


def test_what_is_asked_for_no_more_is_removed_once() -> None:
    revisions = [known(spec("cat"), State.SUCCEEDED, current=False), known(spec("cat", prompt="b"), State.RUNNING)]
    gone = [known(spec("cow"), State.SUCCEEDED, current=False)]
    found = list(diff([spec()], {"cat-1": revisions, "cow-1": gone}))
    assert [(c.job, c.change, c.credits, c.state) for c in found] == [
        ("dog-1", Change.NEW, 630, None),
        ("cat-1", Change.REMOVED, 0, State.RUNNING),
    ]


@pytest.mark.parametrize(
    ("state", "prompt", "change", "paid"),
    [
        (None, "a dog", Change.NEW, True),
        (State.PENDING, "a dog", Change.NEW, True),
        (State.SUCCEEDED, "b", Change.CHANGED, True),
        (State.RUNNING, "a dog", Change.IN_FLIGHT, False),
        (State.SUCCEEDED, "a dog", Change.UNCHANGED, False),
    ],
)
def test_what_is_asked_for_and_what_would_be_paid_for(
    state: State | None, prompt: str, change: Change, paid: bool
) -> None:
    asked = spec(prompt=prompt)
    found = one(asked, *([known(spec(), state)] if state else []))
    assert (found.change, found.fingerprint) == (change, asked.fingerprint)
    assert found.spec is (asked if paid else None)


def totals(*specs: JobSpec) -> Totals:
    found = Totals.empty()
    for change in diff(specs, {}):
        found.add(change)
    return found


def test_totals_are_sums() -> None:
    found = totals(spec(), spec("cat", credits=7), spec("cow", credits=0))
    assert (found.credits, found.unpriced, found.counts[Change.NEW]) == (637, 0, 3)


def test_totals_know_no_price_once_a_job_has_none() -> None:
    found = totals(spec(), spec("cat", credits=None), spec("cow"), spec("hen", credits=None))
    assert (found.credits, found.unpriced, found.counts[Change.NEW]) == (None, 2, 4)
