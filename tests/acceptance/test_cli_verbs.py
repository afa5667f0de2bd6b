"""The verbs as a user meets them: the real command line, its own process, the real simulator beside it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchrunner.ledger.files import RunLock

RUNNER = [sys.executable, "-m", "batchrunner"]
MANIFEST = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 5}
shots:
  - {id: dog, prompt: a dog, takes: 3}
  - {id: cat, prompt: a cat}
"""


@dataclass
class Shell:
    """A folder and an environment to call batchrunner in."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*RUNNER, *arguments],
            cwd=self.folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert ran.returncode == code, (arguments, ran.returncode, ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        return ran

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def environment(self, **env: str) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI", "BATCHRUNNER"))}
        return {**kept, "XDG_STATE_HOME": str(self.folder / "state"), **self.env, **env}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def served(shell: Shell) -> Iterator[Shell]:
    """With a simulator that loses the answer of the first POST, and fails the first two tasks: that one and another."""
    faults = ["--fault", "drop_after=next:1", "--fault", "fail=next:2:80001"]
    with subprocess.Popen(
        [*RUNNER, "simulate", "--median", "0.2", "--clips", "tiny", *faults],
        cwd=shell.folder,
        env=shell.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().strip() for _ in range(3)]
            assert lines[0].startswith("http://127.0.0.1:")
            assert lines[1] == f"export REAPI_BASE_URL={lines[0]}"
            exported = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
            assert set(exported) == {"REAPI_BASE_URL", "REAPI_API_KEY"}
            yield Shell(shell.folder, exported)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


def test_a_first_evening(shell: Shell) -> None:
    """init, validate, plan, look: nothing is made beside the manifest."""
    shell("init", "first.yaml")
    shell("init", "first.yaml", code=2)
    assert shell("validate", "first.yaml").stdout.startswith("first.yaml: valid, batch first, 3 jobs")
    assert shell.json("plan", "first.yaml")["summary"]["usd"] == "1.89"
    assert shell.json("status") == {"batches": []}
    assert shell.json("jobs") == []
    assert [p.name for p in shell.folder.iterdir()] == ["first.yaml"]


def test_a_night_with_a_lost_answer_and_a_failure(served: Shell) -> None:
    """Run into trouble, look at it, say a word, and finish without paying for anything twice unasked."""
    (served.folder / "night.yaml").write_text(MANIFEST)
    assert served.json("doctor")["ok"] is True
    served("run", "night.yaml", "--json", code=3)

    status = served.json("status", "night")
    assert status["states"]["unconfirmed"] == 1
    assert status["states"]["failed"] == 1
    assert status["states"]["succeeded"] == 2
    assert status["credits"]["at_risk"] == 630
    text = served("status").stdout
    assert "batchrunner resolve JOB" in text
    assert "batchrunner retry night" in text
    assert served.json("plan", "night.yaml")["summary"] == {
        "new": 0,
        "changed": 0,
        "unchanged": 3,
        "in_flight": 1,
        "removed": 0,
        "credits": 0,
        "usd": "0.00",
    }

    (doubt,) = served.json("jobs", "--state", "unconfirmed")
    (failed,) = served.json("jobs", "night", "--state", "failed")
    assert doubt["error"]["kind"] == "ambiguous"
    assert failed["error"]["kind"] == "provider"
    assert failed["credits"] == 0
    assert [h["to"] for h in served.json("show", doubt["job"])["history"]] == ["pending", "submitting", "unconfirmed"]
    done = served.json("jobs", "--state", "succeeded")[0]
    assert Path(served.json("show", done["job"])["sidecar"]).is_file()

    served("resolve", failed["job"], "--abandon", code=2)
    taken = served("resolve", doubt["job"], "--task-id", done["task_id"], code=2)
    assert f"belongs to job {done['job']} already" in taken.stderr
    assert served.json("retry", "night")["retried"] == [{"batch": "night", "job": failed["job"]}]
    assert served.json("plan", "night.yaml")["summary"]["credits"] == 630
    served("resolve", doubt["job"], "--resubmit", "--why", "not in the list")
    served("resume", "night")
    after = served.json("status", "night")
    assert after["states"]["succeeded"] == 4
    assert after["credits"] == {**status["credits"], "spent": 4 * 630, "at_risk": 630, "reserved": 0}


def test_withdrawn_before_it_was_sent(served: Shell) -> None:
    (served.folder / "night.yaml").write_text(MANIFEST)
    served("run", "night.yaml", "--limit", "1", code=3)
    assert [j["job"] for j in served.json("cancel", "cat*")["cancelled"]] == ["cat-1"]
    assert served.json("status", "night")["states"]["cancelled"] == 1


def test_readers_work_and_words_wait_beside_a_run(served: Shell) -> None:
    (served.folder / "night.yaml").write_text(MANIFEST)
    served("run", "night.yaml", code=3)
    lock = RunLock(served.folder / "batchrunner.db")
    lock.acquire()
    try:
        for verb in (["status"], ["jobs"], ["show", "cat-1"], ["plan", "night.yaml"], ["doctor"]):
            served(*verb)
        for word in (["retry", "night"], ["cancel", "night"], ["resolve", "dog-1", "--abandon"]):
            assert "another batchrunner" in served(*word, code=5).stderr
    finally:
        lock.release()


def test_simulated_work_has_a_ledger_of_its_own(shell: Shell) -> None:
    (shell.folder / "night.yaml").write_text(MANIFEST)
    shell("run", "night.yaml", "--simulate", "--json")
    assert "use --db batchrunner.sim.db" in shell("status").stdout
    assert shell.json("status", "night", "--db", "batchrunner.sim.db")["states"]["succeeded"] == 4
    named = shell("jobs", "--csv", BATCHRUNNER_DB="batchrunner.sim.db").stdout
    assert named.count("succeeded") == 4


def test_the_simulator_refuses_what_it_can_not_do(shell: Shell) -> None:
    assert "did you mean drop_after?" in shell("simulate", "--fault", "drop_aftr=1", code=2).stderr
    shell("simulate", "--host", "0.0.0.0", code=2)
    shell("simulate", "--port", "70000", code=2)


def test_a_reader_that_leaves_early_is_no_error(shell: Shell) -> None:
    (shell.folder / "night.yaml").write_text(MANIFEST.replace("takes: 3", "takes: 2000"))
    with subprocess.Popen(
        [*RUNNER, "plan", "night.yaml", "--json"],
        cwd=shell.folder,
        env=shell.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=60)


def test_any_locale_prints_any_prompt(served: Shell) -> None:
    (served.folder / "night.yaml").write_text(MANIFEST.replace("a cat", "'猫 é'"), "utf-8")
    served("run", "night.yaml", code=3)
    for encoding in ("ascii", "latin-1", "utf-8"):
        shell = Shell(served.folder, {"PYTHONIOENCODING": encoding})
        shell("plan", "night.yaml")
        show = [*RUNNER, "show", "cat-1"]
        ran = subprocess.run(
            show, cwd=shell.folder, env=shell.environment(), capture_output=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        shown = "\\u732b" if encoding == "latin-1" else "猫"  # click takes ASCII for a mistake, and prints UTF-8
        assert shown.encode() in ran.stdout
        assert shell.json("show", "cat-1")["request"]["prompt"] == "猫 é"


def test_the_shell_completes(served: Shell) -> None:
    (served.folder / "night.yaml").write_text(MANIFEST)
    served("run", "night.yaml", code=3)
    words = "batchrunner show --db batchrunner.db d"
    offered = served(_BATCHRUNNER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="4").stdout.splitlines()
    assert offered == ["plain,dog-1", "plain,dog-2", "plain,dog-3"]


# --- On a terminal ---------------------------------------------------------------------------------------


def on_terminal(shell: Shell, *arguments: str, **env: str) -> str:
    """What a call writes to a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    environment = shell.environment(TERM="xterm", COLUMNS="60", **env)
    with subprocess.Popen(
        [*RUNNER, *arguments], cwd=shell.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the last writer has gone
                break
            if not part:
                break
            seen += part
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return seen.decode()


def test_a_terminal_gets_colours_and_lines_that_fit(served: Shell) -> None:
    (served.folder / "night.yaml").write_text(MANIFEST)
    served("run", "night.yaml", code=3)
    coloured = on_terminal(served, "jobs", NO_COLOR="")
    assert "\x1b[32msucceeded\x1b[0m" in coloured
    plain = on_terminal(served, "jobs", NO_COLOR="1")
    assert "\x1b" not in plain
    assert max(len(line.rstrip()) for line in plain.splitlines()) == 60
    assert "\x1b" not in served("jobs").stdout
    assert "50 % done" in on_terminal(served, "status", "--watch")
