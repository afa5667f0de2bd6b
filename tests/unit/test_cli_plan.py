"""`validate` and `plan`."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrunner.core.job import State
from batchrunner.manifest import load
from tests.cli_support import MANIFEST, call, make_ledger
from tests.support import path_to


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    path = tmp_path / "night.yaml"
    path.write_text(MANIFEST)
    return path


def record(manifest: Path, **states: State) -> None:
    """Record the manifest, and bring the jobs named by `key with _` into a state."""
    found = [
        (s, path_to(states.get(s.key.replace("-", "_"), State.PENDING), f"task_{n}"))
        for n, s in enumerate(load(manifest).jobs)
    ]
    make_ledger(manifest.with_name("batchrunner.db"), found)


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
        "jobs": [{"job": key, "change": "new", "credits": 630} for key in ("dog-1", "dog-2", "cat-1")],
    }
    assert not manifest.with_name("batchrunner.db").exists()


def test_a_plan_compares_with_the_ledger(manifest: Path) -> None:
    record(manifest, dog_1=State.SUCCEEDED, dog_2=State.RUNNING, cat_1=State.FAILED)
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
        {"job": "dog-1", "change": "unchanged", "credits": 0},
        {
            "job": "cat-1",
            "change": "changed",
            "credits": 1259,
            "fields": {"prompt": {"from": "a cat", "to": "a cat at night"}, "duration": {"from": 5, "to": 10}},
        },
        {"job": "cow-1", "change": "new", "credits": 630},
        {"job": "dog-2", "change": "removed", "credits": 0},
    ]
    text = call("plan", "night.yaml").out
    assert 'duration: 5 -> 10, prompt: "a cat" -> "a cat at night"' in text
    assert "removed  dog-2        0  running" in text
    assert (
        "night: 1 new, 1 changed, 1 unchanged, 0 in flight, 1 removed\n  a run would cost 1,889 credits ($1.889)\n"
        in text
    )


def test_a_selection_narrows_the_manifest_and_what_was_removed(manifest: Path) -> None:
    record(manifest)
    manifest.write_text(MANIFEST.replace("  - {id: cat, prompt: a cat}\n", ""))
    found = call("plan", "night.yaml", "--json", "--only", "dog-2").json
    assert [j["job"] for j in found["jobs"]] == ["dog-2"]
    assert [j["job"] for j in call("plan", "night.yaml", "--json", "--tag", "hero").json["jobs"]] == ["dog-1", "dog-2"]
    removed = call("plan", "night.yaml", "--json", "--only", "cat*").json["jobs"]
    assert removed == [{"job": "cat-1", "change": "removed", "credits": 0}]
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
    record(manifest, dog_1=State.RUNNING)
    ran = call("plan", "night.yaml")
    assert "budget 1,500 credits ($1.50), of which 870 left before the run" in ran.out
    assert "the budget ends the run 390 credits short" in ran.err


def test_a_long_plan_is_cut_for_people_and_whole_for_scripts(manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("takes: 2", "takes: 60"))
    text = call("plan", "night.yaml").out
    assert "... and 21 more; --json lists all" in text
    assert len(call("plan", "night.yaml", "--json").json["jobs"]) == 61


def test_what_failed_is_not_sent_again_by_itself(manifest: Path) -> None:
    record(manifest, dog_1=State.FAILED, dog_2=State.SUCCEEDED, cat_1=State.SUCCEEDED)
    ran = call("plan", "night.yaml")
    assert "0 credits ($0.00)" in ran.out
    assert "1 of the unchanged failed; a run leaves them so: `batchrunner retry night`" in ran.out


def test_dry_run_prints_the_plan(manifest: Path) -> None:
    assert call("run", "night.yaml", "--dry-run", "--json").json == call("plan", "night.yaml", "--json").json
    assert not manifest.with_name("batchrunner.db").exists()
