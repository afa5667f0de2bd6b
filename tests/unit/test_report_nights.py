"""The timeline and the distribution: what is counted where."""

from __future__ import annotations

import pytest

from batchrunner.core.morning import Step
from batchrunner.report import charts
from batchrunner.report.causes import _PARTICULAR
from batchrunner.report.nights import ABSENCE, BARS, PAUSE, SLICES, nights, spread

EVENING = 1_800_000_000.0


def sent(at: float) -> Step:
    return Step(EVENING + at, "claimed", "submitting", 1, False)


def stored(at: float) -> list[Step]:
    return [
        Step(EVENING + at, "completed", "downloading", -1, False),
        Step(EVENING + at, "stored", "succeeded", 0, False),
    ]


def test_nothing_sent() -> None:
    assert nights([]) == []
    assert nights([Step(EVENING, "withdrawn", "cancelled", 0, True)]) == []


def test_one_night_is_cut_into_equal_slices() -> None:
    steps = [sent(0), sent(1), sent(2), *stored(30), sent(31), *stored(90), *stored(92)]
    steps.insert(3, Step(EVENING + 2.5, "throttled", "pending", -1, False))
    steps.insert(3, sent(2.4))
    steps.append(Step(EVENING + 95, "taskfailed", "failed", -1, False))
    (night,) = nights(steps)
    assert (night.width, len(night.slices)) == (2, 48)
    assert night.total("submitted") == 5
    assert night.total("completed") == 3
    assert night.total("failed") == night.total("throttled") == 1
    assert night.most_in_flight == 4
    assert [s.in_flight for s in night.slices[:3]] == [2, 4, 3]
    assert [s.in_flight for s in night.slices[14:17]] == [3, 3, 3]  # one came and one went in 30 to 32
    assert night.slices[-1].in_flight == 1
    assert sum(s.submitted for s in night.slices[:2]) == 4


def test_polls_answered_with_429_are_counted_where_they_were() -> None:
    throttled = [(EVENING - 5.0, 9), (EVENING + 61.0, 7), (EVENING + 90.0, 1), (EVENING + 1e6, 9)]
    (night,) = nights([sent(0), Step(EVENING + 60.5, "throttled", "pending", -1, False), *stored(90)], throttled)
    assert night.total("throttled") == 9
    assert night.total("polls_throttled") == 8
    assert [piece.throttled for piece in night.slices[60:62]] == [1, 7]
    assert charts.timeline(night).words.endswith("too many requests (429): 9, 8 of them to polls.")
    assert nights([], throttled) == []


@pytest.mark.parametrize(
    ("gap", "flying", "count"),
    [(PAUSE - 1, 0, 1), (PAUSE + 1, 0, 2), (PAUSE + 1, 1, 1), (ABSENCE + 1, 1, 2)],
)
def test_where_one_night_ends(gap: float, flying: int, count: int) -> None:
    """A long wait for what is in flight is no pause; a runner that was killed is not waited for until it is run."""
    first = [sent(0), sent(1), *stored(10), *([] if flying else stored(10))]
    found = nights([*first, sent(10 + gap), *stored(20 + gap)])
    assert len(found) == count
    if count == 2:
        assert found[1].slices[0].in_flight == 1 + flying
        assert found[1].start == EVENING + 10 + gap


def test_a_word_in_the_morning_is_no_night() -> None:
    word = Step(EVENING + 8 * 3600, "identified", "running", 1, True)
    (night,) = nights([sent(0), Step(EVENING + 1, "ambiguous", "unconfirmed", -1, False), word])
    assert night.end == EVENING + 1


def test_a_long_night_has_few_slices_and_ticks() -> None:
    for hours in (0.001, 0.1, 1, 9, 30, 200):
        steps = [sent(0), *(sent(k * 1800.0) for k in range(1, int(hours * 2))), *stored(hours * 3600)]
        for night in nights(sorted(steps)):
            assert 1 <= len(night.slices) <= SLICES
            chart = charts.timeline(night)
            assert len(chart.ticks) <= charts.MOST_TICKS + 1
            assert all(0 <= tick.at < 100 for tick in chart.ticks)
            assert all(0 <= i < chart.slices and 0 < n <= p.peak for p in chart.panels for i, n, _ in p.bars)


def test_a_distribution() -> None:
    assert spread([]) is None
    found = spread([10.0] * 50 + [20.0] * 45 + [1000.0] * 5)
    assert found is not None
    assert (found.count, found.median, found.p90, found.longest) == (100, 20.0, 20.0, 1000.0)
    assert sum(found.bars) == 100
    assert len(found.bars) <= BARS
    chart = charts.latency(found)
    assert chart.words == "100 tasks: half took at most 20 s, nine of ten at most 20 s, the longest 16 min 40 s."
    one = spread([0.04])
    assert one is not None
    assert charts.latency(one).panels[0].bars == [(0, 1, "0 s to 0.1 s: 1")]


def test_the_last_bar_holds_what_took_longer() -> None:
    found = spread([float(n) for n in range(1, 200)] + [9000.0])
    assert found is not None
    words = charts.latency(found).panels[0].bars[-1][2]
    assert words.endswith(" and more: 1")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (99, "99 s"),
        (120, "2 min"),
        (150, "2 min 30 s"),
        (3600, "60 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert charts.exact_span(seconds) == text


def test_messages_of_one_cause_differ_in_ids_only() -> None:
    one, other = (_PARTICULAR.sub("", f"task task_{n}abcdefgh failed after {n} s (7f{n}3e9a01b)") for n in (12, 4711))
    assert one == other
    assert _PARTICULAR.sub("", "no such model") == "no such model"
