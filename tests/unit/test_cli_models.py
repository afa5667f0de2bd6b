"""`models`, `schema` and `init`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from batchrunner.catalogue import manifest_schema, models, schema_folder
from batchrunner.cli.init import manifest_text
from batchrunner.cli.models import examples, price_text
from batchrunner.core.pricing import parse_price
from batchrunner.manifest import load
from tests.cli_support import call

KLING = models()["kling-3-0-turbo"]


def test_every_model_is_listed_with_its_price() -> None:
    ran = call("models")
    assert ran.code == 0
    for name in models():
        assert f"\n{name} " in ran.out
    assert "630 credits ($0.63)" in ran.out


def test_a_model_is_explained() -> None:
    text = call("models", "kling-3-0-turbo").out
    for part in (
        "whole number, 3 to 15",
        "720p 1080p",
        "16:9 9:16 1:1",
        "$0.15752 a second",
        "as of 2026-07-28",
        "2,363",
    ):
        assert part in text
    assert "Needs a prompt or a first frame." in text


def test_models_as_json() -> None:
    every = call("models", "--json").json
    assert [m["model"] for m in every] == list(models())
    one = call("models", "kling-3-0-turbo", "--json").json
    assert one in every
    assert one["defaults"] == {"resolution": "720p", "duration": 5, "aspect_ratio": "16:9"}
    assert one["price"]["rates"][0] == {"when": {"resolution": "720p"}, "usd": "0.12584"}
    assert {"request": {"resolution": "720p", "duration": 5}, "credits": 630, "usd": "0.63"} in one["examples"]


@pytest.mark.parametrize("name", list(models()))
def test_every_model_can_be_explained(name: str) -> None:
    assert call("models", name).code == 0


def test_other_prices() -> None:
    flat = replace(KLING, price=parse_price({"per": "output", "usd": "0.19"}), defaults={})
    assert examples(flat) == [{"request": {}, "credits": 190, "usd": "0.19"}]
    assert price_text(flat.price) == "$0.19 each"
    assert examples(replace(KLING, price=None)) == []
    assert price_text(None) == "unknown"


@pytest.mark.parametrize("verb", ["models", "schema"])
def test_an_unknown_model_exits_2(verb: str) -> None:
    ran = call(verb, "kling-3-0-tubro")
    assert ran.code == 2
    assert "did you mean kling-3-0-turbo?" in ran.err
    assert call(verb, "../manifest").code == 2


def test_schemas_are_the_files() -> None:
    assert call("schema").json == manifest_schema()
    file = schema_folder() / "models" / "kling-3-0-turbo.schema.json"
    assert call("schema", "kling-3-0-turbo").out == file.read_text("utf-8")


# --- init ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "batch"),
    [("manifest.yaml", "first"), ("nightly.yaml", "nightly"), ("My Füße {x}.yaml", "my-f-e-x"), ("-.yml", "first")],
)
def test_what_init_writes_is_valid(name: str, batch: str, tmp_path: Path) -> None:
    path = tmp_path / name
    ran = call("init", "--", path)
    assert ran.code == 0
    assert "--simulate" in ran.out
    manifest = load(path)
    assert manifest.batch == batch
    assert manifest.warnings == ()
    assert [j.key for j in manifest.jobs] == ["corgi-beach-1", "corgi-beach-2", "paper-boat-1"]
    assert manifest.max_credits == 5000
    load(path, profile="final", variables={"season": "summer"})


def test_init_names_the_schema_and_the_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init").code == 0
    first = Path("manifest.yaml").read_text("utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema=file://"
    assert first.startswith(prefix)
    assert Path(first.removeprefix(prefix)).is_file()


def test_the_comments_of_the_matrix_are_valid_too() -> None:
    text = manifest_text(Path("a.yaml"))
    assert "#   matrix: {place: [dunes, forest], duration: [5, 10]}" in text


def test_init_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("mine")
    ran = call("init", path)
    assert ran.code == 2
    assert "never overwritten" in ran.err
    assert path.read_text() == "mine"
    link = tmp_path / "link.yaml"
    os.symlink(tmp_path / "elsewhere", link)
    assert call("init", link).code == 2
    assert not (tmp_path / "elsewhere").exists()
    assert call("init", tmp_path / "no" / "a.yaml").code == 2
    assert call("init", tmp_path).code == 2
