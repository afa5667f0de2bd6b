"""A night of very many jobs: the real command line against the simulator, with faults, and killed again and again."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.command_line import CommandLine
from tests.soak import watch
from tests.soak.account import SECONDS, Verdict, check
from tests.soak.watch import Sample

FAULTS = (
    # Nothing was created.
    "throttle=0.0002:1",
    "error500_before=0.0005",
    "drop_before=0.0005",
    "html=0.0002",
    "reject=0.001",
    # Created, and not told.
    "drop_after=0.0005",
    "error500_after=0.0003",
    "html_after=0.0002",
    "no_id=0.0002",
    "redirect=0.0002",
    "slow=0.002:0.5",
    # Outcomes.
    "fail=0.01",
    "moderate=0.005",
    "unknown_status=0.005:1",
    # Polls.
    "poll500=0.005",
    "poll_drop=0.005",
    "poll404=0.003",
    "poll_html=0.002",
    "expired_url=0.01",
    # Downloads.
    "truncated=0.01",
    "truncated_file=0.005",
    "media500=0.01",
)
"""Chances an occasion (`batchrunner simulate --help`)."""

MANIFEST = """\
version: 1
batch: soak
defaults: {{model: kling-3-0-turbo, duration: {seconds}}}
limits: {{submits_per_minute: 1000000, in_flight: {in_flight}}}
retry: {{provider: 2}}
output: {{dir: out}}
shots:
  - {{id: clip, prompt: a dog on a boat, takes: {jobs}}}
"""

STEPS = 4
"""Transitions of a job that goes well."""

MORE_KIB = 8 * 1024
MORE_DESCRIPTORS = 32
"""By how much the last quarter may exceed the second. Descriptors are connections, which come and go."""

MAX_RUNS = 40


@dataclass(frozen=True, slots=True)
class Order:
    """A soak.

    Attributes:
        jobs: how many.
        seed: of the kills and of the simulator's faults.
        in_flight: see the manifest.
        median: seconds that a task takes.
        early, late: kills in the first quarter of the work, and in its last twentieth; between them one process
            lives long enough for its memory to be judged. One more comes while the manifest is being recorded.
        every: seconds between two samples.
    """

    jobs: int
    seed: int = 0
    in_flight: int = 1000
    median: float = 1.5
    early: int = 4
    late: int = 2
    every: float = 1.0


@dataclass(slots=True)
class Soak:
    """How a soak went: every run of it with how it ended, every sample, the account, and what is wrong."""

    order: Order
    seconds: float = 0.0
    runs: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def wrong(self) -> list[str]:
        parts = watch.quarters(self.samples)
        return self.verdict.wrong + watch.growing(parts, MORE_KIB, MORE_DESCRIPTORS)


@contextmanager
def simulator(order: Order, faults: Sequence[str]) -> Iterator[str]:
    """`batchrunner simulate` in a process of its own; its URL."""
    words = ["--clips", "tiny", "--median", str(order.median), "--seed", str(order.seed), "--balance", str(10**12)]
    for fault in faults:
        words += ["--fault", fault]
    command = [sys.executable, "-m", "batchrunner", "simulate", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def account(url: str) -> dict[str, Any]:
    """The simulator's books."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)) as connection:
        connection.request("GET", "/_simulator/account")
        books: dict[str, Any] = json.loads(connection.getresponse().read())
        return books


def transitions(db: Path) -> int:
    """How many the ledger has; opened and closed, so that a dead runner's log is the next one's to recover."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM history").fetchone()[0])
    return 0


class _Player:
    def __init__(self, order: Order, line: CommandLine) -> None:
        self._line = line
        self._began = time.monotonic()
        self.soak = Soak(order)

    def life(self, *words: str, until: int | None = None, after: float | None = None) -> int | None:
        """One process: until it ends by itself, or is killed at so many transitions, or after so many seconds.

        Returns:
            its exit code; None where it was killed.
        """
        soak, number = self.soak, len(self.soak.runs)
        errors = self._line.folder / "stderr"
        began = time.monotonic()
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "batchrunner", "run", "soak.yaml", "--quiet", *words],
                cwd=self._line.folder,
                env=self._line._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        killed, done, cpu = False, 0, 0.0
        while not killed:
            with suppress(subprocess.TimeoutExpired):
                process.wait(soak.order.every if after is None else after)
                break
            done = transitions(self._line.db)
            sample = watch.look(process.pid, round(time.monotonic() - self._began, 2), number, done)
            if sample is not None:
                soak.samples.append(sample)
                cpu = sample.cpu
            killed = after is not None or (until is not None and done >= until)
        if killed:
            process.kill()
            process.wait()
        code = None if killed else process.returncode
        run = {"words": list(words), "code": code, "seconds": round(time.monotonic() - began, 1), "cpu": cpu}
        soak.runs.append(run | {"transitions": transitions(self._line.db)})
        print(f"process {number}: {soak.runs[-1]}", flush=True)
        told = errors.read_text()
        if code in {2, 5, 6, 70} or "Traceback" in told:
            soak.verdict.say("run", f"process {number} ended with {code}: {told[-2000:]}")
        return code

    def to_the_end(self, *words: str) -> None:
        """Run until nothing more is to be done: a breaker that stopped a run is a person's reason to run again."""
        for _ in range(MAX_RUNS):
            code = self.life(*words)
            if code != 4 and not self._pending():
                return
        self.soak.verdict.say("run", f"it never ends: {self.soak.runs[-1]}")

    def _pending(self) -> int:
        sql = "SELECT count(*) FROM job WHERE state IN ('pending', 'submitting', 'running', 'downloading')"
        with closing(sqlite3.connect(f"file:{self._line.db}?mode=ro", uri=True)) as connection:
            return int(connection.execute(sql).fetchone()[0])

    def finish(self) -> Soak:
        self.soak.seconds = round(time.monotonic() - self._began, 1)
        return self.soak


def soak(order: Order, folder: Path, faults: Sequence[str] = FAULTS) -> Soak:
    """Play it in an empty folder, and judge it."""
    dice = random.Random(f"soak {order.seed}")
    with simulator(order, faults) as url:
        line = CommandLine(folder, {"REAPI_BASE_URL": url, "REAPI_API_KEY": "rk_soak_of_many_jobs"})
        (folder / "soak.yaml").write_text(MANIFEST.format(seconds=SECONDS, in_flight=order.in_flight, jobs=order.jobs))
        player = _Player(order, line)
        player.life(after=dice.uniform(0.3, 1.0 + order.jobs / 50_000))
        moments = [dice.uniform(0.0, 0.25) for _ in range(order.early)]
        moments += [dice.uniform(0.9, 0.95) for _ in range(order.late)]
        for moment in sorted(moments):
            player.life(until=int(order.jobs * (1 + STEPS * moment)))
        player.to_the_end()
        player.to_the_end("--on-unconfirmed", "resubmit")
        told = player.finish()
        found = check(line.db, line.outputs, account(url))
    told.verdict.wrong += found.wrong
    told.verdict.counts = found.counts
    return told
