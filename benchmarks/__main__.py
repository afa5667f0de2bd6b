"""`make bench`: a few figures, each against its yardstick in the same run. Medians of alternating runs.

Only ratios are worth comparing between machines. The full set of targets is in the performance issue's list; what is
here is what the main job needs: throughput against a script that remembers nothing, start-up, and a large manifest.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
JOBS = 3000
IN_FLIGHT = 1000
SHOTS = 100_000
CLI = [sys.executable, "-m", "batchrunner"]


def write_manifest(path: Path, shots: int, in_flight: int) -> None:
    """A manifest of `shots` shots without anything that would slow a run down."""
    lines = [
        "version: 1",
        "batch: bench",
        "defaults: {model: kling-3-0-turbo, duration: 3}",
        f"limits: {{submits_per_minute: 1000000, in_flight: {in_flight}}}",
        "shots:",
    ]
    for number in range(shots):
        lines += [
            f"  - id: shot-{number:06d}",
            f"    prompt: a corgi on the beach, number {number}, cinematic, slow pan",
        ]
    path.write_text("\n".join(lines) + "\n")


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of one process, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def throughput(folder: Path) -> None:
    manifest = folder / "jobs.yaml"
    write_manifest(manifest, JOBS, IN_FLIGHT)
    provider = subprocess.Popen([sys.executable, "-m", "benchmarks.provider"], stdout=subprocess.PIPE, text=True)
    try:
        assert provider.stdout is not None
        os.environ["REAPI_BASE_URL"] = provider.stdout.readline().strip()
        os.environ["REAPI_API_KEY"] = "rk_benchmark"
        ours: list[tuple[float, float]] = []
        naive: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            script = [
                sys.executable,
                "-m",
                "benchmarks.naive",
                str(manifest),
                str(folder / f"n{number}"),
                str(IN_FLIGHT),
            ]
            naive.append(measure(script, Path.cwd()))
            ours.append(measure([*CLI, "run", str(manifest), "--quiet", "--db", str(folder / f"{number}.db")], folder))
            shutil.rmtree(folder / "outputs")
    finally:
        provider.terminate()
        provider.wait()
    report(f"{JOBS} jobs end to end, against the naive script", ours, naive)


def start_up(folder: Path) -> None:
    bare = [measure([sys.executable, "-c", "pass"], folder) for _ in range(7)]
    report("--help, against python -c pass", [measure([*CLI, "--help"], folder) for _ in range(7)], bare)
    report("status of no ledger, against python -c pass", [measure([*CLI, "status"], folder) for _ in range(7)], bare)


def large_manifest(folder: Path) -> None:
    manifest = folder / "large.yaml"
    write_manifest(manifest, SHOTS, IN_FLIGHT)
    loader = "import sys, yaml; yaml.load(open(sys.argv[1]), Loader=yaml.CSafeLoader)"
    theirs = [measure([sys.executable, "-c", loader, str(manifest)], folder) for _ in range(ROUNDS)]
    ours = [measure([*CLI, "validate", str(manifest)], folder) for _ in range(ROUNDS)]
    report(f"validate {SHOTS} shots, against CSafeLoader alone", ours, theirs)


def report(what: str, ours: list[tuple[float, float]], yardstick: list[tuple[float, float]]) -> None:
    wall, cpu = (statistics.median(column) for column in zip(*ours, strict=True))
    wall_0, cpu_0 = (statistics.median(column) for column in zip(*yardstick, strict=True))
    print(f"| {what} | {wall:.2f} s | {wall_0:.2f} s | {wall / wall_0:.2f} | {cpu / cpu_0:.2f} |", flush=True)


def main() -> None:
    print("| what | batchrunner | yardstick | time ratio | CPU ratio |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for benchmark in (start_up, large_manifest, throughput):
            folder = Path(name) / benchmark.__name__
            folder.mkdir()
            benchmark(folder)


if __name__ == "__main__":
    main()
