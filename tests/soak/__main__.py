"""`python -m tests.soak --jobs 100000` plays a soak and says what it took; `--table FILE` prints a recorded curve."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.soak import watch
from tests.soak.run import Order, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where ledger and outputs go; empty, and kept (default: a new one)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write everything here, as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the curve of a record, and play nothing")
    options = parser.parse_args()
    if options.table is not None:
        samples = json.loads(options.table.read_text())["samples"]
        print(watch.table([watch.Sample(**s) for s in samples]))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        told = soak(Order(options.jobs, options.seed, options.in_flight), folder)
        ledger = sum(p.stat().st_size for p in folder.glob("batchrunner.db*"))
    if options.record is not None:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        facts = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": commit.stdout.strip(),
            "command": " ".join(["python -m tests.soak", *sys.argv[1:]]),
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
            "ledger_bytes": ledger,
        }
        words = facts | asdict(told) | {"wrong": told.wrong, "counts": told.verdict.counts}
        del words["verdict"]
        options.record.write_text(json.dumps(words, indent=1) + "\n")
    print(watch.table(told.samples))
    print(json.dumps(told.verdict.counts, indent=1))
    print(f"{told.seconds} s; " + ("\n".join(told.wrong) or "nothing is wrong"))
    return 1 if told.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
