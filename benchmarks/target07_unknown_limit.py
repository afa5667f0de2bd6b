"""Target 7: limits that nobody told us, found by 429 or by queueing, against an oracle that knows them."""

from __future__ import annotations

from typing import Any

from .harness import Context, Result
from .nights import simulated

RATE, SLOTS, MEDIAN = 7.0, 40, 60.0


def run(context: Context) -> Result:
    jobs = context.pick(2_000, 200)
    nights: list[dict[str, Any]] = [
        {"jobs": jobs, "slots": SLOTS, "rate": RATE, "median": MEDIAN, "known": False, "queue": queue, "seed": seed}
        for queue in (False, True)
        for seed in range(1, context.pick(3, 1) + 1)
    ]
    found = simulated(context, nights)
    result = Result("7", f"{jobs:,} jobs under limits that nobody told: {RATE:g} POST/s, {SLOTS} in flight")
    result.table = [("beyond the limit", "seed", "makespan s", "oracle s", "share", "429s of POSTs", "polls a task")]
    for night, one in zip(nights, found, strict=True):
        result.table.append(
            (
                "queued" if night["queue"] else "429",
                str(night["seed"]),
                f"{one['makespan']:,.0f}",
                f"{one['oracle']:,.0f}",
                f"{one['oracle'] / one['makespan']:.3f}",
                f"{one['throttled'] / one['posts']:.1%}",
                f"{one['polls'] / one['jobs']:.1f}",
            )
        )
    result.at_least("makespan, against the oracle", min(one["oracle"] / one["makespan"] for one in found), 0.95)
    result.at_most("429s of POSTs", max(100 * one["throttled"] / one["posts"] for one in found), 2, " %")
    result.notes.append(
        "The whole engine on virtual time. The manifest allows ten times the limits; the worst seed counts. The oracle "
        "knows them and sees every end at once."
    )
    return result
