"""A player in a process of its own, and a small disk, for every room of this folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.system.player import Ended, Order, Play

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def play() -> Iterator[Play]:
    """Plays an order, and says how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.system.player"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(order: Order) -> Ended:
        stdin.write(json.dumps(asdict(order)) + "\n")
        stdin.flush()
        return Ended(**json.loads(stdout.readline()))

    yield ask
    stdin.close()
    process.wait(60)
    stdout.close()


def mount(folder: Path, options: str) -> str:
    """Mount a tmpfs; what stood in the way, empty for nothing."""
    if shutil.which("mount") is None:
        return "there is no mount command"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    problem = mount(folder, "size=2m")
    if problem:
        pytest.skip(f"a full disk is not tested here: no tmpfs can be mounted ({problem}); the file-size limit is")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
