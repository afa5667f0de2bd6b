"""Target 10: starting again with ten thousand tasks running, all of them overdue."""

from __future__ import annotations

import time

from . import ledgers, manifests
from .harness import Context, Double, Result, measure


def run(context: Context) -> Result:
    tasks = context.pick(10_000, 1_000)
    seconds = 15.0
    folder = context.room("target10")
    manifest = manifests.write(folder / "jobs.yaml", tasks + 1, in_flight=tasks)
    db = folder / "ledger.db"
    with Double.started() as double:
        ledgers.recorded(context, double, manifest, db)
        with ledgers.opened(db) as connection:
            ledgers.Night(connection).running("1", since=time.time() - 600.0, first_task=1)
        double.reset(median=3600.0, sigma=0.1, tasks=tasks + 1)
        command = context.batchrunner("resume", "--quiet", "--db", db)
        found = measure(command, folder, context.env(double), double=double, interrupt_after=seconds, codes=(0, 4, 130))
    told = found.told
    budget = max(20.0, 0.5 * tasks)
    first = told["first_poll"] - found.began
    result = Result("10", f"a restart with {tasks:,} running tasks, every one overdue")
    result.at_most("first poll after the start", first, 1.0, " s")
    result.at_most("most polls in a second, of the budget", told["most_polls_in_a_second"] / budget, 1.0, " x")
    result.table = [
        ("first poll s", "polls in the first 15 s", "most in a second", "budget a second", "CPU s", "peak MB"),
        (
            f"{first:.2f}",
            f"{told['polls']:,}",
            f"{told['most_polls_in_a_second']:,}",
            f"{budget:,.0f}",
            f"{found.cpu:.1f}",
            f"{found.rss:.0f}",
        ),
    ]
    return result
