"""`run --log-file` and `notify:` through the command line, against the double."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_support import Ran, call
from tests.double import Door, Double, Plan, Rule
from tests.integration.test_notify import Seen, listening

MANIFEST = """\
version: 1
batch: night
defaults: {{model: kling-3-0-turbo, duration: 5}}
limits: {{submits_per_minute: 60000}}
notify:
{notify}
shots:
  - {{id: dog, prompt: a dog, takes: 2}}
"""


class Place:
    """A folder with a manifest, and an account at the double."""

    def __init__(self, folder: Path, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = folder / "night.log"
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for name in list(os.environ):
            if name.startswith(("REAPI_", "BATCHRUNNER_")):
                monkeypatch.delenv(name)
        for name, value in door.environment.items():
            monkeypatch.setenv(name, value)

    def run(self, notify: str, *more: str) -> Ran:
        (self.folder / "night.yaml").write_text(MANIFEST.format(notify=notify))
        return call("run", "night.yaml", "--log-file", str(self.log), *more)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def server() -> Iterator[Seen]:
    with listening() as seen:
        yield seen


def account(tmp_path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")


@pytest.fixture
def place(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    rules = [Rule("task", "fail", 2, 2)]
    return Place(tmp_path, double.open(account(tmp_path), Plan(rules, polls=1)), monkeypatch)


def test_a_night_is_told_and_written_down(place: Place, server: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", server.url("/services/s3cret"))
    mine = place.folder / "mine.yaml"
    mine.write_text(f"notify:\n  - command: [sh, -c, 'cat > {place.folder}/told']\n    on: always\n")
    monkeypatch.setenv("BATCHRUNNER_NOTIFY", str(mine))

    ran = place.run("  - webhook: {url_env: HOOK}", "--json")

    assert ran.code == 1
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert events[-1]["event"] == "summary", "stdout is what it was"
    assert ran.err == ""
    [(path, _, body)] = server.requests
    notice = json.loads(body)
    assert path == "/services/s3cret"
    assert (notice["outcome"], notice["exit_code"], notice["stop"]) == ("failed", 1, None)
    assert notice["title"].startswith("night: done, some failed: 1 succeeded, 1 failed; spent 630 credits")
    assert notice["batches"][0]["states"]["failed"] == 1
    assert "batchrunner retry night" in notice["summary"]
    assert (place.folder / "told").read_text().splitlines()[0] == notice["title"]

    lines = place.lines
    names = [line["event"] for line in lines]
    assert names[0] == "run_started"
    assert names[-2:] == ["batch_ended", "run_ended"]
    assert {line["run"] for line in lines} == {1}
    accepted = [line for line in lines if line["event"] == "accepted"]
    assert {line["job"] for line in accepted} == {"dog-1", "dog-2"}
    assert all(line["task_id"] and line["batch"] == "night" for line in accepted)
    [failed] = [line for line in lines if line["level"] == "error"]
    assert failed["event"] == "taskfailed"
    everything = place.log.read_bytes() + b"".join(p.read_bytes() for p in place.folder.glob("batchrunner.db*"))
    assert b"s3cret" not in everything
    assert os.environ["REAPI_API_KEY"].encode() not in place.log.read_bytes()

    again = place.run("  - webhook: {url_env: HOOK}\n    on: [succeeded]")
    assert again.code == 1
    assert len(server.requests) == 1, "not what it asked for"


def test_a_failure_to_tell_changes_nothing_but_is_said(place: Place, server: Seen) -> None:
    server.status = 500
    ran = place.run(
        f"  - webhook: {{url: '{server.url()}'}}\n  - webhook: {{url_env: NOT_SET}}\n  - command: [touch, pwned]"
    )

    assert ran.code == 1
    assert "1 succeeded, 1 failed" in ran.out
    before, after = ran.err.split("warning: not told: ", 1)
    assert "nobody will be told: the webhook of NOT_SET: it is not set" in before
    assert "the webhook at 127.0.0.1 answered 500" in after
    assert "BATCHRUNNER_ALLOW_COMMANDS=1" in after
    assert not (place.folder / "pwned").exists()
    said = [line["message"] for line in place.lines if line["event"] == "notify_failed"]
    assert said[0] == "the webhook at 127.0.0.1 answered 500"
    assert len(said) == 3


def test_a_run_that_could_not_begin_is_told_too(place: Place, server: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "outputs/night").mkdir(parents=True)
    (place.folder / "outputs/night/dog-1.mp4").write_bytes(b"somebody else's")

    ran = place.run(f"  - webhook: {{url: '{server.url()}', format: slack}}")

    assert ran.code == 2
    text = json.loads(server.requests[0][2])["text"]
    assert text.startswith("night: ")
    assert "it is never overwritten" in text
    [line] = [line for line in place.lines if line["event"] == "refused_to_run"]
    assert line["exit_code"] == 2


def test_a_log_that_cannot_be_written_is_said_before_anything_is_sent(place: Place, double: Double) -> None:
    place.log.write_text("version: 1\n")
    ran = place.run("  - {command: [date]}")
    assert ran.code == 2
    assert "name another" in ran.err
    assert double.account(account(place.folder)).posts == []
    assert place.log.read_text() == "version: 1\n"


def test_a_log_on_a_full_disk_is_said_at_the_end(place: Place) -> None:
    place.log.symlink_to("/dev/full")
    ran = place.run("  - {command: [date], on: [succeeded]}")
    assert ran.code == 1
    assert re.search(r"warning: \d+ lines could not be written to the log", ran.err)


def test_the_file_of_ones_own_has_a_mistake(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "mine.yaml").write_text("notify:\n  - mail: {to: [-x]}\n")
    monkeypatch.setenv("BATCHRUNNER_NOTIFY", "mine.yaml")
    ran = place.run("  - {command: [date]}")
    assert ran.code == 2
    assert "mine.yaml:2:17: error: to[0] '-x' is not valid" in ran.err


def test_a_manifest_that_is_not_valid_is_told_by_ones_own_file(
    place: Place, server: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.folder / "mine.yaml").write_text(f"notify:\n  - webhook: {{url: '{server.url()}'}}\n")
    monkeypatch.setenv("BATCHRUNNER_NOTIFY", "mine.yaml")
    ran = place.run("  - {command: [date], onn: always}")
    assert ran.code == 2
    [(_, _, body)] = server.requests
    notice = json.loads(body)
    assert (notice["outcome"], notice["exit_code"]) == ("error", 2)
    assert notice["title"].startswith("batchrunner: night.yaml:6:23: error: unknown key 'onn'")

    assert place.run("  - {command: [date], onn: always}", "--dry-run").code == 2
    assert place.run("  - {command: [date]}", "--plan", "x.json", "--on-unconfirmed", "resubmit").code == 2
    assert len(server.requests) == 2, "who looks is not told"


@pytest.mark.parametrize("number", ["TERM", "INT", "HUP"])
def test_a_signal_ends_the_telling_and_not_how_the_run_ended(place: Place, number: str) -> None:
    """The command asks for it, and then hangs."""
    script = f"kill -{number} $PPID; sleep 600"
    (place.folder / "night.yaml").write_text(MANIFEST.format(notify=f"  - command: [sh, -c, '{script}']"))
    ran = subprocess.run(
        [sys.executable, "-m", "batchrunner", "run", "night.yaml", "--quiet"],
        env={**os.environ, "BATCHRUNNER_ALLOW_COMMANDS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert "warning: not told: interrupted" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- Without a manifest ----------------------------------------------------------------------------------


def test_resume_tells_whom_the_manifest_named(place: Place, server: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the ledger has kept of it: a variable's name, and no address."""
    monkeypatch.setenv("HOOK", server.url("/services/s3cret"))
    notify = f"  - webhook: {{url_env: HOOK}}\n    on: always\n  - webhook: {{url: '{server.url('/plain')}'}}"
    assert place.run(notify, "--limit", "1").code == 4
    assert sorted(path for path, _, _ in server.requests) == ["/plain", "/services/s3cret"]  # told at once
    kept = b"".join(path.read_bytes() for path in place.folder.glob("batchrunner.db*"))
    assert b"HOOK" in kept
    assert b"/plain" not in kept
    assert b"s3cret" not in kept

    (place.folder / "night.yaml").unlink()
    assert call("resume").code == 1
    [(path, _, body)] = server.requests[2:]
    assert path == "/services/s3cret"
    assert json.loads(body)["title"].startswith("night: done, some failed: 1 succeeded, 1 failed")
    assert call("resume").code == 1, "every batch has ended by now: nobody is told of nothing"
    assert call("resume", "night").code == 1
    assert len(server.requests) == 4, "but who names it is"
    monkeypatch.delenv("HOOK")
    ran = call("resume", "night")
    assert "nobody will be told: the webhook of HOOK: it is not set" in ran.err


