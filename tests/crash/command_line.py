"""The real command line in a process of its own, for tests that signal it and kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.double import Door

PATIENCE = 120.0
"""Seconds after which a process that should have ended hangs."""

MANIFEST = """\
version: 1
batch: night
defaults: {{model: kling-3-0-turbo, duration: 5}}
limits: {{submits_per_minute: 60000, in_flight: {in_flight}}}
output: {{dir: out}}
{more}
shots:
  - {{id: clip, prompt: a dog on a boat, takes: {jobs}}}
"""


class Running:
    """A call under way, with `--json`: its events are read as they come."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._errors = errors

    def next(self) -> dict[str, Any] | None:
        """The next event; None where the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            return None
        event: dict[str, Any] = json.loads(line)
        self.events.append(event)
        return event

    def until(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th event of that name, from now."""
        while (event := self.next()) is not None:
            count -= event["event"] == name
            if not count:
                return event
        raise AssertionError(f"it ended without {name}: {self._errors.read_text()}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`, and what was printed until then is thrown away."""
        self.process.kill()
        self.end()

    def end(self) -> int:
        """Wait for its end; the exit code."""
        while self.next() is not None:
            pass
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert code != 70, self._errors.read_text()
        return code


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Attributes:
    folder: the current folder of every call.
    environment: what is set besides.
    """

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path, door: Door | None = None) -> CommandLine:
        return cls(folder, door.environment if door is not None else {})

    def write(self, jobs: int, *, in_flight: int = 50, more: str = "") -> Path:
        """A manifest of so many jobs of 630 credits; returns where it is."""
        path = self.folder / "night.yaml"
        path.write_text(MANIFEST.format(jobs=jobs, in_flight=in_flight, more=more))
        return path

    @property
    def db(self) -> Path:
        return self.folder / "batchrunner.db"

    @property
    def outputs(self) -> Path:
        return self.folder / "out"

    def start(self, *arguments: str, under: Sequence[str] = ()) -> Running:
        """Begin a call, under another program where one is named; `--json` is added."""
        errors = self.folder / "stderr"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "batchrunner", *arguments, "--json"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        return Running(process, errors)

    def call(self, *arguments: str) -> int:
        """A whole call; the exit code."""
        return self.start(*arguments).end()

    def ask(self, *arguments: str) -> Any:
        """The JSON that a call prints, which ends with 0."""
        done = subprocess.run(
            [sys.executable, "-m", "batchrunner", *arguments, "--json"],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        return json.loads(done.stdout)

    def _environment(self) -> dict[str, str]:
        ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_"))}
        return ours | {"HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state")} | dict(self.environment)
