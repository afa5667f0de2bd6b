"""A job's money, from its attempts."""

from __future__ import annotations

import pytest

from batchrunner.core.morning import Attempt, Entry


def attempt(number: int, credits: int, money: str, *, seen: tuple[float | None, float | None]) -> Attempt:  # noqa: A002
    return Attempt(number, 10.0, 11.0, *seen, None, credits, money, None, None, None)


@pytest.mark.parametrize(("seen", "took"), [((12.0, 72.5), 60.5), ((None, 72.5), None), ((12.0, None), None)])
def test_how_long_it_took(seen: tuple[float | None, float | None], took: float | None) -> None:
    assert attempt(1, 630, "spent", seen=seen).took == took


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    assert attempt(1, 630, "spent", seen=(12.0, 5.0)).took == 0.0


def test_each_attempt_counts_where_its_money_is() -> None:
    attempts = tuple(
        attempt(n, paid, money, seen=(None, None))
        for n, (paid, money) in enumerate([(630, "none"), (630, "spent"), (700, "at_risk"), (70, "spent")], 1)
    )
    entry = Entry({}, "a-1", False, 630, attempts)
    assert [entry.credits(money) for money in ("spent", "at_risk", "reserved")] == [700, 700, 0]
