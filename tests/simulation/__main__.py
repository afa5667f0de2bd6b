"""`python -m tests.simulation SEED` prints a seed's trace; `--seeds N` plays many and records how they went."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.simulation.run import collected, play, record


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="play this one and print its trace")
    parser.add_argument("--quiet", action="store_true", help="no trace")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="play N seeds")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="beginning with this one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the result here, as JSON")
    options = parser.parse_args()
    if options.seed is not None:
        with collected():
            verdict = play(options.seed)
        if not options.quiet:
            print("\n".join(verdict.trace))
        print(f"{verdict}\n{verdict.digest}")
        return 1 if verdict.wrong else 0
    total = record(options.seeds, options.first, options.processes, options.record)
    print(json.dumps(asdict(total), indent=1, sort_keys=True))
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
