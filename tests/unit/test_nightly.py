"""What runs a manifest every night: systemd takes the units, and what they run is the night that was meant."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from batchrunner import nightly
from tests.cli_support import MANIFEST, Ran, call
from tests.double import Double, Plan

ODD = "a b%h $HOME \"q' [x]* \\ é"
"""A folder's name with all that systemd, a shell and cron could take for something else."""


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str | Path, name: str = "night.yaml") -> Ran:
    """`init --nightly` in a folder."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    (folder / name).write_text(MANIFEST)
    return call("init", "--nightly", name, *more)


def settings(text: str) -> dict[str, list[str]]:
    """A unit's settings."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def words(command: str) -> list[str]:
    """A command line as systemd reads it: quotes and backslashes as a shell has them, `%%` for `%`, and behind `:` no
    variables."""
    assert command.startswith(":")
    return [word.replace("%%", "%") for word in shlex.split(command[1:])]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("name", ["plain", ODD])
@pytest.mark.parametrize("system", [False, True])
def test_systemd_takes_them(name: str, system: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    ran = make(folder, monkeypatch, "--to", "u", *(["--system"] if system else []), name="100 % night.yaml")
    assert ran.code == 0, ran.err
    units = [folder / "u/batchrunner-night.service", folder / "u/batchrunner-night.timer"]

    found = subprocess.run(
        ["systemd-analyze", *([] if system else ["--user"]), "verify", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    ours = [line for line in found.stderr.splitlines() if "batchrunner" in line]
    assert (found.returncode, ours) == (0, [])


def test_the_file_for_the_key_is_for_its_owner_only_and_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAPI_API_KEY", "rk_canary_0123456789")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    before = os.umask(0)
    try:
        ran = make(tmp_path, monkeypatch)
    finally:
        os.umask(before)

    assert ran.code == 0, ran.err
    written = [p for p in (tmp_path / "config").rglob("*") if p.is_file()]
    assert {p.relative_to(tmp_path / "config").as_posix() for p in written} == {
        "batchrunner/night.env",
        "systemd/user/batchrunner-night.service",
        "systemd/user/batchrunner-night.timer",
    }
    assert all("canary" not in p.read_text() for p in written)
    key = tmp_path / "config/batchrunner/night.env"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert settings(key.read_text()) == {"REAPI_API_KEY": [""]}
    assert "canary" not in ran.out


def test_nothing_is_overwritten_and_a_key_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(tmp_path, monkeypatch, "--to", "u").code == 0
    key, service = tmp_path / "u/night.env", tmp_path / "u/batchrunner-night.service"
    key.write_text("REAPI_API_KEY=rk_mine\n")
    service.write_text("mine")

    again = make(tmp_path, monkeypatch, "--to", "u")
    assert again.code == 2
    assert "batchrunner-night.service exists and is never overwritten" in again.err

    service.unlink()
    (tmp_path / "u/batchrunner-night.timer").unlink()
    assert make(tmp_path, monkeypatch, "--to", "u").code == 0
    assert key.read_text() == "REAPI_API_KEY=rk_mine\n"
    assert service.read_text() != "mine"


def test_a_link_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u/batchrunner-night.timer").symlink_to(tmp_path / "elsewhere")
    assert make(tmp_path, monkeypatch, "--to", "u").code == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        (0, "done"),
        (1, "failed"),
        (2, "failed"),
        (3, "failed"),
        (4, "failed"),
        (5, "again"),
        (6, "again"),
        (70, "again"),
        (130, "done"),
        (143, "done"),
    ],
)
def test_what_systemd_does_at_each_exit_code(
    code: int, fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, monkeypatch, "--to", "u")
    unit = settings((tmp_path / "u/batchrunner-night.service").read_text())

    assert unit["Restart"] == ["on-failure"]
    done = {"0", *unit["SuccessExitStatus"][0].split()}
    kept = set(unit["RestartPreventExitStatus"][0].split())
    found = "done" if str(code) in done else "failed" if str(code) in kept else "again"
    assert found == fate
    assert unit["KillSignal"] == ["SIGTERM"]
    assert unit["StandardOutput"] == unit["StandardError"] == ["journal"]


def test_stopping_has_time_for_what_is_on_the_wire() -> None:
    from batchrunner.engine.send import RECORD_PATIENCE
    from batchrunner.providers.reapi import ReApiSettings

    patience = ReApiSettings(base_url="https://reapi.ai", key="rk_x")
    longest = patience.submit_timeout + patience.connect_timeout + RECORD_PATIENCE
    assert longest < 300.0
    assert "TimeoutStopSec=5min" in nightly.SERVICE


def test_a_service_of_the_machine_may_write_where_it_has_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(tmp_path, monkeypatch, "--system", "--to", "u", "--db", tmp_path / "x/l.db").code == 0
    unit = settings((tmp_path / "u/batchrunner-night.service").read_text())
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["ReadWritePaths"] == [str(tmp_path)], "neither x nor outputs is there yet"
    assert unit["User"] == [tmp_path.owner()]
    assert settings((tmp_path / "u/batchrunner-night.timer").read_text())["OnCalendar"] == ["*-*-* 22:00:00"]


def test_who_is_told_is_thought_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sendmail that sets its group can't write to its queue from a sandbox; a webhook's address is a secret."""
    monkeypatch.chdir(tmp_path)
    sinks = "notify:\n  - webhook: {url_env: HOOK}\n  - command: [date]\n  - mail: {to: [me]}\n"
    (tmp_path / "night.yaml").write_text(MANIFEST + sinks)
    assert call("init", "--nightly", "night.yaml", "--to", "u").code == 0
    assert settings((tmp_path / "u/night.env").read_text()) == {
        "REAPI_API_KEY": [""],
        "HOOK": [""],
        "BATCHRUNNER_ALLOW_COMMANDS": ["0"],
    }
    unit = settings((tmp_path / "u/batchrunner-night.service").read_text())
    assert "NoNewPrivileges" not in unit
    assert "SystemCallFilter" not in unit


@pytest.mark.parametrize("name", ["line\nfeed", "end\\", "end ", "bell\x07", "b\u202eidi"])
def test_what_no_unit_can_name_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = make(tmp_path / name, monkeypatch, "--to", tmp_path / "u")
    assert ran.code == 2
    assert "rename it" in ran.err
    assert not (tmp_path / "u").exists()
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--at", "06:00"], "are the same time"),
        (["--at", "26:00"], "is not a local time"),
        (["other.yaml"], "other.yaml is one too many"),
    ],
)
def test_mistakes(more: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = make(tmp_path, monkeypatch, *more)
    assert ran.code == 2
    assert said in ran.err


def test_a_manifest_with_a_mistake_gets_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("version: 1\nbatch: night\nshots: [{id: a}]\n")
    assert call("init", "--nightly", "bad.yaml", "--to", "u").code == 2
    assert not (tmp_path / "u").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u").write_text("a file")
    ran = make(tmp_path, monkeypatch, "--to", "u/v")
    assert ran.code == 2
    assert "can't write" in ran.err


# --- The night itself ------------------------------------------------------------------------------------


def shifted(clock: str) -> str:
    """A time zone in which it is that late now: systemd, cron and batchrunner all read the clock through it."""
    now, wanted = datetime.datetime.now(datetime.UTC), datetime.time.fromisoformat(clock)
    minutes = (wanted.hour * 60 + wanted.minute) - (now.hour * 60 + now.minute)
    minutes = (minutes + 720) % 1440 - 720
    return f"XXX{'-' if minutes >= 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def test_a_night_by_the_unit_and_by_cron(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's command at nine in the morning, when a machine was off all night: nothing is sent. Cron's line at
    eleven in the evening: all of it."""
    folder = tmp_path / ODD
    ran = make(folder, monkeypatch, "--to", "u")
    assert ran.code == 0, ran.err
    name = re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")
    door = double.open(name, Plan(polls=1))
    (folder / "u/night.env").write_text(f"REAPI_API_KEY={door.key}\nREAPI_BASE_URL={door.url}\n")
    unit = settings((folder / "u/batchrunner-night.service").read_text())
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_"))}

    morning = subprocess.run(
        words(unit["ExecStart"][0]),
        cwd=unit["WorkingDirectory"][0].replace("%%", "%"),
        env={**ours, "REAPI_API_KEY": door.key, "REAPI_BASE_URL": door.url, "TZ": shifted("09:00")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (morning.returncode, double.account(name).posts) == (4, []), morning.stderr
    assert "stopped early (deadline)" in morning.stdout

    line = next(line for line in ran.out.splitlines() if line.startswith("  0 22 * * *  "))
    evening = subprocess.run(
        ["/bin/sh", "-c", line.removeprefix("  0 22 * * *  ").replace(r"\%", "%")],
        cwd="/",
        env={**ours, "TZ": shifted("23:00")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert evening.returncode == 0, evening.stderr
    assert len(double.account(name).posts) == 3
    assert "3 succeeded" in evening.stdout
    assert sorted(p.name for p in (folder / "outputs/night").glob("*.mp4")) == ["cat-1.mp4", "dog-1.mp4", "dog-2.mp4"]


@pytest.mark.skipif(
    shutil.which("faketime") is None, reason="faketime is not on this machine (apt-get install faketime)"
)
def test_the_unit_at_two_in_the_morning(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the unit starts, in its folder and with its environment file alone, under a clock that comes to 02:00 in the
    night in which clocks go forward: everything is done, and written down at that time. At seven another shot waits."""
    folder = tmp_path / "studio"
    assert make(folder, monkeypatch, "--to", "u").code == 0
    name = re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")
    door = double.open(name, Plan(polls=1))
    (folder / "u/night.env").write_text(f"REAPI_API_KEY={door.key}\nREAPI_BASE_URL={door.url}\n")
    unit = settings((folder / "u/batchrunner-night.service").read_text())
    [environment] = unit["EnvironmentFile"]

    def start(at: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["faketime", "-f", f"@{at}", *words(unit["ExecStart"][0])],
            cwd=unit["WorkingDirectory"][0],
            env={
                **dict(line.split("=", 1) for line in Path(environment).read_text().splitlines()),
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "TZ": "Europe/Berlin",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as on a machine whose clock was set
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    night = start("2027-03-28 01:59:58")
    assert night.returncode == 0, night.stderr
    assert "3 succeeded" in night.stdout
    began = datetime.datetime(2027, 3, 28, 0, 59, 58, tzinfo=datetime.UTC).timestamp()
    times = [step["at"] for step in call("show", "dog-1", "--json").json["history"]]
    assert all(began <= at < began + 600 for at in times)

    with (folder / "night.yaml").open("a") as manifest:
        manifest.write("  - {id: cow, prompt: a cow}\n")
    morning = start("2027-03-28 07:00:00")
    assert morning.returncode == 4, morning.stderr
    assert "stopped early (deadline)" in morning.stdout
    assert len(double.account(name).posts) == 3
