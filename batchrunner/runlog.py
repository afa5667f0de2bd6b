"""`--log-file`: what happens in a run, a JSON object a line, for programs that collect logs.

The file is the user's to rotate. It is only ever appended to, and opened anew when another (or none) stands under its
name, so that renaming it (logrotate's `create`) and emptying it (`copytruncate`) both work, without a signal.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from .app import RunResult, Watcher
from .core.job import Job
from .core.secret import hide
from .engine.clock import iso, wall
from .engine.ports import Tally
from .exits import UsageError


class Level(IntEnum):
    """How much a line matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


QUIET = frozenset({"claimed", "progress", "completed"})
"""What is of interest to those who look for a fault only."""

WARNINGS = frozenset(
    {
        *("ambiguous", "bug", "grace_over", "hold", "left_behind", "limits", "linkdied", "log_dropped", "not_sent"),
        *("notify_failed", "notsent", "output_renamed", "poll_failed", "refused", "stopping", "throttled"),
        *("unknown_status", "interrupted", "taskfailed"),
    }
)
"""What a person may want to know; an error where it ended a job."""

ERRORS = frozenset({"unrecorded", "bug", "rejected", "vanished"})


def level_of(event: str, data: Mapping[str, Any]) -> Level:
    if event in ERRORS or data.get("state") in ("failed", "unconfirmed"):
        return Level.ERROR
    if event in WARNINGS:
        return Level.WARNING
    return Level.DEBUG if event in QUIET else Level.INFO


class LogFile:
    """Lines appended to a file. Writing never raises."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UsageError: it can't be opened, or is something that is no log.
        """
        self.path = path
        self._torn = False
        try:
            self._fd = self._open()
            self._identity = self._check()
        except OSError as error:
            raise UsageError(f"can't write the log {path}: {error.strerror}") from None

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)

    def _check(self) -> tuple[int, int]:
        """Refuse to append to what is no log: a manifest or a ledger that was named by mistake."""
        found = os.fstat(self._fd)
        if stat.S_ISREG(found.st_mode) and found.st_size:
            with self.path.open("rb") as file:
                if file.read(1) not in b"{\n":
                    os.close(self._fd)
                    raise UsageError(f"{self.path} is no log of JSON lines; --log-file would spoil it, name another")
        return found.st_dev, found.st_ino

    def write(self, line: bytes) -> bool:
        """Append a line; False where that failed."""
        try:
            self._follow()
            data = b"\n" * self._torn + line
            written = os.write(self._fd, data)
        except OSError:
            written, data = 0, line
        if written:
            self._torn = written != len(data)
        return written == len(data)

    def _follow(self) -> None:
        """Open the file anew where another stands under its name."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            descriptor = self._open()
            os.close(self._fd)
            self._fd = descriptor
            now = os.fstat(descriptor)
            self._identity, self._torn = (now.st_dev, now.st_ino), False

    def close(self) -> None:
        os.close(self._fd)


class RunLog(Watcher):
    """Writes down what another watcher is told. Without a file it only hands on."""

    def __init__(
        self,
        inner: Watcher,
        file: LogFile | None = None,
        level: Level = Level.INFO,
        secrets: Iterable[str] = (),
        now: Callable[[], float] = wall,
    ) -> None:
        self._inner = inner
        self._file = file
        self._level = level
        self._secrets = tuple(secrets)
        self._now = now
        self._run: int | None = None
        self._batches: Mapping[int, str] = {}
        self._dropped = 0
        self._told = 0

    def started(self, run_id: int, batches: Mapping[int, str]) -> None:
        self._run, self._batches = run_id, batches
        self._inner.started(run_id, batches)

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        self.note("run_started", batches=list(batches), states={s.value: n for s, n in tally.states.items() if n})
        self._inner.begin(batches, tally)

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        self.note(name, job, **data)
        try:
            self._inner.event(name, job, **data)
        except OSError:  # whoever read it has gone; the log goes on
            self._inner = Watcher()

    def ended(self, result: RunResult) -> None:
        """The run's end."""
        for batch in result.batches:
            credits_ = {name: batch["credits"][name] for name in ("spent", "reserved", "at_risk")}
            states = {state: n for state, n in batch["states"].items() if n}
            self.note("batch_ended", batch=batch["batch"], states=states, credits=credits_)
        stop = result.stop.value if result.stop else None
        self.note("run_ended", exit_code=result.exit_code, stop=stop, message=result.message)
        self._inner.ended(result)

    def note(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        """A line for the log alone."""
        if self._file is None or (level := level_of(event, data)) < self._level:
            return
        missing = self._dropped - self._told
        if missing and self._write(Level.WARNING, "log_dropped", {"lines": missing}):
            self._told = self._dropped
        self._dropped += not self._write(level, event, {**self._of_job(job), **data})

    def _of_job(self, job: Job | None) -> dict[str, Any]:
        if job is None:
            return {}
        fact = job.fact
        found = {"batch": self._batches.get(job.batch_id), "job": job.key, "job_id": job.id, "attempt": fact.attempt}
        task = getattr(fact, "task_id", None)
        return found if task is None else {**found, "task_id": task}

    def _write(self, level: Level, event: str, fields: Mapping[str, Any]) -> bool:
        assert self._file is not None  # noqa: S101  asked before
        whole = {"ts": iso(self._now()), "level": level.name.lower(), "run": self._run, "event": event, **fields}
        line = hide(json.dumps(whole, default=str), self._secrets)
        return self._file.write(line.encode() + b"\n")

    def close(self) -> int:
        """Returns how many lines could not be written."""
        if self._file is None:
            return 0
        self._file.close()
        return self._dropped
