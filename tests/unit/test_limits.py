"""Bounds of single providers and models: read, kept, and held."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrunner.core.limits import Bounds, Limits, tightest, unpacked
from batchrunner.engine.slots import Slots
from batchrunner.manifest import ManifestError, load

SHOTS = "shots:\n  - {id: a, prompt: x, model: z-image}\n"


def written(folder: Path, limits: str) -> Path:
    (folder / "m.yaml").write_text(f"version: 1\nbatch: b\nlimits: {limits}\n{SHOTS}", "utf-8")
    return folder / "m.yaml"


def test_they_are_read_and_outlive_the_manifest(tmp_path: Path) -> None:
    text = (
        "{in_flight: 9, polls_per_minute: 90, providers: {fal: {in_flight: 4}}, "
        "models: {z-image: {submits_per_minute: 30}}}"
    )
    manifest = load(written(tmp_path, text))
    assert manifest.in_flight == 9
    assert manifest.limits == Limits({"fal": Bounds(None, 4)}, {"z-image": Bounds(30.0, None)}, 90.0)
    assert unpacked(manifest.limits.packed()) == manifest.limits
    assert unpacked("{}") == Limits()
    assert "polls" not in Limits().packed(), "a ledger of an older version holds nothing else"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("{providers: {fall: {in_flight: 4}}}", "unknown provider 'fall' (did you mean fal?)"),
        ("{models: {z-imag: {in_flight: 4}}}", "unknown model 'z-imag' (did you mean z-image?)"),
        ("{models: {z-image: {in_flight: 0}}}", "limits.models.z-image.in_flight"),
        ("{models: {z-image: {per_minute: 5}}}", "per_minute"),
        ("{models: {z-image: {}}}", "z-image"),
        ("{providers: [fal]}", "providers"),
        ("{polls_per_minute: 0.5}", "polls_per_minute must be a number from 1 to 1000000, got 0.5"),
        ("{polls_per_minute: 2000000}", "polls_per_minute"),
        ("{poll_per_minute: 600}", "did you mean polls_per_minute?"),
        ("{models: {z-image: {polls_per_minute: 600}}}", "polls_per_minute"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(limits: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load(written(tmp_path, limits))
    (finding,) = [f for f in caught.value.findings if not f.warning]
    assert finding.line == 3
    assert told in f"{finding.path}: {finding.message}"


def test_of_several_batches_the_tightest_holds() -> None:
    one = Limits({"fal": Bounds(10.0, 5)}, {"m": Bounds(None, 3)}, 900.0)
    two = Limits({"fal": Bounds(20.0, 2), "reapi": Bounds(1.0)}, {}, 600.0)
    assert tightest([one, two, Limits()]) == Limits(
        {"fal": Bounds(10.0, 2), "reapi": Bounds(1.0)}, {"m": Bounds(None, 3)}, 600.0
    )


def test_a_model_has_places_of_its_own() -> None:
    slots = Slots(5, models={"m": 1})
    assert not slots.full("m")
    slots.take("m")
    slots.take("other")
    assert (slots.full("m"), slots.full("other"), slots.free) == (True, False, True)
    slots.give_back("m")
    assert not slots.full("m")
