"""Target 5: a second `run` of a finished batch, and `status` of it."""

from __future__ import annotations

from . import ledgers, manifests
from .harness import Context, Double, Failed, Result, Run, alternate, measure, median


def run(context: Context) -> Result:
    shots = context.pick(100_000, 10_000)
    folder = context.room("target05")
    manifest = manifests.write(folder / "jobs.yaml", shots, in_flight=100)
    db = folder / "ledger.db"
    with Double.started() as double:
        ledgers.recorded(context, double, manifest, db)
        with ledgers.opened(db) as connection:
            ledgers.Night(connection).finished("1")

        def again(_: int) -> Run:
            command = context.batchrunner("run", manifest, "--quiet", "--db", db)
            found = measure(command, folder, context.env(double), double=double)
            if found.told["posts"]:
                raise Failed("a finished batch was submitted again")
            return found

        status = context.batchrunner("status", "--db", db)
        runs = alternate(
            {"run": again, "status": lambda _: measure(status, folder, context.env(double))}, max(context.rounds, 3)
        )
    scale = shots / 100_000
    result = Result("5", f"a finished batch of {shots:,} jobs")
    result.at_most("a second run", median(runs["run"], "wall"), 4 * scale, " s")
    result.at_most("status", median(runs["status"], "wall"), 0.3, " s")
    result.table = [("what", "s", "CPU s", "peak MB")]
    for name, found in runs.items():
        result.table.append(
            (name, f"{median(found, 'wall'):.2f}", f"{median(found, 'cpu'):.2f}", f"{median(found, 'rss'):.0f}")
        )
    return result
