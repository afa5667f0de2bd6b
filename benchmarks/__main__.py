"""`python -m benchmarks`: every target, one table, and `benchmarks/RESULTS.md`.

    python -m benchmarks                    everything (about an hour)
    python -m benchmarks --rounds 2         every target, each contender twice instead of three times (40 minutes)
    python -m benchmarks --quick            does it work, in two minutes; small numbers, nothing is written
    python -m benchmarks --only 1,9         these targets; nothing is written unless --write says so
    python -m benchmarks --tree ../other    measure another checkout's batchrunner with the same benchmarks

Only ratios are worth comparing between machines; what is compared ran in turn, in one run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from .harness import ROOT, Context, Failed, Result, Unavailable, summary
from .machine import heading

TARGETS = {
    "1": "target01_end_to_end",
    "2": "target02_memory",
    "3": "target03_polling",
    "4": "target04_large_manifest",
    "5": "target05_second_run",
    "6": "target06_start_up",
    "7": "target07_unknown_limit",
    "8": "target08_makespan",
    "9": "target09_downloads",
    "10": "target10_restart",
    "million": "million",
    "workers": "workers",
    "plots": "plots",
    "double": "capacity",
}
"""What `--only` takes -> the module that measures it."""

QUICK = "Small numbers, one round: this says that it works. The targets are for the full run.\n"

RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def main() -> int:
    options = _options()
    chosen = options.only.split(",") if options.only else list(TARGETS)
    unknown = [name for name in chosen if name not in TARGETS]
    if unknown:
        print(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    results: list[Result] = []
    broken = 0
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as name:
        context = Context(
            folder=Path(name),
            quick=options.quick,
            rounds=options.rounds or (1 if options.quick else 3),
            python=options.python,
            tree=options.tree.resolve(),
            peers=not options.no_peers,
        )
        for number in chosen:
            print(f"target {number} ...", file=sys.stderr, flush=True)
            since = time.monotonic()
            try:
                module = importlib.import_module(f"benchmarks.{TARGETS[number]}")
                result = module.run(context)
            except (Failed, Unavailable) as reason:
                broken += isinstance(reason, Failed)
                result = Result(number, TARGETS[number], notes=[f"not measured: {reason}"])
            results.append(result)
            print(f"target {number}: {(time.monotonic() - since) / 60:.1f} minutes", file=sys.stderr, flush=True)
            print(summary([result]) + "\n" + result.markdown(), flush=True)
    if options.quick:
        print(QUICK)
    document = "\n".join(
        [heading(context, time.monotonic() - began), summary(results), *(r.markdown() for r in results)]
    )
    print(document)
    if options.write or not (options.quick or options.only):
        RESULTS.write_text(document)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, one round, at most two minutes")
    parser.add_argument("--only", metavar="N,N", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each contender, by default 3 (1 with --quick)")
    parser.add_argument("--no-peers", action="store_true", help="leave out what is not the naive script")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md all the same")
    parser.add_argument(
        "--python",
        default=os.environ.get("BENCH_PYTHON", sys.executable),
        help="the interpreter that runs batchrunner (BENCH_PYTHON), by default this one",
    )
    parser.add_argument(
        "--tree",
        type=Path,
        default=Path(os.environ.get("BENCH_TREE", ROOT)),
        help="the checkout whose batchrunner is measured (BENCH_TREE), by default this one",
    )
    parser.add_argument("--scratch", type=Path, default=None, help="where ledgers and outputs go, by default TMPDIR")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
