"""The state machine: every pair of a state and an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

import pytest

from batchrunner.core import events as e
from batchrunner.core import lifecycle
from batchrunner.core.job import (
    IN_FLIGHT,
    LIVE,
    TERMINAL,
    Cancelled,
    Downloading,
    Fact,
    Failed,
    FailureKind,
    Output,
    Pending,
    Problem,
    Running,
    State,
    Submitting,
    Succeeded,
    Unconfirmed,
)
from batchrunner.core.lifecycle import MAX_RENEWALS, TABLE, IllegalTransition, Money, advance, money_after

SEEN = Problem("earlier", "timeout")
NEW = Problem("now", 80001, 400, "req_9")
FILE = Output("/out/a.mp4", "ab" * 32, 12)
URLS = ("https://x.test/a.mp4", "https://x.test/b.mp4")

FACTS: dict[State, Fact] = {
    State.PENDING: Pending(2, 5.0),
    State.SUBMITTING: Submitting(2),
    State.UNCONFIRMED: Unconfirmed(2, SEEN),
    State.RUNNING: Running(2, "t2", 1),
    State.DOWNLOADING: Downloading(2, "t2", URLS, 0),
    State.SUCCEEDED: Succeeded(2, "t2", FILE),
    State.FAILED: Failed(2, FailureKind.PROVIDER, SEEN, "t2"),
    State.CANCELLED: Cancelled(2),
}
EVENTS: tuple[e.Event, ...] = (
    e.Claimed(),
    e.Accepted("t3", "req_3"),
    e.NotSent(NEW, 7.0),
    e.Throttled(NEW, 3.0, 8.0),
    e.Refused(e.Refusal.CREDIT, NEW),
    e.Rejected(NEW),
    e.Ambiguous(NEW),
    e.Interrupted(),
    e.Identified("t4", "me", "found it"),
    e.Resubmitted("me", "again"),
    e.Abandoned("me", "gone"),
    e.Retried("me", "once more"),
    e.Withdrawn("me", "no"),
    e.Completed(URLS, 630),
    e.TaskFailed(NEW),
    e.Vanished(NEW),
    e.Stored(FILE),
    e.LinkDied(NEW),
)

AFTER: dict[tuple[State, type[e.Event]], Fact] = {
    (State.PENDING, e.Claimed): Submitting(3),
    (State.PENDING, e.Withdrawn): Cancelled(2),
    (State.SUBMITTING, e.Accepted): Running(2, "t3", 0),
    (State.SUBMITTING, e.NotSent): Pending(2, 7.0),
    (State.SUBMITTING, e.Throttled): Pending(2, 8.0),
    (State.SUBMITTING, e.Refused): Pending(2, 0.0),
    (State.SUBMITTING, e.Rejected): Failed(2, FailureKind.REJECTED, NEW, None),
    (State.SUBMITTING, e.Ambiguous): Unconfirmed(2, NEW),
    (State.SUBMITTING, e.Interrupted): Unconfirmed(2, e.Interrupted().problem),
    (State.UNCONFIRMED, e.Identified): Running(2, "t4", 0),
    (State.UNCONFIRMED, e.Resubmitted): Pending(2, 0.0),
    (State.UNCONFIRMED, e.Abandoned): Failed(2, FailureKind.ABANDONED, SEEN, None),
    (State.RUNNING, e.Completed): Downloading(2, "t2", URLS, 1),
    (State.RUNNING, e.TaskFailed): Failed(2, FailureKind.PROVIDER, NEW, "t2"),
    (State.RUNNING, e.Vanished): Failed(2, FailureKind.LOST, NEW, "t2"),
    (State.DOWNLOADING, e.Stored): Succeeded(2, "t2", FILE),
    (State.DOWNLOADING, e.LinkDied): Running(2, "t2", 1),
    (State.FAILED, e.Retried): Pending(2, 0.0),
}
"""Written down a second time, from FAILURES.md: what follows, with its data."""

MONEY: dict[type[e.Event], Money | None] = {
    e.Claimed: Money.RESERVED,
    e.Accepted: Money.RESERVED,
    e.Identified: Money.RESERVED,
    e.NotSent: Money.NONE,
    e.Throttled: Money.NONE,
    e.Refused: Money.NONE,
    e.Rejected: Money.NONE,
    e.TaskFailed: Money.NONE,
    e.Ambiguous: Money.AT_RISK,
    e.Interrupted: Money.AT_RISK,
    e.Completed: Money.SPENT,
    e.Vanished: Money.SPENT,
    e.Resubmitted: None,
    e.Abandoned: None,
    e.Retried: None,
    e.Withdrawn: None,
    e.Stored: None,
    e.LinkDied: None,
}


def _name(value: object) -> str:
    return type(value).__name__


def test_the_samples_are_complete() -> None:
    assert set(FACTS) == set(State)
    assert {type(f) for f in FACTS.values()} == set(get_args(Fact))
    assert {type(v) for v in EVENTS} == set(get_args(e.Event)) == set(MONEY)
    assert len(EVENTS) == 18


def test_every_event_and_only_events_stand_in_the_table() -> None:
    assert {event for _, event in TABLE} == set(get_args(e.Event))
    assert {state for state, _ in TABLE}.isdisjoint({State.SUCCEEDED, State.CANCELLED})
    assert set(AFTER) == set(TABLE)


@pytest.mark.parametrize("event", EVENTS, ids=_name)
@pytest.mark.parametrize("state", State)
def test_every_pair(state: State, event: e.Event) -> None:
    fact = FACTS[state]
    expected = AFTER.get((state, type(event)))
    if expected is None:
        with pytest.raises(
            IllegalTransition, match=f"{_name(event)} can't happen to a job that is {state.value}"
        ) as raised:
            advance(fact, event)
        assert raised.value.state is state
        assert raised.value.event is event
    else:
        assert advance(fact, event) == expected
        assert expected.state in TABLE[state, type(event)]


VARIANTS: list[tuple[Fact, e.Event, Fact]] = [
    (Pending(), e.Claimed(), Submitting(1)),
    (Pending(), e.Withdrawn("me"), Cancelled(0)),
    (Running(1, "t"), e.TaskFailed(NEW, again=True, retry_at=9.0), Pending(1, 9.0)),
    (Running(1, "t"), e.TaskFailed(NEW, moderated=True, again=True, retry_at=9.0), Pending(1, 9.0)),
    (Running(1, "t"), e.TaskFailed(NEW, moderated=True), Failed(1, FailureKind.MODERATED, NEW, "t")),
    (Downloading(1, "t", URLS, MAX_RENEWALS), e.LinkDied(NEW), Failed(1, FailureKind.EXPIRED, NEW, "t")),
    (Failed(3, FailureKind.EXPIRED, SEEN, "t"), e.Retried("me"), Pending(3, 0.0)),
]


@pytest.mark.parametrize(("fact", "event", "after"), VARIANTS, ids=lambda v: _name(v))
def test_the_other_ways_through_the_table(fact: Fact, event: e.Event, after: Fact) -> None:
    assert advance(fact, event) == after


def test_every_way_in_the_table_is_taken() -> None:
    taken = {(s, ev, after.state) for (s, ev), after in AFTER.items()}
    taken |= {(fact.state, type(event), after.state) for fact, event, after in VARIANTS}
    assert taken == {(s, ev, to) for (s, ev), targets in TABLE.items() for to in targets}


def test_dead_urls_send_a_job_back_once_only() -> None:
    fact: Fact = Downloading(1, "t", URLS)
    seen = []
    while isinstance(fact, Downloading):
        fact = advance(fact, e.LinkDied(NEW))
        seen.append(fact.state)
        if isinstance(fact, Running):
            fact = advance(fact, e.Completed(URLS))
    assert seen == [State.RUNNING, State.FAILED]


def test_the_table_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "TABLE", {k: v for k, v in TABLE.items() if k != (State.PENDING, e.Claimed)})
    with pytest.raises(IllegalTransition):
        advance(Pending(), e.Claimed())


@pytest.mark.parametrize("event", EVENTS, ids=_name)
def test_money(event: e.Event) -> None:
    assert money_after(event) is MONEY[type(event)]


def test_a_thing_that_is_no_event_or_fact_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        money_after(cast("Any", e.StillRunning()))
    with pytest.raises(AssertionError):
        advance(cast("Any", NEW), e.Claimed())
    with pytest.raises(IllegalTransition):
        advance(Running(1, "t"), cast("Any", e.StillRunning()))


def test_groups_of_states() -> None:
    assert {s for s, _ in TABLE if s not in LIVE} == {State.PENDING, State.FAILED}
    assert TERMINAL | LIVE | {State.PENDING} == set(State)
    assert TERMINAL.isdisjoint(LIVE)
    assert IN_FLIGHT < LIVE


def test_the_module_exports_what_it_checks_with() -> None:
    @dataclass(frozen=True)
    class Stranger:
        state = State.PENDING

    with pytest.raises(AssertionError):
        lifecycle.advance(cast("Any", Stranger()), e.Claimed())


def test_a_task_that_was_complete_once_stays_paid_for_whatever_the_provider_says_later() -> None:
    failed = e.TaskFailed(Problem("it failed after all", 80001))
    assert money_after(failed, Running(1, "task_1")) is Money.NONE
    assert money_after(failed, Running(1, "task_1", renewals=1)) is None


@pytest.mark.parametrize("again", [False, True])
def test_a_failed_task_that_may_have_cost_something_counts_as_spent(again: bool) -> None:
    """Some services promise no refund, and a budget that forgets a possible charge is no budget (promise P5)."""
    problem = Problem("x", "failed")
    assert money_after(e.TaskFailed(problem, again=again, charged=True)) is Money.SPENT
    assert money_after(e.TaskFailed(problem, again=again)) is Money.NONE


def test_what_a_task_gave_is_what_is_downloaded() -> None:
    done = e.Completed(URLS, last_frame_url="https://x.test/last.png", kinds=("video",))
    assert advance(Running(2, "task_1", renewals=1), done) == Downloading(
        2, "task_1", URLS, 1, ("video",), "https://x.test/last.png"
    )
