"""Which of its limits a service speaks of when it answers 429, by what was said and borne before."""

from __future__ import annotations

import pytest

from batchrunner.core.adaptive import RECENT, Learned, Pace, Ticket
from batchrunner.core.measured import AGAIN
from tests.pace import pace_of, submit

# --- Which of the two, in a row --------------------------------------------------------------------------


def refused_in_a_row(pace: Pace, now: float, runnings: list[int]) -> float:
    for running in runnings:
        pace.refused(Ticket(now, running + 1, used=False), now + 0.1, running, 1.0)
        now += 1.2
    return now


def test_the_second_refusal_in_a_row_is_for_what_is_in_flight_though_tasks_have_ended() -> None:
    pace = pace_of()
    now, _ = submit(pace, 0.0, 30, 0, 0.1)
    refused_in_a_row(pace, now, [30, 20])
    assert pace.learned.in_flight == 20


def test_the_third_in_a_row_takes_it_below_what_runs() -> None:
    pace = pace_of()
    now, _ = submit(pace, 0.0, 30, 0, 0.1)
    now = refused_in_a_row(pace, now, [30, 30])
    assert pace.flight.value == 30
    now = refused_in_a_row(pace, now, [30])
    assert pace.flight.value == 24
    refused_in_a_row(pace, now, [24])
    assert pace.flight.value == 24 * 4 // 5


def test_after_many_accepted_posts_a_new_row_begins_anew() -> None:
    pace = pace_of()
    now, _ = submit(pace, 0.0, 30, 0, 0.1)
    now = refused_in_a_row(pace, now, [30, 30])
    for _ in range(25):
        now += 0.5
        pace.accepted(Ticket(now - 0.1, 20, used=False), now, 20)
    refused_in_a_row(pace, now, [20, 20])
    assert pace.flight.value == 20


def test_where_the_rate_is_to_blame_it_stays_at_what_was_accepted_of_late() -> None:
    """The rate is not taken below what the service has just borne."""
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.05, running, 0.1)
    allowed = pace.posts.value
    for _ in range(3):
        now += 0.1
        pace.accepted(Ticket(now, 10, used=False), now, 10)
    pace.refused(Ticket(now, 11, used=False), now + 0.1, 10, 0.1)
    first_of_late = 1.4  # the 20 last of 33, 0.1 s apart
    assert pace.learned.in_flight is None
    assert pace.learned.submits == pytest.approx(20 / (now + 0.1 - first_of_late))
    assert 0.7 * allowed < 20 / (now + 0.1 - first_of_late) < allowed


def test_where_nothing_was_accepted_nothing_was_borne() -> None:
    pace = pace_of(submits=50.0)
    pace.refused(Ticket(1.0, 1, used=False), 1.1, 0, 1.0)
    assert pace.learned.submits == 2.5
    slow = pace_of(submits=1.0)
    slow.refused(Ticket(1.0, 1, used=False), 1.1, 0, 1.0)
    assert slow.learned.submits == 0.5


def test_what_was_accepted_in_a_moment_was_accepted_in_a_second() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 5, 0, 0.04)
    pace.refused(Ticket(now, 6, used=True), now + 0.05, running, 1.0)
    assert pace.learned.submits == pytest.approx(5.0)


# --- Which of the two, by what was borne before ----------------------------------------------------------


def stay(pace: Pace, now: float, count: int, running: int, step: float) -> float:
    """Accept POSTs that found their place free, with as many in flight after each."""
    for _ in range(count):
        now += step
        pace.accepted(Ticket(now - 0.1, running, used=False), now, running)
    return now


def test_slow_posts_near_the_known_limit_are_refused_for_what_is_in_flight() -> None:
    pace = pace_of(known=Learned(in_flight=40))
    now = stay(pace, 10.0, 30, 20, 0.1)
    now = stay(pace, now, 20, 38, 1.0)
    before = pace.learned.submits
    pace.refused(Ticket(now, 38, used=False), now + 0.1, 37, 1.0)
    assert (pace.learned.in_flight, pace.learned.submits) == (37, before)


def test_slow_posts_far_below_the_known_limit_are_refused_for_the_rate() -> None:
    pace = pace_of(known=Learned(in_flight=40))
    now = stay(pace, 10.0, 30, 20, 0.1)
    now = stay(pace, now, 20, 37, 1.0)
    pace.refused(Ticket(now, 37, used=False), now + 0.1, 37, 1.0)
    assert pace.learned.in_flight == 40
    assert pace.learned.submits is not None


def test_slow_posts_with_as_many_in_flight_as_when_refusals_began_are_refused_for_that() -> None:
    pace = pace_of(known=Learned(submits=7.0))
    now = stay(pace, 10.0, 40, 30, 1 / 7)
    pace.refused(Ticket(now, 31, used=False), now + 0.1, 30, 1.0)
    assert pace.learned.in_flight is None
    before = pace.learned.submits
    now = stay(pace, now + 1.0, 20, 30, 1.0)
    pace.refused(Ticket(now, 31, used=False), now + 0.1, 30, 1.0)
    assert pace.learned == Learned(before, 30)


@pytest.mark.parametrize(("running", "blamed"), [(25, True), (27, True), (23, True), (28, False), (22, False)])
def test_as_many_is_within_a_twelfth(running: int, blamed: bool) -> None:
    pace = pace_of(known=Learned(submits=7.0))
    now = stay(pace, 10.0, 40, 25, 1 / 7)
    pace.refused(Ticket(now, 26, used=False), now + 0.1, 25, 1.0)
    now = stay(pace, now + 1.0, 20, running, 1.0)
    pace.refused(Ticket(now, running, used=False), now + 0.1, running, 1.0)
    assert (pace.learned.in_flight == running) is blamed


