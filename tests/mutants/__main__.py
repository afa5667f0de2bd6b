"""`python -m tests.mutants` makes every named mistake in a copy of the project, and prints which test catches it."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.run import ROOT, CannotTell, Verdict, check_baseline, copy, try_all


def commit() -> str:
    """The commit of the tree, as far as git knows it."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def show(verdict: Verdict) -> None:
    fate = verdict.caught_by or "SURVIVED"
    if verdict.not_tried:
        fate = f"NOT TRIED: {verdict.not_tried}"
    print(f"{verdict.name:34} {fate}", flush=True)


def record(verdicts: list[Verdict], file: Path) -> None:
    about = {"date": datetime.now(UTC).date().isoformat(), "commit": commit(), "python": platform.python_version()}
    rows = [{"mistake": MUTANTS[v.name].mistake, **asdict(v)} for v in verdicts]
    file.write_text(json.dumps({**about, "mutants": rows}, indent=1) + "\n", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], choices=MUTANTS, metavar="NAME", help="only this one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the result here, as JSON")
    parser.add_argument("--list", action="store_true", help="print the mistakes")
    options = parser.parse_args()
    mutants = [MUTANTS[name] for name in options.only or MUTANTS]
    if options.list:
        print("\n".join(f"{m.name:34} {m.mistake}" for m in mutants))
        return 0
    with copy() as tree:  # nobody changes it meanwhile
        try:
            print(f"{check_baseline(mutants, tree)} tests pass without a mistake", flush=True)
        except CannotTell as why:
            print(why, file=sys.stderr)
            return 2
        verdicts = try_all(mutants, options.processes, show, tree)
    if options.record is not None:
        record(verdicts, options.record)
    caught = [v for v in verdicts if v.caught_by]
    print(f"{len(caught)} of {len(verdicts)} caught")
    return 0 if len(caught) == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
