"""Which of its limits a service speaks of when it answers 429."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.adaptive import HEADROOM, Learned, Pace, Ticket
from batchrunner.core.measured import AGAIN
from tests.pace import pace_of, submit

# --- Which of the two ------------------------------------------------------------------------------------


def test_the_first_refusal_is_put_down_to_the_rate() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.1, running, 1.0)
    assert pace.flight.top is None
    assert pace.posts.top is not None
    assert pace.wire == 1


def test_refused_again_right_after_the_hold_it_was_for_what_is_in_flight() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.1, running, 1.0)
    pace.refused(Ticket(now + 1.2, running + 1, used=False), now + 1.4, running, 2.0)
    assert pace.flight.value == running


def test_refusals_of_what_was_on_the_wire_count_once() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    tickets = [Ticket(now + n / 100, running + n, used=True) for n in range(1, 5)]
    for n, ticket in enumerate(tickets):
        pace.refused(ticket, now + 0.2 + n / 100, running, 1.0)
    pace.refused(Ticket(now + 0.2, running, used=True), now + 0.3, running, 1.0)
    assert pace.refusals == 5
    assert pace.flight.top is None


def test_more_in_flight_at_a_rate_that_is_borne_was_refused_for_what_is_in_flight() -> None:
    """A slow stream of POSTs that keeps 40 in flight is refused when 41 are tried."""
    pace = pace_of(known=Learned(submits=7.0, in_flight=40))
    now = 100.0
    for _ in range(AGAIN[0]):
        now += 1.5
        pace.accepted(Ticket(now - 0.1, 40, used=False), now, 40)
    assert pace.flight.value == 41
    before = pace.posts.value
    pace.refused(Ticket(now + 1.0, 41, used=False), now + 1.2, 40, 1.0)
    assert pace.flight.value == 40
    assert pace.posts.value == before


def test_a_refused_poll_makes_polls_and_posts_share() -> None:
    pace = pace_of(submits=50.0)
    assert pace.polls(1000.0, 0.0) == 1000.0
    for n in range(100):
        pace.polled(n / 20.0, used=True)
    pace.poll_refused(4.9, 5.0, 1.0)
    assert pace.calls is not None
    allowed = pace.polls(1000.0, 5.0)
    assert allowed <= HEADROOM * 20.0
    assert pace.submits <= pace.calls.value / 2.0
    assert pace.polls(3.0, 5.0) == 3.0


def test_what_is_learned_is_the_next_nights_start() -> None:
    pace = pace_of(known=Learned(7.0, 40, 20.0))
    assert pace.flight.value == 40
    assert 6.5 <= pace.posts.value <= 7.0
    assert pace.learned == Learned(7.0, 40, 20.0)


def test_bounds_win_over_what_was_learned() -> None:
    pace = pace_of(submits=2.0, in_flight=10, known=Learned(7.0, 40, None))
    assert pace.flight.value == 10
    assert pace.posts.value == 2.0
    assert pace.learned == Learned()
    same = pace_of(submits=7.0, in_flight=40, known=Learned(7.0, 40))
    assert same.learned == Learned(), "what is the bound is no limit"


def test_without_any_limit_everything_stays_at_its_bounds() -> None:
    pace = pace_of(submits=5.0, in_flight=50)
    submit(pace, 0.0, 100, 0, 0.2)
    assert (pace.submits, pace.flight.value, pace.crowd) == (5.0, 50, 32)
    assert pace.polls(math.inf, 0.0) == math.inf


@given(st.lists(st.tuples(st.floats(0.01, 500.0), st.integers(1, 500), st.booleans()), max_size=12))
def test_no_bound_is_ever_exceeded_whatever_is_said(words: list[tuple[float, int, bool]]) -> None:
    pace, now = Pace.of(10.0, 50, 8, Learned()), 0.0
    for submits, flight, refused in words:
        pace.rebound(submits, flight, pace.learned)
        for _ in range(20):
            now += 1.0 / pace.submits
            ticket = Ticket(now, pace.flight.value, used=True)
            pace.accepted(ticket, now, pace.flight.value)
            assert 0.0 < pace.submits <= submits
            assert 1 <= pace.flight.value <= flight
        if refused:
            pace.refused(Ticket(now, pace.flight.value, used=True), now + 1.0, pace.flight.value, 1.0)
            assert 0.0 < pace.submits <= submits
            assert 1 <= pace.flight.value <= flight


def test_other_bounds_keep_what_was_learned() -> None:
    pace, learned = pace_of(known=Learned(7.0, 40)), Learned(7.0, 40)
    pace.rebound(2.0, 10, learned)
    assert pace.learned == Learned()
    pace.rebound(60.0, 600, learned)
    assert pace.learned == learned


# --- What an answer moves --------------------------------------------------------------------------------


def test_the_rate_rises_with_posts_that_waited_for_their_place() -> None:
    pace = pace_of(submits=50.0)
    submit(pace, 0.0, 8, 0, 0.1)
    assert pace.posts.value == pytest.approx(10.0)
    for n in range(8):
        pace.accepted(Ticket(1.0 + n / 10, 9, used=False), 1.0 + n / 10, 9)
    assert pace.posts.value == pytest.approx(10.0)


def test_after_a_refusal_posts_go_one_at_a_time_and_soon_together_again() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 5, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.1, running, 1.0)
    wires = [pace.wire]
    for n in range(6):
        pace.accepted(Ticket(now + 2 + n, running, used=False), now + 2 + n, running)
        wires.append(pace.wire)
    assert wires == [1, 2, 4, 8, 16, 32, 32]


def test_what_was_on_the_wire_when_another_was_refused_raises_the_limit_again() -> None:
    pace = pace_of(known=Learned(None, 40))
    pace.flight.refused(1.0, 1.0, running=40, in_a_row=1)
    pace.accepted(Ticket(0.9, 41, used=False), 1.1, 41)
    assert pace.flight.value == 41


def test_polls_have_what_the_posts_leave_and_a_quarter_at_least() -> None:
    pace = pace_of(known=Learned(calls=20.0))
    bucket = 0.99 * 20.0
    assert pace.polls(1000.0, 100.0) == pytest.approx(HEADROOM * bucket)
    submit(pace, 99.0, 10, 0, 0.1)
    assert pace.polls(1000.0, 101.0) == pytest.approx(HEADROOM * bucket - 10 / 10.0)
    assert pace.polls(1000.0, 110.5) == pytest.approx(HEADROOM * bucket), "10 s ago is long ago"
    one = pace_of(known=Learned(calls=20.0))
    one.accepted(Ticket(89.0, 1, used=False), 90.0, 1)
    assert one.polls(1000.0, 100.0) == pytest.approx(HEADROOM * bucket)
    slow = pace_of(known=Learned(calls=2.0))
    submit(slow, 99.0, 20, 0, 0.05)
    assert slow.polls(1000.0, 100.0) == pytest.approx(0.99 * 2.0 / 4.0)


def test_polls_and_posts_that_waited_raise_the_common_limit() -> None:
    for call in ("poll", "post", "poll that found its place free"):
        pace = pace_of(known=Learned(calls=20.0))
        for n in range(500):
            if call == "post":
                pace.accepted(Ticket(n / 20.0, 1, used=True), n / 20.0, 1)
            else:
                pace.polled(n / 20.0, used=call == "poll")
        assert pace.calls is not None
        assert (pace.calls.value > 20.0) == (call != "poll that found its place free"), call


def poll(pace: Pace, first: float, step: float, count: int) -> float:
    for n in range(count):
        pace.polled(first + n * step, used=False)
    return first + (count - 1) * step


def test_a_first_refused_poll_makes_a_limit_of_the_calls_of_late() -> None:
    pace = pace_of()
    now = poll(pace, 10.0, 0.05, 101)
    pace.poll_refused(now - 0.1, now, 1.0)
    assert pace.refusals == 1
    assert pace.learned.calls == pytest.approx(0.8 * 101 / 5.0)
    pace.poll_refused(now - 0.05, now + 0.01, 1.0)
    pace.poll_refused(now - 0.05, now + 0.02, 1.0)
    assert pace.refusals == 3
    assert pace.learned.calls == pytest.approx(0.8 * 101 / 5.0), "it was on the wire with the first"


def test_posts_are_calls_too() -> None:
    pace = pace_of()
    submit(pace, 9.95, 101, 0, 0.05)
    pace.poll_refused(14.9, 15.0, 1.0)
    assert pace.learned.calls == pytest.approx(0.8 * 101 / 5.0)


def test_the_common_limit_is_kept_to_until_the_hold_is_paid_for() -> None:
    pace = pace_of(known=Learned(calls=20.0))
    now = poll(pace, 10.0, 0.1, 100)
    pace.poll_refused(now - 0.05, now, 1.0)
    assert pace.calls is not None
    waited = 0.0
    while not pace.calls.trying:
        waited += 1.0 / pace.calls.value
        pace.polled(now + 1.0 + waited, used=True)
    assert waited == pytest.approx(30.0, abs=0.3)


def test_calls_of_a_moment_are_those_of_a_second() -> None:
    pace = pace_of()
    now = poll(pace, 10.0, 0.02, 26)
    pace.poll_refused(now - 0.01, now, 1.0)
    assert pace.learned.calls == pytest.approx(0.8 * 26)
    pace = pace_of(known=Learned(calls=20.0))
    now = poll(pace, 10.0, 0.02, 20)
    pace.refused(Ticket(now, 5, used=True), now + 0.1, 5, 1.0)
    assert pace.learned.submits is None, "20 a second are what polls were refused at"
    pace = pace_of(known=Learned(calls=2.0))
    now = poll(pace, 10.0, 10.0, 2)
    pace.refused(Ticket(now, 5, used=True), now + 0.1, 5, 1.0)
    assert pace.learned.submits is not None, "2 in 10 seconds are not"


def test_a_refused_poll_among_hardly_any_calls_is_no_reason_to_stop() -> None:
    pace = pace_of()
    pace.poll_refused(0.9, 1.0, 1.0)
    assert pace.learned.calls == 2.5


def test_a_post_refused_among_as_many_calls_as_polls_were_is_put_down_to_all_of_them() -> None:
    pace = pace_of()
    now = poll(pace, 10.0, 0.05, 101)
    pace.poll_refused(now - 0.1, now, 1.0)
    before = pace.learned
    assert before.calls is not None
    now = poll(pace, now + 1.0, 0.05, 300)
    pace.refused(Ticket(now, 5, used=True), now + 0.1, 5, 1.0)
    assert pace.learned.submits is None
    assert pace.calls is not None
    assert pace.learned.calls != before.calls
    assert pace.learned.calls == pytest.approx(pace.calls.value / 0.99)


def test_refused_again_after_all_calls_were_blamed_it_was_for_what_is_in_flight() -> None:
    pace = pace_of(known=Learned(calls=20.0))
    now = poll(pace, 10.0, 0.05, 100)
    pace.refused(Ticket(now, 31, used=True), now + 0.1, 30, 1.0)
    assert pace.learned.submits is None
    pace.refused(Ticket(now + 1.2, 31, used=False), now + 1.3, 30, 1.0)
    assert pace.flight.value == 30, "and to what runs: it is the first time"


def test_a_post_refused_among_few_calls_is_put_down_to_the_posts() -> None:
    pace = pace_of()
    now = poll(pace, 10.0, 0.05, 101)
    pace.poll_refused(now - 0.1, now, 1.0)
    before = pace.learned.calls
    now = poll(pace, now + 60.0, 1.0, 256)
    pace.refused(Ticket(now, 5, used=True), now + 0.1, 5, 1.0)
    assert pace.learned.calls == before
    assert pace.learned.submits is not None
