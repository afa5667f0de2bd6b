"""What a user sees when the disk fails in the middle of a night: the real command line, the real system calls."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.checks import Books, check_end, check_now
from tests.crash.command_line import CommandLine, Running
from tests.double import Account, Double, Plan, Rule
from tests.system.conftest import mount
from tests.system.player import FILLER

HELD = Plan([Rule("media", "hold", task=0, last=99)], polls=1)
"""Downloads wait until the test has broken something."""


class Night:
    """A command line, its account, and what holds of both."""

    def __init__(self, double: Double, folder: Path) -> None:
        self.double = double
        self.name = re.sub(r"[^a-z0-9]+", "-", str(folder).lower()).strip("-")
        self.line = CommandLine.at(folder, double.open(self.name, HELD))
        self.line.write(2)

    @property
    def account(self) -> Account:
        return self.double.account(self.name)

    def finish(self, *words: str) -> None:
        """On a machine that works all of it comes home, and nothing is paid for again."""
        assert self.line.call(*(words or ("run", "night.yaml"))) == 0
        books = Books(self.line.db, self.line.folder / "copy")
        assert check_now(books, self.account, self.line.outputs, None) == []
        assert check_end(books, self.account, self.line.outputs, 0, None) == []
        assert len(self.account.posts) == 2


@pytest.fixture
def night(double: Double, tmp_path: Path) -> Night:
    return Night(double, tmp_path)


def stopped(night: Night, run: Running, told: str) -> None:
    """It says that nothing more is submitted, and why; it may try again for minutes (`tests/system/test_disk.py`),
    so it is interrupted, unless it has seen already that it can't. What was not fetched is left for the next run."""
    event = run.until("stopping")
    assert event["reason"] == "disk"
    assert told in event["message"]
    run.signal(signal.SIGINT)
    assert run.end() in {130, 4}
    assert "Traceback" not in (night.line.folder / "stderr").read_text()
    states = Books(night.line.db, night.line.folder / "copy").states()
    assert states.get("downloading", 0) + states.get("running", 0) >= 1


def test_the_output_folder_vanishes(night: Night) -> None:
    """It is made anew: what was paid for comes home."""
    run = night.line.start("run", "night.yaml")
    run.until("completed", 2)
    shutil.rmtree(night.line.outputs, ignore_errors=True)
    night.double.release(night.name)

    assert run.end() == 0
    night.finish()


def test_the_output_folder_becomes_a_file(night: Night) -> None:
    run = night.line.start("run", "night.yaml")
    run.until("completed", 2)
    shutil.rmtree(night.line.outputs, ignore_errors=True)
    night.line.outputs.write_text("mine")
    night.double.release(night.name)

    stopped(night, run, "out")
    assert night.line.outputs.read_text() == "mine"
    night.line.outputs.unlink()
    night.finish()


@pytest.fixture
def medium_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has more room than a run asks for, and can be filled."""
    folder = tmp_path / "out"
    folder.mkdir()
    problem = mount(folder, "size=130m")
    if problem:
        pytest.skip(f"a disk that fills up is not tested here: no tmpfs can be mounted ({problem})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_output_disk_fills_up(night: Night, medium_disk: Path) -> None:
    run = night.line.start("run", "night.yaml")
    run.until("completed", 2)
    take(medium_disk)
    night.double.release(night.name)

    stopped(night, run, "No space left on device")
    assert [p.name for p in medium_disk.glob("*")] == [FILLER], "no half file"
    (medium_disk / FILLER).unlink()
    night.finish()


def take(folder: Path) -> None:
    """Every byte of a tmpfs, without writing each."""
    descriptor = os.open(folder / FILLER, os.O_WRONLY | os.O_CREAT)
    size = os.fstatvfs(descriptor).f_bavail * os.fstatvfs(descriptor).f_frsize
    try:
        while size:
            try:
                os.posix_fallocate(descriptor, 0, size)
                break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size -= 4096
    finally:
        os.close(descriptor)


def without_ptrace() -> str:
    """Why no system call can be made to fail here; empty for no reason."""
    if shutil.which("strace") is None:
        return "there is no strace"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.mark.parametrize(
    ("call", "error", "told"), [("fsync", "EIO", "Input/output error"), ("write", "ENOSPC", "No space left on device")]
)
def test_the_system_refuses_a_call(night: Night, call: str, error: str, told: str) -> None:
    """Every such call on one file that is being downloaded."""
    problem = without_ptrace()
    if problem:
        pytest.skip(f"a system call that fails is not tested through the command line: {problem}")
    part = night.line.outputs / "clip-1.mp4.part"
    inject = ["-P", str(part), "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    run = night.line.start("run", "night.yaml", under=["strace", "-D", "-f", "-qq", "-o", os.devnull, *inject])
    night.double.release(night.name)

    stopped(night, run, told)
    assert not part.exists()
    assert not part.with_suffix("").exists()
    night.finish()
