"""`python -m tests.fuzz manifest --runs 1000000 --record FILE.json`: coverage-guided, bounded in count and time.

It needs atheris (the extra `fuzz`). Begins with the kept corpus; `--keep` puts what covers more back into it. Ends
with 1, and the input in a file, at the first that raises, takes more than 20 s, or more than a gigabyte.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import CORPUS

HERE = Path(__file__).parent
SECONDS_EACH = 20
MEGABYTES = 1024
LONGEST = 4096
"""Bytes of an input: the limits are small while fuzzing (`targets.bench`). Large inputs have tests of their own."""
_LAST = re.compile(r"^#\d+\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["manifest", "answer"])
    parser.add_argument("--runs", type=int, default=100_000, metavar="N", help="stop after N inputs")
    parser.add_argument("--seconds", type=int, default=3600, metavar="S", help="stop after S seconds at the latest")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the result here, as JSON")
    parser.add_argument(
        "--keep", action="store_true", help="put the smallest set with the same coverage into the corpus"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        shutil.copytree(CORPUS / options.target, corpus)
        result = fuzz(options.target, corpus, Path(folder), options.runs, options.seconds, options.seed)
        if options.keep:
            keep(options.target, corpus, Path(folder))
    print(json.dumps(result, indent=1))
    if options.record:
        options.record.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["crashes"] else 0


def libfuzzer(target: str, tally: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own; what it says goes to stderr, and is returned."""
    command = [sys.executable, "-m", "tests.fuzz.atheris_run", target, str(tally), *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    sys.stderr.write(done.stderr[-4000:])
    return done


def fuzz(target: str, corpus: Path, folder: Path, runs: int, seconds: int, seed: int) -> dict[str, Any]:
    """One run, and its figures."""
    tally = folder / "tally.json"
    begun = time.monotonic()
    done = libfuzzer(
        target,
        tally,
        [
            f"-runs={runs}",
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-max_len={LONGEST}",
            f"-timeout={SECONDS_EACH}",
            f"-rss_limit_mb={MEGABYTES}",
            f"-dict={HERE / 'words.dict'}",
            f"-artifact_prefix={target}-",
            "-print_final_stats=1",
            str(corpus),
        ],
    )
    stats = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
    last = _LAST.search(done.stderr)
    if "number_of_executed_units" not in stats or (done.returncode == 0 and last is None):
        raise RuntimeError(f"the fuzzer did not run: exit {done.returncode}")
    return {
        "target": target,
        "executions": stats["number_of_executed_units"],
        "crashes": int(done.returncode != 0),
        "seconds": round(time.monotonic() - begun),
        "peak_rss_mb": stats["peak_rss_mb"],
        "slowest_input_seconds": stats["slowest_unit_time_sec"],
        "edges": int(last[1]) if last else None,
        "features": int(last[2]) if last else None,
        "inputs_kept": int(last[3]) if last else None,
        "answers": json.loads(tally.read_text()) if tally.exists() else {},
        "seed": seed,
        "atheris": importlib.metadata.version("atheris"),
    }


def keep(target: str, corpus: Path, folder: Path) -> None:
    """Replace the kept corpus by the smallest set of inputs that covers as much as all of them."""
    smallest = folder / "smallest"
    smallest.mkdir()
    done = libfuzzer(
        target, folder / "tally.json", ["-set_cover_merge=1", f"-max_len={LONGEST}", str(smallest), str(corpus)]
    )
    if done.returncode or not any(smallest.iterdir()):
        raise RuntimeError("the corpus could not be made smaller; it stays as it was")
    shutil.rmtree(CORPUS / target)
    shutil.copytree(smallest, CORPUS / target)


if __name__ == "__main__":
    sys.exit(main())
