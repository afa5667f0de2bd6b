"""Workers in processes of their own, on one ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchrunner.ledger.address import Server
from tests.acceptance.test_kill import scenario
from tests.crash.command_line import MANIFEST, PATIENCE, CommandLine
from tests.double import ALWAYS, Account, Double, Plan, Rule
from tests.postgres.cut import Wire
from tests.postgres.server import Postgres

RATE = 1200
"""Submissions a minute of all workers together."""

WORKERS = 2


@dataclass
class Fleet:
    """Two workers, their server, and the service.

    Attributes:
        prune: seconds after which they take each other for dead.
        jobs: of the batch.
        output: what the manifest says of outputs, instead of a folder.
        manifest: the whole of it, in the place of one of `jobs` jobs.
        program: what the workers are.
        terms: more that is said to `run --detach`.
        environment: what is set besides, for every call.
        where: the ledger is; None for a new schema.
    """

    folder: Path
    double: Double
    postgres: Postgres
    jobs: int
    prune: float
    in_flight: int = 30
    more: str = ""
    delay: float = 0.3
    output: str = "output: {dir: out}"
    manifest: str = ""
    program: Sequence[str] = ("-m", "batchrunner")
    terms: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    where: Server | None = None
    wires: dict[int, Wire] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = scenario(self.folder)
        slow = Rule("post", "slow", first=1, last=ALWAYS, delay=self.delay)
        self.door = self.double.open(self.name, Plan((slow,), polls=1))
        self.server = self.where or self.postgres.ledger()
        text = MANIFEST.format(jobs=self.jobs, in_flight=self.in_flight, more=self.more).replace("60000", str(RATE))
        (self.folder / "night.yaml").write_text(self.manifest or text.replace("output: {dir: out}", self.output))
        self.line = self._line(self.server)

    def _line(self, server: Server) -> CommandLine:
        more = {
            "BATCHRUNNER_DB": f"{server.url}{'&' if '?' in server.url else '?'}schema={server.schema}",
            "BATCHRUNNER_PRUNE": f"{self.prune:g}s",
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        return CommandLine(self.folder, {**self.door.environment, **more, **self.environment})

    def worker(self, *arguments: str, dies: str = "", without: str = "") -> int:
        """Start one; returns its number. `dies`: a point at which it kills itself (`dies`). `without`: a variable that
        it has not."""
        number = len(self.processes)
        server = self.wires[number].address(self.server) if number in self.wires else self.server
        program = ["-m", "tests.postgres.dies", dies, "1"] if dies else self.program
        environment = {**self._line(server)._environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
        self.logs.append(self.folder / f"worker-{number}.log")
        with self.logs[-1].open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *program, "worker", "--until-idle", *arguments],
                    cwd=self.folder,
                    env={n: v for n, v in environment.items() if n != without},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return number

    def ask(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        command = [sys.executable, "-m", "batchrunner", *arguments, "--json"]
        environment = self.line._environment()
        ended = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, timeout=PATIENCE)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def account(self) -> Account:
        return self.double.account(self.name)

    def posted(self, least: int) -> None:
        """Wait until so many POSTs have arrived."""
        self.until(lambda: len(self.account().posts) >= least)

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait for something to be seen."""
        end = time.monotonic() + PATIENCE
        while not seen():
            assert time.monotonic() < end, self.said()
            assert any(p.poll() is None for p in self.processes), self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """What the workers have printed."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.logs)

    def ended(self, number: int) -> int:
        """Wait for the end of one; its exit code."""
        try:
            return self.processes[number].wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.said()) from None

    def states(self) -> Counter[str]:
        rows = self.postgres.ask(f'SELECT state, count(*) FROM "{self.server.schema}".job GROUP BY state')
        return Counter(dict(rows))

    def worst_second(self) -> int:
        """The most POSTs that arrived within a second."""
        posts = [at for at, kind in self.account().calls if kind == "post"]
        return max((sum(at <= other < at + 1.0 for other in posts) for at in posts), default=0)


@contextmanager
def fleet(folder: Path, double: Double, postgres: Postgres, *, cut: bool = False, **more: object) -> Iterator[Fleet]:
    """A batch that is left to workers who are not there yet."""
    made = Fleet(folder, double, postgres, **more)  # type: ignore[arg-type]
    if cut:
        made.wires[0] = Wire(postgres)
    try:
        assert made.line.call("run", "night.yaml", "--detach", *made.terms) == 0
        yield made
    finally:
        for process in made.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(PATIENCE)
        for wire in made.wires.values():
            wire.close()
