"""Manifests through the command line: the examples do the main job, and no broken one sends anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from batchrunner.core.text import visible
from tests.acceptance.test_rehearsal import ROOT, batchrunner, server
from tests.cli_support import call

BROKEN = ROOT / "tests" / "data" / "manifests" / "broken"
EXPECTED = json.loads((BROKEN / "expected.json").read_text("utf-8"))
EXAMPLES = sorted(p.name for p in (ROOT / "manifests").glob("*.yaml"))

__all__ = ["server"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs_in_the_simulator(name: str, tmp_path: Path, server: str) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    ran = batchrunner(tmp_path, "run", f"manifests/{name}", REAPI_BASE_URL=server, REAPI_API_KEY="rk_example")
    assert ran.returncode == 0, ran.stderr
    listed = json.loads(batchrunner(tmp_path, "jobs", "--json").stdout)
    assert listed
    assert {job["state"] for job in listed} == {"succeeded"}
    for job in listed:
        output = Path(job["output"])
        assert output.stat().st_size == job["bytes"]
        assert json.loads(output.with_name(output.name + ".json").read_text())["sha256"] == job["sha256"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("verb", ["run", "validate", "plan"])
def test_a_broken_manifest_sends_nothing_and_shows_no_traceback(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAPI_API_KEY", "rk_never_used")
    monkeypatch.setenv("REAPI_BASE_URL", "http://127.0.0.1:1")
    case = EXPECTED[name]
    monkeypatch.chdir(BROKEN)
    words = [name]
    if case.get("profile"):
        words += ["--profile", case["profile"]]
    for variable, value in (case.get("variables") or {}).items():
        words += ["--var", f"{variable}={value}"]
    ledger = [] if verb == "validate" else ["--db", str(tmp_path / "ledger.db")]
    ran = call(verb, *words, *ledger)
    assert ran.code == 2
    assert "Traceback" not in ran.out + ran.err
    assert ran.err.splitlines()[:-1] == [visible(finding) for finding in case["findings"]]
    assert ran.err.endswith("nothing was submitted\n")
    assert not list(tmp_path.iterdir())