def test_refused_at_half_the_rate_with_as_many_in_flight_it_was_for_them() -> None:
    """The rate was blamed, and gave way, and nothing has come of it."""
    pace = pace_of()
    now = stay(pace, 0.0, 2, 20, 0.5)
    pace.refused(Ticket(now, 21, used=True), now + 0.1, 20, 1.0)
    assert pace.learned.in_flight is None
    now = stay(pace, now + 1.2, 3, 20, 0.1)
    pace.refused(Ticket(now, 21, used=True), now + 0.1, 20, 1.0)
    assert pace.learned.in_flight == 20


def test_a_few_posts_are_no_rate_that_was_borne() -> None:
    pace = pace_of(known=Learned(in_flight=40))
    now = stay(pace, 10.0, RECENT - 1, 38, 1.0)
    pace.refused(Ticket(now, 38, used=False), now + 0.1, 37, 1.0)
    assert pace.learned.in_flight == 40


@pytest.mark.parametrize(
    ("step", "rate"), [(0.1, 10.0), (0.01, 100.0), (0.0, (RECENT - 1) / 1e-3)], ids=["slow", "fast", "at once"]
)
def test_the_rate_that_was_borne_is_that_of_posts_in_a_row(step: float, rate: float) -> None:
    pace = pace_of()
    now = stay(pace, 10.0, RECENT, 20, step)
    assert pace._good == pytest.approx(rate)
    pace.refused(Ticket(now, 21, used=False), now, 20, 1.0)
    assert pace._good == pytest.approx(min(rate, 1.5 * pace.posts.value)), "it was no more than that"
    before = pace._good
    stay(pace, now, RECENT - 1, 20, 1e-4)
    assert pace._good == before, "all of them after the last refusal"
    stay(pace, now + 1.0, 1, 20, 1e-4)
    assert pace._good > before


@pytest.mark.parametrize("after", [10, RECENT - 1])
def test_the_time_of_a_hold_makes_posts_no_slower(after: int) -> None:
    pace = pace_of(known=Learned(submits=7.0))
    now = stay(pace, 10.0, 40, 30, 1 / 7)
    pace.refused(Ticket(now, 31, used=False), now + 0.1, 30, 30.0)
    now = stay(pace, now + 30.0, after, 30, 1 / 7)
    pace.refused(Ticket(now, 31, used=False), now + 0.1, 30, 1.0)
    assert pace.learned.in_flight is None


def test_what_is_in_flight_is_blamed_twice_and_then_the_rate() -> None:
    pace = pace_of()
    now, _ = submit(pace, 0.0, 30, 0, 0.1)
    now = stay(pace, refused_in_a_row(pace, now, [30, 30]), 3, 29, 10.0)
    pace.refused(Ticket(now, 30, used=False), now + 0.1, 28, 1.0)
    assert pace.flight.value == 28, "once more, to what runs: a POST was accepted meanwhile"
    now = stay(pace, now + 1.2, 3, 27, 10.0)
    rate = pace.posts.value
    pace.refused(Ticket(now, 28, used=False), now + 0.1, 27, 1.0)
    assert pace.flight.value == 28, "it was said twice, and did not help"
    assert pace.posts.value < rate


def blamed_twice() -> tuple[Pace, float]:
    """A pace whose limit in flight was blamed twice, of late for 28 that run; and when."""
    pace = pace_of()
    now, _ = submit(pace, 0.0, 30, 0, 0.1)
    now = stay(pace, refused_in_a_row(pace, now, [30, 30]), 3, 29, 10.0)
    pace.refused(Ticket(now, 30, used=False), now + 0.1, 28, 1.0)
    return pace, now + 1.2


@pytest.mark.parametrize(("accepted", "flight_is_blamed"), [(RECENT - 1, False), (RECENT, True), (RECENT + 1, True)])
def test_after_many_accepted_posts_it_may_be_blamed_again(accepted: int, flight_is_blamed: bool) -> None:
    pace, now = blamed_twice()
    now = stay(pace, now, accepted, 27, 10.0)
    pace.refused(Ticket(now, 28, used=False), now + 0.1, 27, 1.0)
    assert pace.flight.value == (27 if flight_is_blamed else 28)
    if flight_is_blamed:
        now = stay(pace, now + 1.2, 3, 26, 10.0)
        pace.refused(Ticket(now, 27, used=False), now + 0.1, 26, 1.0)
        assert pace.flight.value == 26, "for the second time of a new row"


def test_blamed_a_third_time_right_after_a_hold_it_goes_below_what_runs() -> None:
    pace, now = blamed_twice()
    pace.refused(Ticket(now, 28, used=False), now + 0.1, 28, 1.0)
    assert pace.flight.value == 28 * 4 // 5


def test_the_first_post_of_a_night_says_nothing_of_the_calls() -> None:
    pace = pace_of(known=Learned(calls=20.0))
    pace.refused(Ticket(1.0, 1, used=False), 1.1, 0, 1.0)
    assert pace.learned.calls == 20.0
    assert pace.learned.submits is not None


def test_while_one_more_is_tried_one_that_is_none_more_was_refused_for_the_rate() -> None:
    pace = pace_of(known=Learned(submits=7.0, in_flight=40))
    now = stay(pace, 100.0, AGAIN[0], 40, 1.5)
    assert pace.flight.trying
    pace.refused(Ticket(now + 1.0, 40, used=False), now + 1.2, 39, 1.0)
    assert pace.flight.value == 41
    assert pace.posts.value < 6.9
