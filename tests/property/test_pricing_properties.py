"""Prices against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.pricing import parse_price, usd_text

dollars = st.decimals(min_value=0, max_value=1000, places=6, allow_nan=False, allow_infinity=False)


@given(dollars, st.integers(0, 10_000))
def test_seconds(usd: object, seconds: int) -> None:
    price = parse_price({"per": "second", "usd": str(usd)})
    assert price.credits({"duration": seconds}, {}) == math.ceil(Fraction(str(usd)) * seconds * 1000)


@given(dollars)
def test_flat(usd: object) -> None:
    price = parse_price({"per": "output", "usd": str(usd)})
    assert price.credits({}, {}) == math.ceil(Fraction(str(usd)) * 1000)


@given(st.integers(0, 10**9))
def test_dollars_are_exact(credits: int) -> None:  # noqa: A002
    text = usd_text(credits)
    assert Fraction(text) == Fraction(credits, 1000)
    assert len(text.partition(".")[2]) in {2, 3}
