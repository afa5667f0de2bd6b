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
    """One line of a price list.

    Attributes:
        usd: dollars for one unit.
        when: field to value; every field must have that value, or one of the values of a tuple (defaults filled in).
        given: at least one of these fields is given, and is not empty; nothing is asked where there are none.
        without: none of these fields is given.
    """

    usd: Decimal
    when: tuple[tuple[str, Any], ...] = ()
    given: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def applies(self, request: Mapping[str, Any]) -> bool:
        """Whether a request, with the defaults filled in, is charged so."""
        return (
            all(_among(request.get(name), value) for name, value in self.when)
            and (not self.given or any(_given(request, name) for name in self.given))
            and not any(_given(request, name) for name in self.without)
        )


def _among(value: Any, wanted: Any) -> bool:
    return any(_same(value, w) for w in wanted) if isinstance(wanted, tuple) else _same(value, wanted)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _given(request: Mapping[str, Any], name: str) -> bool:
    return request.get(name) not in (None, "", [])


@dataclass(frozen=True, slots=True)
class Price:
    """How a model is charged.

    Attributes:
        per: `second` (times the field that holds the clip's length) or `output` (a flat price).
        rates: the first that applies wins.
        as_of: date of the price list, ISO 8601.
        source: where it was read.
        seconds: the field that holds the clip's length in whole seconds.
    """

    per: str
    rates: tuple[Rate, ...]
    as_of: str = ""
    source: str = ""
    seconds: str = "duration"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields whose values decide the price."""
        named = [n for r in self.rates for n in (*(name for name, _ in r.when), *r.given, *r.without)]
        return tuple(dict.fromkeys([*named, self.seconds] if self.per == "second" else named))

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
            seconds = full.get(self.seconds)
            if isinstance(seconds, bool) or not isinstance(seconds, int):
                return None
            units = Decimal(seconds)
        return int((rate.usd * units * CREDITS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def parse_price(data: Mapping[str, Any], seconds: str = "duration") -> Price:
    """A `Price` from its JSON or YAML form, as in a model's schema (`x-batchrunner.price`) or a manifest's `prices`.

    Shape: `{"per": "second"|"output", "usd": X}` or `{"per": ..., "rates": [RATE, ...]}`, with optional `as_of` and
    `source`. RATE is `{"when": {field: value or [value, ...]}, "given": [field, ...], "without": [field, ...],
    "usd": X}`, all but `usd` optional. X is a number or a decimal string.

    Args:
        data: valid by the manifest's schema.
        seconds: the model's field that holds the clip's length.
    """
    lines = data.get("rates") or [{"usd": data["usd"]}]
    rates = tuple(map(_rate, lines))
    return Price(str(data["per"]), rates, str(data.get("as_of", "")), str(data.get("source", "")), seconds)


def _rate(line: Mapping[str, Any]) -> Rate:
    when = ((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(line.get("when", {}).items()))
    return Rate(Decimal(str(line["usd"])), tuple(when), tuple(line.get("given", ())), tuple(line.get("without", ())))


def usd_text(amount_credits: int) -> str:
    """Dollars for a number of credits, exact, with at least two decimals: 630 -> '0.63', 788 -> '0.788'."""
    amount = Decimal(amount_credits) / CREDITS_PER_USD
    text = f"{amount:.3f}"
    return text.removesuffix("0")
