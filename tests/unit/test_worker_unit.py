"""What runs workers on a host: systemd takes the unit, and what it runs is the worker that was meant."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli_support import Ran, call
from tests.unit.test_docs_commands import problem
from tests.unit.test_nightly import ODD, settings, words

DB = "postgresql://batchrunner_worker:s3cret-0123456789@db.example/night?sslmode=verify-full"


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str, db: str = DB) -> Ran:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return call("init", "--worker", "--to", "u", "--db", db, *more)


def unit(folder: Path) -> Path:
    return folder / "u/batchrunner-worker@.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("name", ["plain", ODD])
def test_systemd_takes_it_and_finds_it_shut_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = make(tmp_path / name, monkeypatch)
    assert ran.code == 0, ran.err

    found, safe = (
        subprocess.run(["systemd-analyze", *words, unit(tmp_path / name)], capture_output=True, text=True, timeout=60)
        for words in (["verify"], ["security", "--offline=true", "--threshold=20"])
    )

    ours = [line for line in found.stderr.splitlines() if "batchrunner" in line]
    assert (found.returncode, ours) == (0, [])
    assert safe.returncode == 0, safe.stdout[-300:]


def test_it_starts_a_worker_again_whatever_happens_and_lets_it_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "100 % nights"
    assert make(folder, monkeypatch).code == 0
    found = settings(unit(folder).read_text())

    program, *rest = words(found["ExecStart"][0])
    assert (Path(program).exists(), problem(rest)) == (True, "")
    assert (found["Restart"], found["StartLimitIntervalSec"], found["SuccessExitStatus"]) == (
        ["always"],
        ["0"],
        ["143"],
    )
    assert "RestartPreventExitStatus" not in found
    assert (found["KillSignal"], found["TimeoutStopSec"]) == (["SIGTERM"], ["5min"])
    assert [path.replace("%%", "%") for path in shlex.split(found["ReadWritePaths"][0])] == [f"-{folder}"]
    assert found["User"] == [folder.owner()]


def test_the_file_for_the_key_is_for_its_owner_only_and_has_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAPI_API_KEY", "rk_canary_0123456789")
    ran = make(tmp_path, monkeypatch)
    key = tmp_path / "u/worker.env"

    assert ran.code == 0, ran.err
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert settings(key.read_text()) == {
        "BATCHRUNNER_DB": ["postgresql://batchrunner_worker@db.example/night?sslmode=verify-full"],
        "PGPASSWORD": [""],
        "REAPI_API_KEY": [""],
    }
    everything = ran.out + ran.err + unit(tmp_path).read_text() + key.read_text()
    assert not re.search("canary|s3cret", everything)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_file = make(tmp_path, monkeypatch, db="night.db")
    assert (in_a_file.code, "postgresql://HOST/NAME" in in_a_file.err) == (2, True)
    with_one = make(tmp_path, monkeypatch, "night.yaml")
    assert (with_one.code, "takes no manifest" in with_one.err) == (2, True)
    assert make(tmp_path, monkeypatch).code == 0
    unit(tmp_path).write_text("mine")
    again = make(tmp_path, monkeypatch)
    assert (again.code, "never overwritten" in again.err, unit(tmp_path).read_text()) == (2, True, "mine")
    monkeypatch.chdir("/")
    everything = call("init", "--worker", "--to", str(tmp_path / "v"), "--db", DB)
    assert (everything.code, "call it in the folder" in everything.err) == (2, True)
