"""The files of `deploy/`: what they run is understood, nothing secret is in them, and whoever ends has the time for it.

What a schema or another program says of them is looked at by `make deploy-check`, which installs those.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_docs_commands import problem

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
POST = 180 + 30
"""Seconds that a POST may take, and the connection before it (providers/http.py)."""

UNIT = DEPLOY / "systemd/batchrunner-worker@.service"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod of the Kubernetes example."""
    for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        if "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def setting(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_every_command_is_understood() -> None:
    calls = [one["command"] for one in compose()["services"].values() if "command" in one]
    calls += [container["args"] for _, pod in pods() for container in containers(pod) if "args" in container]
    calls += [shlex.split(setting("ExecStart")[0])]
    remarks = re.findall(r"^#.*\b(batchrunner \S.*?)(?: {3,}|$)", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    calls += [["batchrunner", *shlex.split(one)[1:]] for one in remarks if "compose" not in one.split("batchrunner")[0]]

    ours = [call[1:] for call in calls if call[0].endswith("batchrunner") and call[1:]]
    assert len(ours) >= 7
    assert [problem(call, typed=False) for call in ours] == [""] * len(ours)


def test_who_ends_has_the_time_for_what_is_on_the_wire() -> None:
    assert compose()["services"]["worker"]["stop_grace_period"] == "5m"
    assert setting("TimeoutStopSec") == ["5min"]
    assert setting("KillSignal") == ["SIGTERM"]
    grace = {name: pod.get("terminationGracePeriodSeconds", 30) for name, pod in pods()}
    assert grace["batchrunner-worker"] >= POST + 60


def test_nothing_runs_as_root_or_writes_where_it_need_not() -> None:
    for name, service in compose()["services"].items():
        if name != "postgres":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
            assert service["security_opt"] == ["no-new-privileges:true"]
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            how = container["securityContext"]
            assert (how["readOnlyRootFilesystem"], how["allowPrivilegeEscalation"]) == (True, False)
            assert how["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "10001:10001"


def test_no_secret_is_in_them() -> None:
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search(r"PASSWORD|KEY|TOKEN|SECRET", variable)
            assert not secret or variable.endswith("_FILE"), (name, variable)
            assert "://" not in value or ":" not in value.partition("://")[2].partition("@")[0], "a password"
    for _, pod in pods():
        for container in containers(pod):
            for one in container.get("env", []):
                assert "valueFrom" in one or not re.search(r"PASSWORD|KEY|TOKEN|SECRET", one["name"])
    for one in yaml.safe_load_all((DEPLOY / "kubernetes-secrets.yaml").read_text()):
        assert set(one["stringData"].values()) == {""}
    assert not re.findall(
        r"^(?:ENV|ARG) .*(?:PASSWORD|KEY|TOKEN)", (DEPLOY / "Containerfile").read_text(), re.MULTILINE
    )
    assert [
        line
        for line in (DEPLOY / "systemd/worker.env").read_text().splitlines()
        if re.match(r"\w*(KEY|PASSWORD)=.", line)
    ] == []


def test_what_the_image_is_made_of_is_there() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, _ = [word for word in words.split() if not word.startswith("--")]
        assert [source for source in sources if not (ROOT / source).exists()] == []
    assert 'ENTRYPOINT ["tini", "--", "batchrunner-entrypoint"]' in text, "a list: a shell would keep the signals"


def test_the_entrypoint_reads_secrets_from_files_and_steps_aside(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("rk_from a $file\n")
    entry = [str(DEPLOY / "entrypoint.sh"), "sh", "-c", 'echo "$REAPI_API_KEY|${REAPI_API_KEY_FILE-gone}|$$"']

    done = subprocess.Popen(
        entry,
        env={"REAPI_API_KEY_FILE": str(tmp_path / "key"), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = done.communicate(timeout=30)
    nowhere = subprocess.run(
        entry, env={"PGPASSWORD_FILE": "/nowhere", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=30
    )

    assert out == f"rk_from a $file|gone|{done.pid}\n", "the command has the entrypoint's process"
    assert (nowhere.returncode, nowhere.stderr) == (2, "PGPASSWORD_FILE: can't read /nowhere\n")


def test_what_systemd_does_when_a_worker_ends() -> None:
    assert (setting("Restart"), setting("RestartPreventExitStatus")) == (["always"], [])
    assert setting("StartLimitIntervalSec") == ["0"]
    assert setting("SuccessExitStatus") == ["143"]
    assert setting("Environment") == ["XDG_STATE_HOME=%S/batchrunner"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/batchrunner/bin/batchrunner", shutil.which("true") or ""))

    found = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        timeout=60,
    )

    ours = [line for line in found.stderr.splitlines() if "batchrunner" in line]
    assert (found.returncode, ours) == (0, [])
    assert said.returncode == 0, said.stdout[-300:]
