"""Upper bounds beside those of the rate and of what is in flight: for one provider, for one model, for polls
(`limits:` in the manifest)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Submissions a minute, and tasks in flight; None for no bound."""

    submits_per_minute: float | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds by the name of a provider, and by that of a model; polls a minute of all together, None where the manifest
    leaves them to the engine (`engine.ports.poll_budget`)."""

    providers: Mapping[str, Bounds] = field(default_factory=dict)
    models: Mapping[str, Bounds] = field(default_factory=dict)
    polls_per_minute: float | None = None

    def packed(self) -> str:
        """As the ledger keeps them."""
        polls = {} if self.polls_per_minute is None else {"polls_per_minute": self.polls_per_minute}
        return json.dumps({"providers": _plain(self.providers), "models": _plain(self.models), **polls})


def parse_limits(data: Mapping[str, Any]) -> Limits:
    """From the manifest's section, or what `packed` gave. Shape: `{"providers"?: {name: BOUNDS}, "models"?: {name:
    BOUNDS}, "polls_per_minute"?: N}`, BOUNDS `{"submits_per_minute"?: N, "in_flight"?: N}`; anything else in it is not
    looked at."""
    polls = data.get("polls_per_minute")
    return Limits(
        _bounds(data.get("providers", {})), _bounds(data.get("models", {})), None if polls is None else float(polls)
    )


def unpacked(text: str) -> Limits:
    """What `packed` gave."""
    return parse_limits(json.loads(text))


def tightest(every: Iterable[Limits]) -> Limits:
    """What holds where all of them hold."""
    providers: dict[str, Bounds] = {}
    models: dict[str, Bounds] = {}
    polls: float | None = None
    for each in every:
        polls = _least(polls, each.polls_per_minute)
        for found, more in ((providers, each.providers), (models, each.models)):
            for name, bounds in more.items():
                found[name] = _both(found.get(name, Bounds()), bounds)
    return Limits(providers, models, polls)


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
    return Bounds(_least(one.submits_per_minute, two.submits_per_minute), _least(one.in_flight, two.in_flight))


def _least(*bounds: N | None) -> N | None:
    return min((b for b in bounds if b is not None), default=None)
