"""Target 1 (and the CPU of target 2): jobs end to end, everything on, against what people use today."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import manifests
from .harness import (
    Check,
    Context,
    Double,
    Failed,
    Result,
    Run,
    Unavailable,
    alternate,
    measure,
    median,
    own_share,
    ratio,
)
from .peers import runners

IN_FLIGHT = 10_000
"""For batchrunner: enough that its own pace decides."""

AT_ONCE = 64
"""For the naive script: it is fastest with as many jobs as connections."""

OURS = "batchrunner"
NAIVE = "the naive script, uvloop"

NOTES = """
Whole processes, from the YAML file to the last byte on disk; the file is 400 bytes. The naive scripts read the same
manifest with CSafeLoader. They leave out memory of any kind (a kill pays twice), limits, budgets, retries, 429, checks
of manifest and files, fsync; and they send the key to the file server.

batchrunner opens a connection for each POST; the naive scripts keep their connections. They ask about a task at once,
64 jobs at a time, which is the best that they can do here.

The slow peers do fewer jobs. Their speed, and the one that theirs is compared with, is taken from the first POST to the
last call, so that their start is not held against them.

The double's CPU is the largest share of a core that it used from the first POST to the last call. It must stay well
below one: then it was not the double that was measured.
"""


def run(context: Context) -> Result:
    jobs = context.pick(10_000, 1_500)
    folder = context.room("target01")
    result = Result(
        "1",
        f"{jobs:,} jobs end to end, everything on, no generation time",
        notes=[" ".join(note.split()) for note in NOTES.strip().split("\n\n")],
    )
    with Double.started() as double:
        contenders = _contenders(context, double, folder, result, jobs)
        runs = alternate({c.name: c.run for c in contenders}, context.rounds)
    mine = runs[OURS]
    result.table = [("contender", "jobs", "jobs/s", "CPU ms/job", "peak MB", "batchrunner is x", "double CPU")]
    for one in contenders:
        found, of = runs[one.name], "wall" if one.jobs == jobs else "span"
        times = ratio(mine, found, of) * jobs / one.jobs
        result.table.append(
            (
                one.name,
                f"{one.jobs:,}",
                f"{one.jobs / median(found, of):,.0f}",
                f"{median(found, 'cpu') / one.jobs * 1000:.2f}",
                f"{median(found, 'rss'):.0f}",
                f"{times:.2f}",
                f"{own_share(found):.0%}",
            )
        )
        if one.wanted is not None:
            result.at_least(f"1: jobs/s against {one.name}", times, one.wanted, " x")
    result.at_most(f"2: CPU per job against {NAIVE}", 1 / ratio(mine, runs[NAIVE], "cpu"), 1.3, " x")
    share = max(own_share(found) for found in runs.values())
    result.at_most("the double's own share of a core", share, 0.5)
    return result


@dataclass(frozen=True, slots=True)
class Contender:
    """Who does so many jobs, and how many times faster batchrunner is to be (None: only shown)."""

    name: str
    jobs: int
    wanted: float | None
    run: Callable[[int], Run]


def _contenders(context: Context, double: Double, folder: Path, result: Result, jobs: int) -> list[Contender]:
    """Everybody who can take part on this machine."""
    room = folder / "room"

    def manifest(shots: int) -> Path:
        path = folder / f"{shots}.yaml"
        return path if path.exists() else manifests.write(path, shots, in_flight=IN_FLIGHT)

    def module(name: str, shots: int, interpreter: str, *rest: object) -> Callable[[int], Run]:
        return lambda _: complete(
            runners.module(context, double, name, interpreter, manifest(shots), room, *rest), room, shots
        )

    here = sys.executable
    found = [
        Contender(OURS, jobs, None, lambda _: ours(context, double, manifest(jobs), room, jobs)),
        Contender(NAIVE, jobs, 0.85, module("naive", jobs, here, AT_ONCE, "uvloop")),
        Contender("the naive script, asyncio", jobs, None, module("naive", jobs, here, AT_ONCE, "asyncio")),
    ]
    if not context.peers:
        return found
    some, few = context.pick(3_000, 300), context.pick(300, 30)
    found.append(Contender("a commit a transition, aiosqlite", some, 8, module("commit_each", some, here, AT_ONCE)))
    try:
        python = runners.python()
        found.append(Contender("Huey, SQLite", some, 4, module("on_huey", some, python, 16)))
        found.append(Contender("DBOS, SQLite", few, 40, module("on_dbos", few, python, AT_ONCE)))
    except Unavailable as reason:
        result.checks.append(Check("1: against Huey and DBOS", f"not measured: {reason}"))
    try:
        runners.parallel_is_there()
        shell = lambda _: complete(runners.parallel(context, double, manifest(few), room, 16), room, few)  # noqa: E731
        found.append(Contender("GNU parallel + curl", few, None, shell))
    except Unavailable as reason:
        result.checks.append(Check("1: against GNU parallel + curl", f"not measured: {reason}"))
    return found


def ours(context: Context, double: Double, manifest: Path, room: Path, jobs: int) -> Run:
    """batchrunner, as it is: its ledger and its outputs in a folder of their own."""
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    local = shutil.copy(manifest, room / "jobs.yaml")
    command = context.batchrunner("run", local, "--quiet", "--db", room / "ledger.db")
    found = measure(command, room, context.env(double), double=double)
    if found.told["leaked_keys"]:
        raise Failed("the key was sent along with downloads")
    return complete(found, room, jobs)


def complete(found: Run, room: Path, jobs: int) -> Run:
    """Only who has done all of it is timed. What it made stays until the end: ext4 reuses no inode for minutes after
    its file is gone, and each new file has to look past all of those, whoever makes it (measured: 480 us)."""
    files = sum(1 for _ in room.rglob("*.mp4"))
    room.rename(room.with_name(f"done-{time.monotonic_ns()}"))
    if found.told["accepted"] != jobs or files != jobs:
        raise Failed(f"{found.told['accepted']} accepted, {files} files, of {jobs} jobs: {found.output[-500:]}")
    return found
