"""Upper bounds for one provider or one model, below those of the whole run (`limits:` in the manifest)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """Submissions a minute, and tasks in flight; None for no bound."""

    submits_per_minute: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds by the name of a provider, and by that of a model."""

    providers: Mapping[str, Bounds] = field(default_factory=dict)
    models: Mapping[str, Bounds] = field(default_factory=dict)

    def packed(self) -> str:
        """As the ledger keeps them."""
        return json.dumps({"providers": _plain(self.providers), "models": _plain(self.models)})


def parse_limits(data: Mapping[str, Any]) -> Limits:
    """From the manifest's section, or what `packed` gave. Shape: `{"providers"?: {name: BOUNDS}, "models"?: {name:
    BOUNDS}}`, BOUNDS `{"submits_per_minute"?: N, "in_flight"?: N}`; anything else in it is not looked at."""
    return Limits(_bounds(data.get("providers", {})), _bounds(data.get("models", {})))


def unpacked(text: str) -> Limits:
    """What `packed` gave."""
    return parse_limits(json.loads(text))


def tightest(every: Iterable[Limits]) -> Limits:
    """What holds where all of them hold."""
    providers: dict[str, Bounds] = {}
    models: dict[str, Bounds] = {}
    for each in every:
        for found, more in ((providers, each.providers), (models, each.models)):
            for name, bounds in more.items():
                found[name] = _both(found.get(name, Bounds()), bounds)
    return Limits(providers, models)


def _bounds(data: Mapping[str, Any]) -> dict[str, Bounds]:
    return {
        name: Bounds(
            None if given.get("submits_per_minute") is None else float(given["submits_per_minute"]),
            None if given.get("in_flight") is None else int(given["in_flight"]),
        )
        for name, given in data.items()
    }


def _plain(bounds: Mapping[str, Bounds]) -> dict[str, Any]:
    return {n: {"submits_per_minute": b.submits_per_minute, "in_flight": b.in_flight} for n, b in bounds.items()}


def _both(one: Bounds, two: Bounds) -> Bounds:
    rates = [r for r in (one.submits_per_minute, two.submits_per_minute) if r is not None]
    flights = [n for n in (one.in_flight, two.in_flight) if n is not None]
    return Bounds(min(rates, default=None), min(flights, default=None))
