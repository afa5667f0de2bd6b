"""Credits, in exact decimals. Prices are dated data (the model's schema, or the manifest), never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

CREDITS_PER_USD = Decimal(1000)
"""1 credit = $0.001 (REAPI.md, GET /balance)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One line of a price list: `usd` applies when every field of `when` has that value (defaults filled in)."""

    usd: Decimal
    when: tuple[tuple[str, Any], ...] = ()

    def applies(self, request: Mapping[str, Any]) -> bool:
        return all(_same(request.get(name), value) for name, value in self.when)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


@dataclass(frozen=True, slots=True)
class Price:
    """How a model is charged.

    Attributes:
        per: `second` (times the `duration` field) or `output` (a flat price).
        rates: the first that applies wins.
        as_of: date of the price list, ISO 8601.
        source: where it was read.
    """

    per: str
    rates: tuple[Rate, ...]
    as_of: str = ""
    source: str = ""

    def credits(self, request: Mapping[str, Any], defaults: Mapping[str, Any]) -> int | None:
        """Whole credits for one request, `ceil(usd * units * 1000)`; None where no rate applies.

        Args:
            request: the request fields that were given.
            defaults: the model's defaults for those that were not.
        """
        full = {**defaults, **request}
        rate = next((r for r in self.rates if r.applies(full)), None)
        if rate is None:
            return None
        units = Decimal(1)
        if self.per == "second":
            seconds = full.get("duration")
            if isinstance(seconds, bool) or not isinstance(seconds, int):
                return None
            units = Decimal(seconds)
        return int((rate.usd * units * CREDITS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def parse_price(data: Mapping[str, Any]) -> Price:
    """A `Price` from its JSON or YAML form, as in a model's schema (`x-batchrunner.price`) or a manifest's `prices`.

    Shape: `{"per": "second"|"output", "usd": X}` or `{"per": ..., "rates": [{"when": {field: value}, "usd": X}]}`,
    with optional `as_of` and `source`. X is a number or a decimal string.
    """
    lines = data.get("rates") or [{"usd": data["usd"]}]
    rates = tuple(Rate(Decimal(str(line["usd"])), tuple(sorted(line.get("when", {}).items()))) for line in lines)
    return Price(str(data["per"]), rates, str(data.get("as_of", "")), str(data.get("source", "")))


def usd_text(amount_credits: int) -> str:
    """Dollars for a number of credits, exact, with at least two decimals: 630 -> '0.63', 788 -> '0.788'."""
    amount = Decimal(amount_credits) / CREDITS_PER_USD
    text = f"{amount:.3f}"
    return text.removesuffix("0")
