"""Target 4: a large manifest: `validate`, and `run` to its first POST."""

from __future__ import annotations

import shutil
import statistics
import sys

from . import manifests
from .harness import Context, Double, Result, Run, alternate, measure, median

LOADER = "import sys, yaml; yaml.load(open(sys.argv[1]), Loader=yaml.CSafeLoader)"


def run(context: Context) -> Result:
    shots = context.pick(100_000, 10_000)
    folder = context.room("target04")
    manifest = manifests.write(folder / "large.yaml", shots, in_flight=100)
    with Double.started() as double:

        def first_post(_: int) -> Run:
            room = folder / "room"
            for used in (room, folder / "outputs"):
                shutil.rmtree(used, ignore_errors=True)
            room.mkdir()
            command = context.batchrunner("run", manifest, "--quiet", "--limit", 1, "--db", room / "ledger.db")
            return measure(command, room, context.env(double), double=double, codes=(0, 4))

        runs = alternate(
            {
                "validate": lambda _: measure(context.batchrunner("validate", manifest), folder, context.env()),
                "run": first_post,
                "CSafeLoader": lambda _: measure([sys.executable, "-c", LOADER, str(manifest)], folder),
            },
            context.rounds,
        )
    first = statistics.median(r.told["first_post"] - r.began for r in runs["run"])
    scale = shots / 100_000
    result = Result("4", f"a manifest of {shots:,} shots, {manifest.stat().st_size / 1e6:.0f} MB")
    result.at_most("validate", median(runs["validate"], "wall"), 3.5 * scale, " s")
    result.at_most("validate, peak memory", median(runs["validate"], "rss"), 250, " MB")
    result.at_most("run, to the first POST", first, 6 * scale, " s")
    result.table = [("what", "s", "CPU s", "peak MB")]
    for name, what in (
        ("validate", "validate"),
        ("run", "run --limit 1, whole"),
        ("CSafeLoader", "yaml.CSafeLoader alone"),
    ):
        found = runs[name]
        result.table.append(
            (what, f"{median(found, 'wall'):.2f}", f"{median(found, 'cpu'):.2f}", f"{median(found, 'rss'):.0f}")
        )
    result.table.append(("run, to the first POST", f"{first:.2f}", "", ""))
    return result
