"""Target 6: how long a command takes that has nothing to do."""

from __future__ import annotations

from . import ledgers, manifests
from .harness import Context, Double, Result, alternate, measure, median, ratio


def run(context: Context) -> Result:
    folder = context.room("target06")
    db = folder / "ledger.db"
    with Double.started() as double:
        ledgers.recorded(context, double, manifests.write(folder / "one.yaml", 1, in_flight=1), db)
    commands = {
        "python -c pass": [context.python, "-c", "pass"],
        "--help": context.batchrunner("--help"),
        "status": context.batchrunner("status", "--db", db),
        "status, no ledger": context.batchrunner("status", "--db", folder / "none.db"),
        "jobs": context.batchrunner("jobs", "--db", db),
    }
    rounds = context.pick(21, 5)
    runs = alternate(
        {n: lambda _, c=c: measure(c, folder, context.env(), codes=(0, 1, 2)) for n, c in commands.items()},  # type: ignore[misc]
        rounds,
    )
    bare = runs["python -c pass"]
    result = Result("6", "start-up, against `python -c pass`")
    result.at_most("--help", 1 / ratio(runs["--help"], bare, "wall"), 6, " x")
    result.at_most("status of an almost empty ledger", 1 / ratio(runs["status"], bare, "wall"), 8, " x")
    result.table = [("command", "ms", "x", "CPU ms", "peak MB")]
    for name, found in runs.items():
        wall = median(found, "wall")
        times = 1 / ratio(found, bare, "wall")
        cpu = median(found, "cpu")
        result.table.append(
            (name, f"{wall * 1000:.0f}", f"{times:.1f}", f"{cpu * 1000:.0f}", f"{median(found, 'rss'):.0f}")
        )
    return result
