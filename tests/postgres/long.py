"""`python -m tests.postgres.long`: what may happen to two workers, each 20 times with 300 jobs.

Every run prints a line and is added to a record, whatever became of it. A call with the same record goes on where the
last one was ended: what is in it is not played again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.double import Double
from tests.postgres.server import binaries, running
from tests.postgres.trouble import TROUBLES, Seen, play

PRUNE = 6.0
"""Seconds after which workers take each other for dead: a frozen one is away for three times as long."""


def main() -> int:
    options = _options()
    if binaries() is None:
        print("no PostgreSQL server here: apt-get install --no-install-recommends postgresql", file=sys.stderr)
        return 2
    record = Record(options.record, options.jobs)
    end = time.monotonic() + 60.0 * options.minutes
    for trouble, seed in _asked(options):
        if record.has(trouble, seed, again=options.again):
            continue
        if time.monotonic() >= end:
            print(f"{options.minutes:g} minutes are over", flush=True)
            break
        seen = _one(trouble, seed, options.jobs)
        record.add(seen)
        print(seen.line(), flush=True)
        if seen.wrong:
            print(seen.said, flush=True)
    print(record.account(), flush=True)
    return 1 if record.wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.postgres.long", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="of each (default: 20)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default: 0)")
    parser.add_argument("--jobs", type=int, default=300, metavar="N", help="in each batch (default: 300)")
    parser.add_argument(
        "--trouble", action="append", choices=list(TROUBLES), help="only this; may be given several times"
    )
    parser.add_argument("--record", type=Path, default=Path("cluster-long.json"), metavar="FILE")
    parser.add_argument("--again", action="store_true", help="play once more what has failed")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), metavar="N", help="after these, begin nothing more"
    )
    return parser.parse_args()


def _asked(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """One of each kind after the other, so that a record that is cut short has something of all."""
    for seed in range(options.first, options.first + options.seeds):
        for trouble in options.trouble or TROUBLES:
            yield trouble, seed


def _one(trouble: str, seed: int, jobs: int) -> Seen:
    """A run with a server, a service and a folder of its own: none can spoil the next."""
    try:
        with tempfile.TemporaryDirectory() as folder, Double.start() as double, running() as postgres:
            return play(trouble, seed, Path(folder), double, postgres, jobs=jobs, prune=PRUNE, paced=True)
    except Exception:  # noqa: BLE001  it is in the record, and the next one is played
        return Seen(trouble, seed, jobs, wrong=["it could not be played"], said=traceback.format_exc())


class Record:
    """What was played, in a file that is whole at any time."""

    def __init__(self, path: Path, jobs: int) -> None:
        self._path = path
        self.runs: list[dict[str, Any]] = []
        self._commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if path.exists():
            self.runs = json.loads(path.read_text())["runs"]
        if any(run["jobs"] != jobs for run in self.runs):
            raise SystemExit(f"{path} is of runs with another number of jobs; name another --record")

    def has(self, trouble: str, seed: int, *, again: bool) -> bool:
        """Whether a run need not be played; with `again`, only where nothing was wrong."""
        return any((r["trouble"], r["seed"]) == (trouble, seed) and not (again and r["wrong"]) for r in self.runs)

    def add(self, seen: Seen) -> None:
        """In the place of an earlier run of the same kind and seed."""
        one = asdict(seen) | {
            "commit": self._commit,
            "at": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        }
        one["load"] = round(os.getloadavg()[0], 1)
        self.runs = [r for r in self.runs if (r["trouble"], r["seed"]) != (seen.trouble, seen.seed)] + [one]
        facts = {
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
            "command": " ".join(["python -m tests.postgres.long", *sys.argv[1:]]),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(self._path.name + ".new")
        new.write_text(json.dumps(facts | {"runs": self.runs}, indent=1) + "\n")
        new.replace(self._path)

    @property
    def wrong(self) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["wrong"]]

    def account(self) -> str:
        """All of it, a line for each kind."""
        lines = []
        for trouble in TROUBLES:
            runs = [run for run in self.runs if run["trouble"] == trouble]
            if not runs:
                continue
            total = {name: sum(run[name] for run in runs) for name in ("jobs", "accepted", "in_doubt", "never_sent")}
            twice, wrong = (sum(len(run[name]) for run in runs) for name in ("twice", "wrong"))
            lines.append(
                f"{trouble}: {len(runs)} runs, {total['jobs']} jobs, {total['accepted']} tasks, {twice} twice; "
                f"{total['in_doubt']} in doubt, {total['never_sent']} of them never sent; worst second "
                f"{max(run['worst_second'] for run in runs)} of {runs[0]['rate']:g}; {wrong} things wrong"
            )
        return "\n".join(lines) or "nothing was played"


if __name__ == "__main__":
    sys.exit(main())