def test_promote_tells_as_run_does(place: Place, server: Seen) -> None:
    more = f"  - webhook: {{url: '{server.url()}'}}\n    on: always\nprofiles: {{final: {{resolution: 1080p}}}}"
    assert place.run(more).code == 1
    assert call("approve", "dog-1").code == 0
    assert call("promote", "night", "--profile", "final", "--dry-run").code == 0
    assert len(server.requests) == 1, "who looks tells nobody"
    assert call("promote", "night", "--profile", "final").code == 0
    notice = json.loads(server.requests[1][2])
    assert (notice["outcome"], notice["batches"][0]["batch"]) == ("succeeded", "night")


# --- What the service was asked too often ----------------------------------------------------------------


def test_polls_that_were_too_many_are_in_the_report(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = double.open(account(tmp_path), Plan([Rule("poll", "throttle", task=0), Rule("post", "throttle")], polls=2))
    place = Place(tmp_path, door, monkeypatch)
    assert place.run("  - {command: [date], on: [busy]}").code == 0
    assert call("report", "night").code == 0
    page = (tmp_path / "outputs/night/report.html").read_text("utf-8")
    assert "Too many requests (429)" in page
    assert "3, 2 of them to polls" in page
    assert call("report", "night", "--only", "dog-*", "--out", "some.html").code == 0
    assert "of them to polls" not in (tmp_path / "some.html").read_text("utf-8"), "nobody knows whose they were"
