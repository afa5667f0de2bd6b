"""`plan --out` and `run --plan`: what was frozen is what is paid for, or nothing is."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.frozen import from_json, to_json
from batchrunner.core.job import State
from batchrunner.manifest.schema_errors import gate
from tests.cli_support import MANIFEST, Ran, call, record_manifest

ROOT = Path(__file__).resolve().parents[2]
TEXT = MANIFEST + "vars: {v: x}\nprofiles: {final: {resolution: 1080p}}\n"


def freeze(*options: str) -> None:
    ran = call("plan", "night.yaml", "--out", "plan.json", *options)
    assert ran.code == 0, ran.err
    assert "frozen in plan.json: batchrunner run --plan plan.json" in ran.out


def holds(*options: str) -> Ran:
    """What `run` says before it would send anything."""
    return call("run", "--plan", "plan.json", "--dry-run", *options)


def drifted(*options: str) -> list[str]:
    """The lines of a refusal. The run itself refuses too, and leaves no trace."""
    ran = holds(*options)
    assert ran.code == 2, ran.out
    before = sorted(os.listdir())
    really = call("run", "--plan", "plan.json", *options)
    assert (really.code, really.out, really.err) == (2, "", ran.err)
    assert sorted(os.listdir()) == before
    first, *lines = ran.err.splitlines()
    assert "does not hold any more" in first
    return [line.strip() for line in lines]


def plan_file() -> Any:
    return json.loads(Path("plan.json").read_text("utf-8"))


@pytest.mark.usefixtures("manifest")
def test_a_plan_is_frozen_by_the_schema_and_holds_while_nothing_changes() -> None:
    freeze()
    schema = json.loads((ROOT / "schemas" / "plan.schema.json").read_text("utf-8"))
    frozen = plan_file()
    assert gate(schema).is_valid(frozen)
    assert to_json(from_json(frozen)) == frozen
    (batch,) = frozen["batches"]
    assert (batch["batch"], batch["manifest"], batch["credits"]) == ("night", "night.yaml", 1890)
    assert batch["jobs"]["cat-1"]["request"] == {"model": "kling-3-0-turbo", "duration": 5, "prompt": "a cat"}
    ran = holds("--json")
    assert ran.code == 0
    assert ran.json["summary"]["credits"] == 1890
    assert not Path("batchrunner.db").exists()


def test_a_stray_value_is_a_refusal(manifest: Path) -> None:
    freeze()
    manifest.write_text(TEXT.replace("takes: 2", "takes: 2, matrix: {duration: [5, 10]}"))
    lines = drifted()
    assert "dog@duration=10-1 is new and would cost 1,259 credits; the plan does not pay for it" in lines
    assert "dog-1 is not in the manifest any more" in lines
    manifest.write_text(TEXT.replace("takes: 2", "takes: 200"))
    assert drifted()[-1] == "... and 178 more"


def test_what_is_asked_for_otherwise_is_named_field_by_field(manifest: Path) -> None:
    freeze()
    manifest.write_text(TEXT.replace("a cat}", "a cat asleep, resolution: 1080p}"))
    assert drifted() == [
        'cat-1 asks for something else: prompt: "a cat" -> "a cat asleep", resolution: (none) -> "1080p"'
    ]


def test_another_price_is_a_refusal(manifest: Path) -> None:
    freeze()
    manifest.write_text(TEXT + "prices: {kling-3-0-turbo: {per: second, usd: '0.2'}}\n")
    assert drifted() == [f"{key} would cost 1,000 credits, and not 630" for key in ("dog-1", "dog-2", "cat-1")]
    manifest.write_text(TEXT + "prices: {kling-3-0-turbo: {per: second, usd: '0.01'}}\n")
    assert len(drifted()) == 3


def test_what_was_done_meanwhile_is_no_drift(manifest: Path) -> None:
    freeze()
    record_manifest(manifest, dog_1=State.SUCCEEDED, dog_2=State.RUNNING, cat_1=State.PENDING)
    assert holds("--json").json["summary"]["credits"] == 630


def test_what_was_paid_for_before_is_not_paid_for_again(manifest: Path) -> None:
    """A job that was done when the plan was made, and is now asked for differently."""
    record_manifest(manifest, dog_1=State.SUCCEEDED, dog_2=State.SUCCEEDED, cat_1=State.SUCCEEDED)
    manifest.write_text(TEXT.replace("shots:\n", "shots:\n  - {id: cow, prompt: a cow}\n"))
    freeze()
    assert list(plan_file()["batches"][0]["jobs"]) == ["cow-1"]
    manifest.write_text(
        TEXT.replace("shots:\n", "shots:\n  - {id: cow, prompt: a cow}\n").replace("a cat}", "a black cat}")
    )
    assert drifted() == [
        'cat-1 is changed (prompt: "a cat" -> "a black cat") and would cost 630 credits; the plan does not pay for it'
    ]
    manifest.write_text(TEXT)
    assert drifted() == ["cow-1 is not in the manifest any more"]


def test_a_failed_job_that_goes_back_to_pending_is_not_in_the_plan(manifest: Path) -> None:
    record_manifest(manifest, dog_1=State.FAILED, dog_2=State.SUCCEEDED, cat_1=State.PENDING)
    freeze()
    assert call("retry", "dog-1").code == 0
    assert holds().code == 2


@pytest.mark.usefixtures("manifest")
def test_the_plan_brings_its_own_arguments() -> None:
    freeze("--profile", "final", "--only", "dog", "--tag", "hero")
    ran = holds("--json")
    assert [(j["job"], j["credits"]) for j in ran.json["jobs"]] == [("dog-1", 788), ("dog-2", 788)]
    assert holds("night.yaml", "--profile", "final", "--only", "dog").code == 0
    for options in (("--profile", "draft"), ("--only", "cat"), ("--tag", "x"), ("--var", "v=y")):
        ran = holds(*options)
        assert ran.code == 2
        assert f"leave out {options[0]}, or make the plan again" in ran.err


def test_a_plan_is_for_its_own_manifest_and_ledger(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    freeze()
    manifest.with_name("other.yaml").write_text(TEXT.replace("batch: night", "batch: other"))
    assert "the plan is for night, and the run for other" in holds("other.yaml").err
    assert "was made for the ledger" in holds("--db", "other.db").err
    assert "was made for the ledger" in call("run", "--plan", "plan.json", "--simulate").err
    assert "no plan has" in holds("--on-unconfirmed", "resubmit").err
    assert call("run", "--dry-run").code == 2
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    there = manifest.parent
    ran = call("run", "--plan", there / "plan.json", "--dry-run", "--db", there / "batchrunner.db")
    assert ran.code == 0, ran.err


@pytest.mark.usefixtures("manifest")
def test_a_moved_folder_takes_its_plan_along(tmp_path: Path) -> None:
    freeze()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("night.yaml", "plan.json"):
        os.rename(name, moved / name)
    os.chdir(moved)
    assert holds().code == 0


def test_a_price_that_nobody_knows_is_not_frozen(manifest: Path) -> None:
    manifest.write_text(TEXT + "prices: {kling-3-0-turbo: {per: second, rates: [{when: {duration: 3}, usd: '0.2'}]}}\n")
    ran = call("plan", "night.yaml", "--out", "plan.json")
    assert (ran.code, ran.out) == (2, "")
    assert "can't be frozen" in ran.err
    assert not Path("plan.json").exists()


@pytest.mark.usefixtures("manifest")
def test_a_plan_is_written_over_a_plan_and_over_nothing_else() -> None:
    freeze()
    freeze("--only", "cat")
    assert list(plan_file()["batches"][0]["jobs"]) == ["cat-1"]
    ran = call("plan", "night.yaml", "--out", "night.yaml")
    assert (ran.code, Path("night.yaml").read_text()) == (2, TEXT)
    assert "is not overwritten" in ran.err
    assert "can't write" in call("plan", "night.yaml", "--out", "nowhere/plan.json").err
    assert sorted(os.listdir()) == ["night.yaml", "plan.json"]


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "not a number": b'{"format": "batchrunner plan", "version": NaN}',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "another format": b'{"format": "x"}',
    "a newer version": b'{"format": "batchrunner plan", "version": 99}',
    "a hostile version": '{"format": "batchrunner plan", "version": "\\u001b[2J\u202e"}'.encode(),
    "no batches": b'{"format": "batchrunner plan", "version": 1}',
    "no text": b"\xff\xfe\x00",
    "a huge number": b'{"format": "batchrunner plan", "version": ' + b"9" * 5000 + b"}",
}


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_one_clear_error(data: bytes) -> None:
    Path("plan.json").write_bytes(data)
    ran = holds()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: plan.json ")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.isprintable() or ran.err[:-1].isprintable()


@pytest.mark.usefixtures("manifest")
def test_a_damaged_plan_is_never_believed() -> None:
    """Every flipped byte is found, or leaves the plan as it was (white space, escapes)."""
    freeze()
    whole = Path("plan.json").read_bytes()
    dice = random.Random(3)
    found = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        Path("plan.json").write_bytes(damaged)
        ran = holds()
        if ran.code == 2:
            found += 1
            assert ran.err.startswith("error: plan.json "), ran.err
            assert len(ran.err.splitlines()) == 1
        else:
            assert plan_file() == json.loads(whole)
    assert found > 30
    for change in ({"credits": -1}, {"credits": "1"}, {"fingerprint": "x"}, {"more": 1}):
        data = json.loads(whole)
        data["batches"][0]["jobs"]["cat-1"] |= change
        Path("plan.json").write_text(json.dumps(data))
        assert "is no valid plan: batches[0].jobs.cat-1" in holds().err, change
    data = json.loads(whole)
    data["batches"][0]["jobs"]["cat-1"]["credits"] = 1
    Path("plan.json").write_text(json.dumps(data))
    assert "was changed or damaged" in holds().err
    os.unlink("plan.json")
    assert "can't read plan.json: No such file" in holds().err
