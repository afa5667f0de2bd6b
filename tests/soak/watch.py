"""What a process takes, read from /proc while it runs: memory, descriptors, threads, processor time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the runner.

    Attributes:
        at: seconds since the soak began.
        life: which process it was: 0 for the first.
        done: transitions in the ledger.
        rss: resident memory in KiB.
        descriptors, threads: how many.
        cpu: processor seconds of this process so far.
    """

    at: float
    life: int
    done: int
    rss: int
    descriptors: int
    threads: int
    cpu: float


def look(pid: int, at: float, life: int, done: int) -> Sample | None:
    """A sample of a process; None where it has just ended."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        descriptors = len(os.listdir(place / "fd"))
        times = (place / "stat").read_text().rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    if "VmRSS" not in status:
        return None  # dead, and not yet waited for
    cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return Sample(at, life, done, int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"]), cpu)


def quarters(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of the process that did most, in four parts of equal work."""
    work = {
        life: max(s.done for s in samples if s.life == life) - min(s.done for s in samples if s.life == life)
        for life in {s.life for s in samples}
    }
    longest = max(work, key=lambda life: work[life])
    mine = [s for s in samples if s.life == longest]
    first, size = mine[0].done, max(work[longest], 1)
    parts: list[list[Sample]] = [[] for _ in range(QUARTERS)]
    for sample in mine:
        parts[min(QUARTERS * (sample.done - first) // size, QUARTERS - 1)].append(sample)
    return parts


POOLS = 8
"""Threads that may still come: those of a pool are made when they are first needed."""


def growing(parts: Sequence[Sequence[Sample]], more_kib: int, more_descriptors: int) -> list[str]:
    """What grew between the second quarter of the work and the last by more than is allowed; empty for nothing.

    The first quarter is left out: caches fill in it.
    """
    if not all(parts):
        return [f"too few samples to say anything: {[len(p) for p in parts]}"]

    def grown(of: Callable[[Sample], int]) -> tuple[int, int]:
        return max(of(s) for s in parts[1]), max(of(s) for s in parts[3])

    wrong = []
    for name, (before, after), allowed in (
        ("memory (KiB)", grown(lambda s: s.rss), more_kib),
        ("descriptors", grown(lambda s: s.descriptors), more_descriptors),
        ("threads", grown(lambda s: s.threads), POOLS),
    ):
        if after > before + allowed:
            wrong.append(f"{name} grew from {before} to {after}")
    return wrong


def table(samples: Sequence[Sample], rows: int = 20) -> str:
    """The curve as a Markdown table of about so many rows, every process with its first and last look."""
    step = max(1, len(samples) // rows)
    ends = {i for i, s in enumerate(samples) if i in {0, len(samples) - 1} or samples[i - 1].life != s.life}
    lines = [
        "| second | process | transitions | memory, MiB | descriptors | threads |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for i, s in enumerate(samples):
        if i % step == 0 or i in ends:
            lines.append(f"| {s.at:.0f} | {s.life} | {s.done:,} | {s.rss / 1024:.1f} | {s.descriptors} | {s.threads} |")
    return "\n".join(lines)
