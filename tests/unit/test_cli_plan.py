"""`validate` and `plan`."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.job import State
from tests.cli_support import MANIFEST, call, record_manifest

# --- validate --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("manifest")
def test_a_valid_manifest_is_one_line() -> None:
    ran = call("validate", "night.yaml")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "night.yaml: valid, batch night, 3 jobs, kling-3-0-turbo, estimated 1,890 credits ($1.89)\n"
    assert call("validate", "night.yaml", "--json").json == []


def test_every_error_of_every_file_is_reported_at_once(manifest: Path) -> None:
    manifest.with_name("a.yaml").write_text(MANIFEST.replace("duration: 5", "duraton: 5"))
    manifest.with_name("b.yaml").write_text(MANIFEST.replace("version: 1", "version: 2"))
    ran = call("validate", "a.yaml", "night.yaml", "b.yaml")
    assert ran.code == 2
    assert ran.out.startswith("night.yaml: valid")
    first, second, last = ran.err.splitlines()
    assert first.startswith("a.yaml:3:")
    assert "did you mean duration?" in first
    assert second.startswith("b.yaml:1:")
    assert last.startswith("2 errors")
    as_json = call("validate", "a.yaml", "night.yaml", "b.yaml", "--json")
    assert as_json.code == 2
    assert as_json.err == ""
    assert [(f["file"], f["line"], f["severity"]) for f in as_json.json] == [
        ("a.yaml", 3, "error"),
        ("b.yaml", 1, "error"),
    ]


def test_warnings_do_not_fail(manifest: Path) -> None:
    manifest.write_text(MANIFEST + "  - {id: s, first_frame_image: 'https://x.test/a.png', aspect_ratio: 16:9}\n")
    ran = call("validate", "night.yaml")
    assert ran.code == 0
    assert "night.yaml:7:" in ran.err
    assert "warning: " in ran.err
    assert [f["severity"] for f in call("validate", "night.yaml", "--json").json] == ["warning"]
    planned = call("plan", "night.yaml", "--json")
    assert planned.code == 0
    assert "warning: " in planned.err
    assert planned.json["summary"]["new"] == 4


def test_variables_and_profiles_reach_the_manifest(manifest: Path) -> None:
    text = MANIFEST.replace("a cat}", "'a ${v}'}")
    manifest.write_text(text + "vars: {v: x}\nprofiles: {final: {resolution: 1080p}}\n")
    assert "2,364 credits" in call("validate", "night.yaml", "--profile", "final", "--var", "v=cat").out
    assert call("validate", "night.yaml", "--profile", "fianl").code == 2
    bad = call("validate", "night.yaml", "--var", "v")
    assert bad.code == 2
    assert "not of the form name=value" in bad.err


def test_a_missing_file_is_a_finding() -> None:
    ran = call("validate", "/nowhere/night.yaml", "--json")
    assert ran.code == 2
    assert ran.json[0]["line"] == 1


# --- plan ------------------------------------------------------------------------------------------------


def test_without_a_ledger_everything_is_new(manifest: Path) -> None:
    ran = call("plan", "night.yaml", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {
        "batch": "night",
        "summary": {
            "new": 3,
            "changed": 0,
            "unchanged": 0,
            "in_flight": 0,
            "removed": 0,
            "credits": 1890,
            "usd": "1.89",
        },
        "budget": None,
        "balance": None,
        "duration": {"low": 0.4, "high": None, "unknown": 3},
        "jobs": [{"job": key, "change": "new", "credits": 630, "usd": "0.63"} for key in ("dog-1", "dog-2", "cat-1")],
    }
    assert not manifest.with_name("batchrunner.db").exists()


def test_requests_are_shown_as_they_would_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "version: 1\nbatch: b\n"
        "shots: [{id: a, model: wan2.7-video, prompt: x, aspect_ratio: '1:1', resolution: 720p}]\n"
    )
    db = tmp_path / "l.db"
    request = {"model": "wan2.7-video", "prompt": "x", "size": "1:1", "resolution": "720P"}
    ran = call("plan", path, "--db", db, "--requests")
    shown = next(line for line in ran.out.splitlines() if line.startswith("a-1: "))
    assert json.loads(shown.removeprefix("a-1: ")) == request
    assert call("plan", path, "--db", db, "--requests", "--json").json["jobs"][0]["request"] == request


def test_a_plan_compares_with_the_ledger(manifest: Path) -> None:
    record_manifest(manifest, dog_1=State.SUCCEEDED, dog_2=State.RUNNING, cat_1=State.FAILED)
    text = MANIFEST.replace("a cat}", "a cat at night, duration: 10}") + "  - {id: cow, prompt: a cow}\n"
    manifest.write_text(text.replace("takes: 2", "takes: 1"))
    found = call("plan", "night.yaml", "--json").json
    assert found["summary"] == {
        "new": 1,
        "changed": 1,
        "unchanged": 1,
        "in_flight": 0,
        "removed": 1,
        "credits": 1889,
        "usd": "1.889",
    }
    assert found["jobs"] == [
        {"job": "dog-1", "change": "unchanged", "credits": 0, "usd": "0.00"},
        {
            "job": "cat-1",
            "change": "changed",
            "credits": 1259,
            "usd": "1.259",
            "fields": {"prompt": {"from": "a cat", "to": "a cat at night"}, "duration": {"from": 5, "to": 10}},
        },
        {"job": "cow-1", "change": "new", "credits": 630, "usd": "0.63"},
        {"job": "dog-2", "change": "removed", "credits": 0, "usd": "0.00"},
    ]
    text = call("plan", "night.yaml").out
    assert 'duration: 5 -> 10, prompt: "a cat" -> "a cat at night"' in text
    assert "removed  dog-2        0   $0.00  running" in text
    assert (
        "night: 1 new, 1 changed, 1 unchanged, 0 in flight, 1 removed\n  a run would cost 1,889 credits ($1.889)\n"
        in text
    )


def test_a_selection_narrows_the_manifest_and_what_was_removed(manifest: Path) -> None:
    record_manifest(manifest)
    manifest.write_text(MANIFEST.replace("  - {id: cat, prompt: a cat}\n", ""))
    found = call("plan", "night.yaml", "--json", "--only", "dog-2").json
    assert [j["job"] for j in found["jobs"]] == ["dog-2"]
    assert [j["job"] for j in call("plan", "night.yaml", "--json", "--tag", "hero").json["jobs"]] == ["dog-1", "dog-2"]
    removed = call("plan", "night.yaml", "--json", "--only", "cat*").json["jobs"]
    assert [(j["job"], j["change"]) for j in removed] == [("cat-1", "removed")]
    nothing = call("plan", "night.yaml", "--only", "cow")
    assert nothing.code == 2
    assert "nothing is selected" in nothing.err


def test_several_manifests_are_several_plans(manifest: Path) -> None:
    other = manifest.with_name("other.yaml")
    other.write_text(MANIFEST.replace("batch: night", "batch: other"))
    assert [p["batch"] for p in call("plan", "night.yaml", "other.yaml", "--json").json["plans"]] == ["night", "other"]
    twice = call("plan", "night.yaml", "night.yaml")
    assert twice.code == 2
    assert "two manifests name the batch night" in twice.err


def test_an_unknown_price_is_null_and_a_warning(manifest: Path) -> None:
    prices = "prices: {kling-3-0-turbo: {per: second, rates: [{when: {resolution: 1080p}, usd: '0.2'}]}}\n"
    manifest.write_text(MANIFEST.replace("a cat}", "a cat, resolution: 1080p}") + prices)
    ran = call("plan", "night.yaml", "--json")
    assert ran.code == 0
    assert "2 jobs without a known price" in ran.err
    assert (ran.json["summary"]["credits"], ran.json["summary"]["usd"]) == (None, None)
    assert [j["credits"] for j in ran.json["jobs"]] == [None, None, 1000]
    assert "an unknown price" in call("plan", "night.yaml").out


def test_the_budget_counts_what_is_committed_already(manifest: Path) -> None:
    manifest.write_text(MANIFEST + "budget: {max_credits: 1500}\n")
    record_manifest(manifest, dog_1=State.RUNNING)
    ran = call("plan", "night.yaml")
    assert "budget 1,500 credits ($1.50), of which 870 left before the run" in ran.out
    assert "the budget ends the run 390 credits short" in ran.err


def test_a_long_plan_is_cut_for_people_and_whole_for_scripts(manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("takes: 2", "takes: 60"))
    text = call("plan", "night.yaml").out
    assert "... and 21 more; --json lists all" in text
    assert len(call("plan", "night.yaml", "--json").json["jobs"]) == 61


def test_what_failed_is_not_sent_again_by_itself(manifest: Path) -> None:
    record_manifest(manifest, dog_1=State.FAILED, dog_2=State.SUCCEEDED, cat_1=State.SUCCEEDED)
    ran = call("plan", "night.yaml")
    assert "0 credits ($0.00)" in ran.out
    assert "1 of the unchanged failed; a run leaves them so: `batchrunner retry night`" in ran.out


def test_dry_run_prints_the_plan(manifest: Path) -> None:
    assert call("run", "night.yaml", "--dry-run", "--json").json == call("plan", "night.yaml", "--json").json
    assert not manifest.with_name("batchrunner.db").exists()


# --- money and time --------------------------------------------------------------------------------------


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A service that tells the balance: `answer` is (status, body), None for no answer at all; `asked` counts."""
    told: dict[str, Any] = {"answer": (200, b'{"balance": 1000}'), "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told["asked"] += 1
            if told["answer"] is None:
                return
            status, body = told["answer"]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("REAPI_API_KEY", "rk_secret_of_the_test")
        monkeypatch.setenv("REAPI_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield told
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("manifest")
def test_the_balance_is_shown_where_a_key_is_set(service: dict[str, Any]) -> None:
    ran = call("plan", "night.yaml")
    assert "  balance 1,000 credits ($1.00)\n" in ran.out
    assert "the account has 890 credits less than this costs" in ran.err
    assert call("plan", "night.yaml", "--json").json["balance"] == 1000
    assert service["asked"] == 2
    assert call("plan", "night.yaml", "--json", "--no-balance").json["balance"] is None
    assert call("plan", "night.yaml", "--json", "--db", "batchrunner.sim.db").json["balance"] is None
    assert service["asked"] == 2
    assert call("run", "night.yaml", "--dry-run") == ran
    assert service["asked"] == 3
    for option in ("--no-balance", "--simulate"):
        assert call("run", "night.yaml", "--dry-run", "--json", option).json["balance"] is None
    assert service["asked"] == 3


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("answer", [(500, b"\x1b[2J"), (401, b"{}"), (200, b"[]"), None])
def test_a_balance_that_is_not_told_is_a_note(service: dict[str, Any], answer: Any) -> None:
    service["answer"] = answer
    ran = call("plan", "night.yaml", "--json")
    assert (ran.code, ran.json["balance"]) == (0, None)
    assert ran.err.startswith("note: the balance is not known: ")
    assert len(ran.err.splitlines()) == 1
    assert "rk_secret" not in ran.err
    assert "\x1b" not in ran.err


def test_each_of_several_accounts_has_a_line(
    manifest: Path, service: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to each is held against it alone, and of those that can't be asked it is said why not."""
    manifest.write_text(
        "version: 1\nbatch: night\ndefaults: {prompt: a dog}\nshots:\n"
        "  - {id: clip, model: kling-3-0-turbo, takes: 2}\n"
        "  - {id: still, model: fal-ai/flux/schnell}\n"
        "  - {id: other, model: black-forest-labs/flux-schnell}\n"
    )
    monkeypatch.setenv("FAL_KEY", "fk_secret_of_the_test")
    ran = call("plan", "night.yaml")
    assert ran.out.splitlines()[-3:] == [
        "  balance of fal not known: the service has no call for it",
        "  balance of reapi 1,000 credits ($1.00)",
        "  balance of replicate not known: the service has no call for it",
    ]
    assert (
        ran.err
        == "warning: the account with reapi has 260 credits less than this costs; a run stops there, with exit code 4\n"
    )
    found = call("plan", "night.yaml", "--json").json
    assert (found["balance"], found["balances"]) == (None, {"fal": None, "reapi": 1000, "replicate": None})
    assert service["asked"] == 2
    monkeypatch.delenv("REAPI_API_KEY")
    assert "  balance of reapi not known: no key is set\n" in call("run", "night.yaml", "--dry-run").out


def test_a_service_that_the_ledger_does_not_belong_to_is_not_asked(manifest: Path, service: dict[str, Any]) -> None:
    record_manifest(manifest)
    with closing(sqlite3.connect("batchrunner.db")) as connection, connection:
        connection.execute("INSERT INTO account (provider, origin) VALUES ('reapi', 'the simulator')")
    ran = call("plan", "night.yaml")
    assert ran.code == 0
    assert "this ledger belongs to the simulator" in ran.err
    assert service["asked"] == 0


def test_a_base_url_that_can_not_be_used_is_a_note(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAPI_API_KEY", "rk_secret_of_the_test")
    monkeypatch.setenv("REAPI_BASE_URL", "http://example.com")
    ran = call("plan", "night.yaml")
    assert ran.code == 0
    assert "note: the balance is not known: " in ran.err


def test_how_long_it_takes_is_learned(manifest: Path) -> None:
    record_manifest(manifest, dog_1=State.RUNNING)
    assert "and take" not in call("plan", "night.yaml").out
    with closing(sqlite3.connect("batchrunner.db")) as connection, connection:
        connection.executemany(
            "INSERT INTO latency (model, seconds, took) VALUES ('kling-3-0-turbo', 5, ?)", [(t,) for t in range(50, 70)]
        )
    assert call("plan", "night.yaml", "--json").json["duration"] == {"low": 55.1, "high": 75.8, "unknown": 0}
    assert "a run would cost 1,260 credits ($1.26), and take 55 s to 76 s\n" in call("plan", "night.yaml").out
    with closing(sqlite3.connect("batchrunner.db")) as connection, connection:
        connection.execute("INSERT INTO account (provider, origin) VALUES ('reapi', 'x')")
        connection.execute("INSERT INTO pace VALUES ('reapi', 0.5, 1, NULL, 0)")
    slow = call("plan", "night.yaml", "--json").json["duration"]
    assert slow["low"] > 120.0, "a submission every two minutes is what the service was found to allow"
