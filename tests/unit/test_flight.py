"""The limit of what is in flight: measured, kept to, and tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.measured import AGAIN, Flight


def fill(flight: Flight, now: float, count: int) -> None:
    """Accept POSTs that each were the last that the limit let go."""
    for _ in range(count):
        flight.accepted(now, flight.value, flight.value)


def test_a_refusal_tells_the_limit_exactly() -> None:
    flight = Flight(500)
    assert flight.value == 500
    flight.refused(10.0, 1.0, running=40, in_a_row=1)
    assert (flight.value, flight.top) == (40, 40)


def test_one_more_is_tried_later_and_a_failure_costs_nothing_but_itself() -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=40, in_a_row=1)
    flight.accepted(0.5, 40, 40)
    assert flight.value == 40, "not during the hold's aftermath"
    fill(flight, 100.0, AGAIN[0] - 1)
    assert flight.trying
    assert flight.value == 41
    flight.refused(101.0, 1.0, running=41, in_a_row=1)
    assert flight.value == 40
    fill(flight, 1000.0, AGAIN[1] - 1)
    assert flight.value == 40
    fill(flight, 1000.0, 1)
    assert flight.value == 41


def test_where_more_is_accepted_the_step_doubles() -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=40, in_a_row=1)
    seen = []
    for _ in range(AGAIN[0] + 5):
        fill(flight, 100.0, 1)
        seen.append(flight.value)
    assert seen[-6:] == [41, 43, 47, 55, 71, 103]


def test_refused_again_and_again_it_goes_below_what_runs() -> None:
    flight = Flight(500, top=40)
    flight.refused(0.0, 1.0, running=40, in_a_row=2)
    flight.refused(2.0, 1.0, running=38, in_a_row=3)
    assert flight.value == 40 * 4 // 5 * 4 // 5


@given(st.integers(1, 600), st.lists(st.tuples(st.booleans(), st.integers(0, 700), st.integers(1, 5))))
def test_flight_stays_between_its_bounds(bound: int, steps: list[tuple[bool, int, int]]) -> None:
    flight, now = Flight(bound), 0.0
    for ok, running, row in steps:
        now += 50.0
        if ok:
            flight.accepted(now, running, running)
        else:
            flight.refused(now, 1.0, running, row)
        assert 1 <= flight.value <= bound


def test_after_another_bound_more_in_flight_is_tried_as_at_the_start() -> None:
    flight = Flight(100, top=20)
    flight.refused(0.0, 0.0, running=20, in_a_row=1)
    flight.rebound(50, 20)
    flight.accepted(10.0, 19, 25)
    assert flight.value == 20, "what still runs beyond it is no new limit"
    fill(flight, 100.0, AGAIN[0] - 1)
    assert flight.value == 20
    fill(flight, 100.0, 1)
    assert flight.value == 21


def test_one_in_flight_is_a_limit_too() -> None:
    flight = Flight(100)
    flight.rebound(50, 1)
    assert flight.value == 1
    assert Flight(100, top=1).value == 1
    flight.rebound(20, 20)
    assert (flight.value, flight.top) == (20, None), "what is the bound is none"


def test_once_a_post_was_accepted_at_the_limit_what_runs_beyond_it_is_no_new_limit() -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=40, in_a_row=1)
    flight.accepted(0.5, 40, 40)
    flight.accepted(0.6, 30, 45)
    assert flight.value == 40


def test_what_was_taken_away_comes_back_by_an_eighth_as_whole_tasks() -> None:
    flight = Flight(500, top=47)
    flight.refused(0.0, 1.0, running=45, in_a_row=2)
    seen = [flight.value]
    for _ in range(3):
        fill(flight, 100.0, 1)
        seen.append(flight.value)
    assert seen == [36, 40, 45, 47]


def test_what_is_accepted_up_to_the_bound_knows_no_limit() -> None:
    flight = Flight(45, top=40)
    fill(flight, 100.0, AGAIN[0] + 3)
    assert (flight.value, flight.top) == (45, None)


def test_what_was_taken_away_of_a_few_comes_back_one_by_one() -> None:
    flight = Flight(500, top=5)
    flight.refused(0.0, 1.0, running=3, in_a_row=2)
    seen = [flight.value]
    for _ in range(3):
        fill(flight, 100.0, 1)
        seen.append(flight.value)
    assert seen == [2, 3, 4, 5]


def test_the_more_tries_have_failed_the_later_is_the_next() -> None:
    flight, now, waited = Flight(500, top=40), 0.0, []
    for _ in range(5):
        accepted = 0
        while not flight.trying:
            fill(flight, now := now + 1000.0, 1)
            accepted += 1
        waited.append(accepted)
        flight.refused(now, 1.0, running=40, in_a_row=1)
    assert waited == [AGAIN[0], AGAIN[1], *[AGAIN[2]] * 3]


@pytest.mark.parametrize("in_a_row", [1, 2])
@pytest.mark.parametrize("running", [0, 1])
def test_one_may_always_be_in_flight(running: int, in_a_row: int) -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=running, in_a_row=in_a_row)
    assert flight.value == 1
    assert flight.top == (1 if in_a_row == 1 else None)


@pytest.mark.parametrize(("running", "limit"), [(41, 40), (45, 40), (46, 46), (70, 70)])
def test_a_try_that_made_room_for_a_few_failed_and_one_that_made_more_found_the_limit(running: int, limit: int) -> None:
    """A tenth and one more than was known may be tasks that ended unseen."""
    flight = Flight(500, top=40)
    fill(flight, 100.0, AGAIN[0] + 5)
    assert (flight.trying, flight.base) == (True, 40)
    flight.refused(101.0, 1.0, running=running, in_a_row=1)
    assert (flight.value, flight.top) == (limit, limit)


@pytest.mark.parametrize(("failures", "holds"), [(0, 5), (1, 25)])
def test_freed_slots_stay_empty_for_some_holds(failures: int, holds: int) -> None:
    """The longer, the more the last try has cost."""
    flight, now = Flight(500, top=40), 1000.0
    for _ in range(failures):
        fill(flight, now - 1.0, AGAIN[0])
        assert flight.trying
        flight.refused(now - 1.0, 0.0, running=40, in_a_row=1)
    if not failures:
        flight.refused(now, 10.0, running=40, in_a_row=1)
    else:
        fill(flight, now, AGAIN[1])
        flight.refused(now, 10.0, running=40, in_a_row=1)
    fill(flight, now + holds * 10.0 - 0.5, AGAIN[2] + 1)
    assert flight.value == 40
    fill(flight, now + holds * 10.0, 1)
    assert flight.value == 41
