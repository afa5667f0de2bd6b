"""Credits, against the figures that reAPI's price page documents."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from batchrunner.catalogue import models
from batchrunner.core.pricing import Price, Rate, parse_price, usd_text

KLING = models()["kling-3-0-turbo"]


def _kling(**request: Any) -> int | None:
    assert KLING.price is not None
    return KLING.price.credits(request, KLING.defaults)


@pytest.mark.parametrize(
    ("duration", "resolution", "credits"),
    [(5, "720p", 630), (5, "1080p", 788), (15, "720p", 1888), (15, "1080p", 2363), (3, "720p", 378), (3, "1080p", 473)],
)
def test_documented_figures(duration: int, resolution: str, credits: int) -> None:  # noqa: A002
    assert _kling(duration=duration, resolution=resolution) == credits


def test_defaults_fill_in_what_was_not_said() -> None:
    assert _kling() == 630
    assert _kling(resolution="1080p") == 788
    assert _kling(duration=15) == 1888


def test_no_rate_no_price() -> None:
    assert _kling(resolution="4k") is None


@pytest.mark.parametrize("duration", ["5", 5.0, True, None, [5]])
def test_a_length_that_is_no_integer_has_no_price(duration: object) -> None:
    assert _kling(duration=duration) is None


def test_a_model_without_a_duration_has_no_price_a_second() -> None:
    assert Price("second", (Rate(Decimal(1)),)).credits({}, {}) is None


def test_a_flat_price_is_rounded_up_once() -> None:
    flat = parse_price({"per": "output", "usd": "0.0101"})
    assert flat.credits({"duration": 9}, {}) == 11
    assert parse_price({"per": "output", "usd": 0.1}).credits({}, {}) == 100


def test_a_price_without_a_date_or_a_source_has_none() -> None:
    price = parse_price({"per": "output", "usd": 1})
    assert price == Price("output", (Rate(Decimal(1)),), "", "")


def test_the_first_rate_that_applies_wins_and_types_matter() -> None:
    price = parse_price(
        {
            "per": "output",
            "as_of": "2026-01-01",
            "source": "here",
            "rates": [
                {"when": {"hd": True}, "usd": "3"},
                {"when": {"hd": 1}, "usd": "2"},
                {"when": {"a": "x", "b": "y"}, "usd": "5"},
                {"usd": "1"},
            ],
        }
    )
    assert (price.as_of, price.source) == ("2026-01-01", "here")
    assert price.credits({"hd": True}, {}) == 3000
    assert price.credits({"hd": 1}, {}) == 2000
    assert price.credits({"hd": 1.0}, {}) == 1000
    assert price.credits({"a": "x"}, {}) == 1000
    assert price.credits({"a": "x"}, {"b": "y"}) == 5000


def test_conditions_on_what_is_given() -> None:
    price = parse_price(
        {
            "per": "second",
            "rates": [
                {"when": {"hd": [True, "yes"]}, "given": ["image", "clips"], "usd": "0.002"},
                {"without": ["clips"], "usd": "0.001"},
            ],
        },
        seconds="length",
    )
    assert price.fields == ("hd", "image", "clips", "length")
    assert price.credits({"hd": True, "image": "x", "length": 2}, {}) == 4
    assert price.credits({"hd": "yes", "clips": ["x"], "length": 2}, {}) == 4
    assert price.credits({"hd": 1, "image": "x", "length": 2}, {}) == 2
    assert price.credits({"hd": True, "image": "", "clips": [], "length": 2}, {}) == 2
    assert price.credits({"clips": ["x"], "length": 2}, {}) is None
    assert price.credits({"image": "x", "duration": 2}, {}) is None


@pytest.mark.parametrize(
    ("credits", "text"),
    [(0, "0.00"), (1, "0.001"), (10, "0.01"), (630, "0.63"), (788, "0.788"), (1000, "1.00"), (1234567, "1234.567")],
)
def test_usd_text(credits: int, text: str) -> None:  # noqa: A002
    assert usd_text(credits) == text
