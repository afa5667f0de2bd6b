"""The exit codes of CONTRACT.md."""

from __future__ import annotations

import itertools

import pytest

from batchrunner.app import exit_code
from batchrunner.core.job import LIVE, State
from batchrunner.engine.control import Stop
from batchrunner.exits import simulated_name

S = State
GENTLE = [None, *(s for s in Stop if s not in {Stop.CREDENTIALS, Stop.UNREACHABLE, Stop.INTERRUPTED, Stop.TERMINATED})]


@pytest.mark.parametrize("stop", GENTLE)
@pytest.mark.parametrize(
    ("current", "code"),
    [
        ((), 0),
        ((S.SUCCEEDED,), 0),
        ((S.CANCELLED,), 0),
        ((S.SUCCEEDED, S.CANCELLED), 0),
        ((S.FAILED,), 1),
        ((S.SUCCEEDED, S.FAILED), 1),
        ((S.PENDING,), 4),
        ((S.RUNNING,), 4),
        ((S.DOWNLOADING,), 4),
        ((S.SUBMITTING,), 4),
        ((S.FAILED, S.PENDING), 4),
        ((S.UNCONFIRMED,), 3),
        ((S.UNCONFIRMED, S.FAILED), 3),
        ((S.UNCONFIRMED, S.PENDING), 3),
        ((S.UNCONFIRMED, S.SUCCEEDED, S.FAILED, S.RUNNING), 3),
    ],
    ids=lambda v: "-".join(v) or "nothing" if isinstance(v, tuple) else str(v),
)
def test_by_what_is_left(stop: Stop | None, current: tuple[State, ...], code: int) -> None:
    assert exit_code(stop, dict.fromkeys(current, 2), {}) == code


@pytest.mark.parametrize(
    ("stop", "code"),
    [(Stop.INTERRUPTED, 130), (Stop.TERMINATED, 143), (Stop.CREDENTIALS, 6), (Stop.UNREACHABLE, 6)],
)
def test_what_ends_a_run_at_once_says_so(stop: Stop, code: int) -> None:
    for n in range(4):
        for states in itertools.combinations(State, n):
            assert exit_code(stop, dict.fromkeys(states, 1), {}) == code


@pytest.mark.parametrize("stop", GENTLE)
def test_a_count_of_nothing_is_nothing(stop: Stop | None) -> None:
    assert exit_code(stop, dict.fromkeys(State, 0), dict.fromkeys(State, 0)) == 0


def test_an_old_revision_that_is_unconfirmed_needs_a_person_too() -> None:
    assert exit_code(None, {S.SUCCEEDED: 5}, {S.UNCONFIRMED: 1}) == 3


def test_codes_are_never_wrong_about_success() -> None:
    """0 means that nothing current failed, is in doubt or is left, over every set of states."""
    for n in range(len(State) + 1):
        for states in itertools.combinations(State, n):
            code = exit_code(None, dict.fromkeys(states, 1), {})
            assert (code == 0) is (not ({S.FAILED, S.PENDING} | LIVE) & set(states))


def test_an_old_revision_that_is_still_to_come_home_is_work_left() -> None:
    for state in (State.SUBMITTING, State.RUNNING, State.DOWNLOADING):
        assert exit_code(None, {State.SUCCEEDED: 1}, {state: 1}) == 4
    assert exit_code(None, {State.SUCCEEDED: 1}, {State.PENDING: 1}) == 0


@pytest.mark.parametrize(
    ("name", "simulated"),
    [
        ("batchrunner.db", "batchrunner.sim.db"),
        ("batchrunner.sim.db", "batchrunner.sim.db"),
        ("ledger", "ledger.sim.db"),
        (".db", ".db.sim.db"),
        ("a.b.sqlite", "a.b.sim.sqlite"),
    ],
)
def test_simulated_work_keeps_a_ledger_of_its_own(name: str, simulated: str) -> None:
    assert simulated_name(name) == simulated
