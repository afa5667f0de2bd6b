"""Target 8: makespan under a known limit in flight, against n x mean / slots."""

from __future__ import annotations

from typing import Any

from .harness import Context, Result
from .nights import simulated

MEDIAN = 60.0


def nights(context: Context) -> list[dict[str, Any]]:
    """One for each number of slots, each with as many rounds through them."""
    rounds = context.pick(150, 20)
    slots = context.pick(20, 10)
    return [{"jobs": rounds * slots, "slots": slots, "median": MEDIAN, "warm": warm} for warm in (True, False)]


def run(context: Context) -> Result:
    asked = nights(context)
    found = simulated(context, asked)
    result = Result("8", "makespan under a known limit in flight, against n x mean / slots")
    result.table = [
        ("slots", "jobs", "latencies", "makespan s", "bound s", "bound / makespan", "oracle", "polls a task")
    ]
    for night, one in zip(asked, found, strict=True):
        result.table.append(
            (
                str(night["slots"]),
                f"{night['jobs']:,}",
                "known" if night["warm"] else "unknown",
                f"{one['makespan']:,.0f}",
                f"{one['bound']:,.0f}",
                f"{one['bound'] / one['makespan']:.3f}",
                f"{one['oracle'] / one['makespan']:.3f}",
                f"{one['polls'] / one['jobs']:.1f}",
            )
        )
    result.at_least("bound / makespan", min(one["bound"] / one["makespan"] for one in found), 0.97)
    result.notes.append(
        "The whole engine on virtual time; tasks are lognormal, median 60 s, sigma 0.4. The bound leaves out that the "
        "last tasks leave slots empty; the oracle, who sees every end at once, can't avoid that either."
    )
    return result
