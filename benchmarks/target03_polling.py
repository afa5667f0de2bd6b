"""Target 3: ten thousand tasks of about a minute kept in flight, in real time."""

from __future__ import annotations

import math
import random
from pathlib import Path

from . import ledgers, manifests
from .harness import Check, Context, Double, Result, measure

MEDIAN, SIGMA = 60.0, 0.5

ROUNDS = 3
"""Tasks for each slot. A single crowd that is sent in one go is no night: all its ends come at once, those that come
first are the short ones, and what is learned of them alone takes the others for late (8.6 polls, 3.2 s of delay)."""


def run(context: Context) -> Result:
    slots = context.pick(10_000, 300)
    jobs = ROUNDS * slots
    median = MEDIAN if not context.quick else 6.0
    folder = context.room("target03")
    # A thousand a second for ten thousand tasks of a minute; as many for each task where there are fewer.
    manifest = manifests.write(folder / "jobs.yaml", jobs, in_flight=slots, polls=round(6 * slots * MEDIAN / median))
    db = folder / "ledger.db"
    with Double.started() as double:
        ledgers.recorded(context, double, manifest, db)
        dice = random.Random(3)
        samples = [median * math.exp(dice.gauss(0.0, SIGMA)) for _ in range(200)]
        ledgers.learned(db, "kling-3-0-turbo", 3, samples)
        double.reset(median=median, sigma=SIGMA, seed=3, tasks=1)
        watch = CpuWatch()
        command = context.batchrunner("run", manifest, "--quiet", "--db", db)
        found = measure(command, folder, context.env(double), double=double, watch=watch)
    told = found.told
    polls = told["polls"] / told["accepted"]
    busiest = watch.busiest(after=told["last_post"], window=30.0 if not context.quick else 5.0)
    result = Result("3", f"{slots:,} tasks in flight, {jobs:,} in all, lognormal, median {median:.0f} s, sigma {SIGMA}")
    if context.quick:
        result.checks.append(Check("polls a task, mean delay", f"{polls:.1f}, {told['delay_mean']:.1f} s"))
    else:
        result.at_most("polls a task", polls, 7.5)
        result.at_most("mean delay", told["delay_mean"], 4.0, " s")
    result.at_most("share of a core while polling", busiest, 0.4)
    result.at_most("peak memory", found.rss, 200, " MB")
    result.data["polls_in_second"] = told["most_polls_in_a_second"]
    result.table = [
        (
            "polls a task",
            "mean delay s",
            "p95 s",
            "most polls in a second",
            "in flight at most",
            "core, busiest 30 s",
            "MB",
        ),
        (
            f"{polls:.2f}",
            f"{told['delay_mean']:.2f}",
            f"{told['delay_p95']:.2f}",
            f"{told['most_polls_in_a_second']:,}",
            f"{told['peak_running']:,}",
            f"{busiest:.2f}",
            f"{found.rss:.0f}",
        ),
    ]
    result.notes.append(
        "Real time, one run, whole process; `limits: {polls_per_minute: 60000}` for 10,000 slots. Its share of a core "
        "is that of the busiest 30 s after the last POST. "
        "Earlier nights taught 200 latencies; cold starts are in the plots. "
        f"The run took {found.wall:.0f} s, its submissions {told['last_post'] - told['first_post']:.0f} s."
    )
    return result


class CpuWatch:
    """Samples a process's CPU clock while it runs."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []

    def __call__(self, pid: int, now: float) -> None:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.samples.append((now, (int(fields[11]) + int(fields[12])) / 100.0))

    def busiest(self, *, after: float, window: float) -> float:
        """The largest share of a core over `window` seconds that begin after `after`."""
        best, samples = 0.0, [s for s in self.samples if s[0] >= after]
        for n, (began, cpu) in enumerate(samples):
            later = next((s for s in samples[n:] if s[0] - began >= window), None)
            if later is None:
                break
            best = max(best, (later[1] - cpu) / (later[0] - began))
        return best
