"""Broken manifests as data: for each, every finding with its exact position and words."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchrunner.manifest import ManifestError, load

FOLDER = Path(__file__).parent.parent / "data" / "manifests" / "broken"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text("utf-8"))


def test_every_broken_manifest_is_expected() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == EXPECTED.keys()
    assert len(EXPECTED) >= 45


@pytest.mark.parametrize("name", EXPECTED)
def test_findings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    case = EXPECTED[name]
    with pytest.raises(ManifestError) as caught:
        load(name, profile=case.get("profile"), variables=case.get("variables"))
    findings = caught.value.findings
    assert [str(f) for f in findings] == case["findings"]
    assert list(findings) == sorted(findings)
    assert len({str(f) for f in findings}) == len(findings)
    assert all(f.line >= 1 and f.column >= 1 for f in findings)


def test_findings_point_at_text_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    for name, case in EXPECTED.items():
        try:
            load(name, profile=case.get("profile"), variables=case.get("variables"))
        except ManifestError as error:
            for finding in error.findings:
                lines = (FOLDER / finding.file).read_bytes().decode("utf-8").split("\n")
                assert finding.line <= len(lines), finding
                assert finding.column <= len(lines[finding.line - 1]) + 1, finding


def test_paths_name_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(ManifestError) as caught:
        load("matrix.yaml")
    assert caught.value.findings[0].path == "shots[0].matrix.duration[1]"
    with pytest.raises(ManifestError) as caught:
        load("bad-head-values.yaml")
    assert [f.path for f in caught.value.findings][:2] == ["limits.submits_per_minute", "limits.in_flight"]
    with pytest.raises(ManifestError) as caught:
        load("csv-cells.yaml")
    assert caught.value.findings[0].path == "rows[0].duration"
