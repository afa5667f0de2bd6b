"""The log of a run: every line whole, one JSON object each, whoever rotates the file and however full the disk is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from batchrunner.app import RunResult, Watcher
from batchrunner.core.job import Job, Pending, Running, State
from batchrunner.engine.control import Stop
from batchrunner.engine.ports import Tally
from batchrunner.exits import UsageError
from batchrunner.runlog import Level, LogFile, RunLog, level_of

JOB = Job(7, 2, "dog-1", "reapi", "m", {"prompt": "a secret prompt"}, 630, "dog-1", False, Running(3, "task_9"))
UNSENT = Job(8, 2, "cat-1", "reapi", "m", {}, 630, "cat-1", False, Pending())


def log_at(path: Path, level: Level = Level.INFO, inner: Watcher | None = None, **more: Any) -> RunLog:
    log = RunLog(inner or Watcher(), LogFile(path), level, now=lambda: 1_800_000_000.25, **more)
    log.started(12, {2: "night"})
    return log


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_says_who_and_when(tmp_path: Path) -> None:
    path = tmp_path / "night.log"
    log = log_at(path)
    log.begin(["night"], Tally({State.PENDING: 2, State.FAILED: 0}))
    log.event("accepted", JOB, state="running", task_id="task_9", request_id="req_4")
    log.event("taskfailed", JOB, state="failed", error={"code": 1, "message": "\x1b[2J\u202e\n", "request_id": "req_5"})
    log.event("throttled", UNSENT, state="pending", error={"request_id": "req_6"})
    status = {"batch": "night", "states": {"failed": 1, "running": 0}, "credits": {"spent": 1, "reserved": 0}}
    status["credits"] |= {"at_risk": 0, "estimated": 5, "max": None}  # type: ignore[operator]
    log.ended(RunResult(1, [status], Stop.DISK, "full"))
    assert log.close() == 0

    at = {"ts": "2027-01-15T08:00:00.250Z", "run": 12}
    job = {"batch": "night", "job": "dog-1", "job_id": 7, "attempt": 3, "task_id": "task_9"}
    started, accepted, failed, throttled, batch, ended = lines(path)
    assert started == {**at, "level": "info", "event": "run_started", "batches": ["night"], "states": {"pending": 2}}
    assert accepted == {
        **at,
        **job,
        "level": "info",
        "event": "accepted",
        "state": "running",
        "request_id": "req_4",
    }
    assert failed["level"] == "error"
    assert failed["error"] == {"code": 1, "message": "\x1b[2J\u202e\n", "request_id": "req_5"}
    assert (throttled["level"], throttled["job"], "task_id" in throttled) == ("warning", "cat-1", False)
    assert (batch["states"], batch["credits"]) == ({"failed": 1}, {"spent": 1, "reserved": 0, "at_risk": 0})
    assert (ended["event"], ended["exit_code"], ended["stop"]) == ("run_ended", 1, "disk")
    raw = path.read_bytes()
    assert raw.isascii()
    assert all(byte >= 0x20 or byte == 0x0A for byte in raw)
    assert b"secret prompt" not in raw
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("event", "data", "level"),
    [
        ("progress", {}, Level.DEBUG),
        ("claimed", {"state": "submitting"}, Level.DEBUG),
        ("stored", {"state": "succeeded"}, Level.INFO),
        ("something new", {}, Level.INFO),
        ("hold", {}, Level.WARNING),
        ("taskfailed", {"state": "pending"}, Level.WARNING),
        ("taskfailed", {"state": "failed"}, Level.ERROR),
        ("ambiguous", {"state": "unconfirmed"}, Level.ERROR),
        ("unrecorded", {}, Level.ERROR),
    ],
)
def test_levels(event: str, data: dict[str, Any], level: Level) -> None:
    assert level_of(event, data) is level


@pytest.mark.parametrize("level", list(Level))
def test_less_is_left_out(level: Level, tmp_path: Path) -> None:
    log = log_at(tmp_path / "l", level)
    for event in ("progress", "stored", "hold", "unrecorded"):
        log.event(event)
    log.close()
    assert [line["event"] for line in lines(tmp_path / "l")] == ["progress", "stored", "hold", "unrecorded"][
        list(Level).index(level) :
    ]


def test_the_key_is_hidden(tmp_path: Path) -> None:
    log = log_at(tmp_path / "l", secrets=["rk_canary"])
    log.event("stopping", message="said rk_canary")
    log.close()
    assert "canary" not in (tmp_path / "l").read_text()


# --- Rotation --------------------------------------------------------------------------------------------


def test_a_file_that_is_renamed_is_begun_anew(tmp_path: Path) -> None:
    path, old = tmp_path / "l", tmp_path / "l.1"
    log = log_at(path)
    log.event("stored", n=1)
    path.rename(old)
    log.event("stored", n=2)
    path.rename(tmp_path / "l.2")
    path.write_bytes(b"")  # logrotate's `create`
    path.chmod(0o640)
    log.event("stored", n=3)
    log.close()
    assert [line["n"] for p in (old, tmp_path / "l.2", path) for line in lines(p)] == [1, 2, 3]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_emptied_goes_on_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "l"
    log = log_at(path)
    log.event("stored", n=1)
    os.truncate(path, 0)  # logrotate's `copytruncate`
    log.event("stored", n=2)
    log.close()
    assert [line["n"] for line in lines(path)] == [2]


def test_two_runs_append(tmp_path: Path) -> None:
    for n in (1, 2):
        log = log_at(tmp_path / "l")
        log.event("stored", n=n)
        log.close()
    assert [line["n"] for line in lines(tmp_path / "l")] == [1, 2]


# --- Trouble ---------------------------------------------------------------------------------------------


class Disk:
    """A disk that is full for a while, and one that takes half a line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr("batchrunner.runlog.os.write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return self._write(descriptor, data)
        if not self.room:
            raise OSError(28, "No space left on device")
        taken, self.room = data[: self.room], 0
        return self._write(descriptor, taken)


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "l"
    heard: list[str] = []

    class Inner(Watcher):
        def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
            heard.append(name)

    log = log_at(path, inner=Inner())
    log.event("stored", n=1)
    disk.room = 10  # half of the next line, and nothing after it
    for n in (2, 3, 4):
        log.event("stored", n=n)
    disk.room = None
    log.event("stored", n=5)

    assert log.close() == 3
    first, torn, *rest = path.read_bytes().splitlines()
    assert json.loads(first)["n"] == 1
    assert len(torn) == 10
    assert [(e["event"], e.get("n"), e.get("lines")) for e in map(json.loads, rest)] == [
        ("log_dropped", None, 3),
        ("stored", 5, None),
    ]
    assert heard == ["stored"] * 5


def test_a_folder_that_goes_away_costs_lines_only(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = log_at(folder / "l")
    log.event("stored", n=1)
    (folder / "l").unlink()
    folder.rmdir()
    log.event("stored", n=2)
    folder.mkdir()
    log.event("stored", n=3)
    assert log.close() == 1
    assert [line.get("n") for line in lines(folder / "l")] == [None, 3]


def test_who_reads_beside_it_may_go(tmp_path: Path) -> None:
    class Gone(Watcher):
        def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
            raise BrokenPipeError

    log = log_at(tmp_path / "l", inner=Gone())
    log.event("stored", n=1)
    log.event("stored", n=2)
    log.close()
    assert [line["n"] for line in lines(tmp_path / "l")] == [1, 2]


@pytest.mark.parametrize("content", [b"SQLite format 3\x00", b"version: 1\n", b"\x00"])
def test_what_is_no_log_is_not_appended_to(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "batchrunner.db"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="name another"):
        LogFile(path)
    assert path.read_bytes() == content


def test_a_pipe_that_nobody_reads_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "no" / "l", tmp_path):
        with pytest.raises(UsageError, match="can't write the log"):
            LogFile(path)


def test_without_a_file_it_only_hands_on() -> None:
    log = RunLog(Watcher())
    log.started(1, {})
    log.begin(["night"], Tally())
    log.event("stored")
    assert log.close() == 0
