"""How the simulator behaves: one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..catalogue import Model
from .faults import Fault

CLIPS = ("rendered", "tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Settings of a simulator. The service's own limits are unknown (REAPI.md), so all of them are off by default.

    Attributes:
        median_seconds: median of the generation time, seconds. The time is lognormal:
            `median_seconds * exp(sigma * z)`, z standard normal.
        sigma: spread of the generation time; 0 makes every task take exactly the median.
        seed: with the task's number (1, 2, ...) decides generation time and faults, so that runs can be repeated.
        balance: credits that an account starts with (1 credit = $0.001).
        requests_per_minute: calls a minute and key, POSTs, polls and balance together; None for no limit.
        submits_per_minute: POSTs a minute and key; None for no limit.
        burst: calls that may come at once after a pause, for both limits; 0 for one second's worth or one,
            whichever is more.
        in_flight: tasks of a key that may be processing at once, a POST beyond it gets 429; None for no cap.
        url_ttl: seconds until an output URL expires.
        renew_urls: whether a poll after that hands out a fresh URL.
        expired_status: HTTP status of an expired URL (403 as a CDN's signed URL, or 410).
        usage: whether a completed task carries `usage.credits`.
        keys: the keys that are accepted; None for every key that begins with `rk_`.
        faults: what goes wrong, see `parse_faults`.
        state: SQLite file in which account and tasks outlive the process; None keeps them in memory.
        models: the models that are accepted, by name; None for the shipped ones.
        clips: `rendered` for real video that shows the job, `tiny` for a few hundred bytes per output.
    """

    median_seconds: float = 8.0
    sigma: float = 0.4
    seed: int = 0
    balance: int = 1_000_000
    requests_per_minute: float | None = None
    submits_per_minute: float | None = None
    burst: float = 0.0
    in_flight: int | None = None
    url_ttl: float = 3600.0
    renew_urls: bool = True
    expired_status: int = 403
    usage: bool = True
    keys: frozenset[str] | None = field(default=None, repr=False)
    faults: tuple[Fault, ...] = ()
    state: Path | None = None
    models: Mapping[str, Model] | None = field(default=None, repr=False)
    clips: str = "rendered"

    def __post_init__(self) -> None:
        for name in ("median_seconds", "sigma", "url_ttl", "burst", "balance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, not {value!r}")
        for name in ("requests_per_minute", "submits_per_minute", "in_flight"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, not {value!r}")
        if self.expired_status not in (403, 404, 410):
            raise ValueError(f"expired_status must be 403, 404 or 410, not {self.expired_status!r}")
        if self.clips not in CLIPS:
            raise ValueError(f"clips must be one of {', '.join(CLIPS)}, not {self.clips!r}")
