"""Target 2: memory must not grow with the ledger. (Its CPU is measured with target 1.)"""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import manifests
from .harness import Context, Double, Result, Run, alternate, measure, median

IN_FLIGHT = 1_000
CACHE_MB = 16.8
"""The ledger's page cache, `PRAGMA cache_size = -16384`."""


def run(context: Context) -> Result:
    few, many = context.pick(2_000, 1_000), context.pick(100_000, 5_000)
    folder = context.room("target02")
    limit = context.pick(4_000, 500)
    with Double.started() as double:

        def batch(jobs: int) -> Run:
            room = Path(tempfile.mkdtemp(dir=folder))  # stays until the end, see target01_end_to_end.complete
            manifest = manifests.write(room / "jobs.yaml", jobs, in_flight=IN_FLIGHT)
            command = context.batchrunner("run", manifest, "--quiet", "--limit", limit, "--db", room / "ledger.db")
            return measure(command, room, context.env(double), double=double, codes=(0, 4))

        runs = alternate({"few": lambda _: batch(few), "many": lambda _: batch(many)}, context.rounds)
    growth = median(runs["many"], "rss") - median(runs["few"], "rss")
    result = Result("2", f"memory, {few:,} against {many:,} jobs in the ledger, {IN_FLIGHT:,} in flight")
    result.at_most("growth of peak memory", growth, 40 + CACHE_MB, " MB")
    result.table = [("jobs in the ledger", "peak MB", "s", "CPU s")]
    for jobs, found in ((few, runs["few"]), (many, runs["many"])):
        result.table.append(
            (f"{jobs:,}", f"{median(found, 'rss'):.0f}", f"{median(found, 'wall'):.1f}", f"{median(found, 'cpu'):.1f}")
        )
    result.notes.append(
        f"`run` from the YAML file, at most {limit:,} submissions; the target is 40 MB and the {CACHE_MB} MB that the "
        "ledger's page cache may take."
    )
    return result
