"""The shipped schemas are good schemas, and the examples are good manifests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from batchrunner.catalogue import manifest_schema, models
from batchrunner.manifest import load

ROOT = Path(__file__).parent.parent.parent
SCHEMAS = {
    str(p.relative_to(ROOT / "schemas")): json.loads(p.read_text("utf-8")) for p in (ROOT / "schemas").rglob("*.json")
}
MANIFESTS = {"first.yaml": 3, "nightly.yaml": 16, "image-to-video.yaml": 5, "storyboard.yaml": 8}


def registry() -> Registry[Any]:
    return Registry().with_resources(
        (name.rpartition("/")[2], Resource.from_contents(s)) for name, s in SCHEMAS.items()
    )


def subschemas(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a value that a user writes: properties, items, $defs and branches with a title."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key in ("properties", "$defs"):
        for name, inner in schema.get(key, {}).items():
            yield from subschemas(inner, f"{path}/{key}/{name}")
    for key in ("items", "additionalProperties"):
        yield from subschemas(schema.get(key), f"{path}/{key}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_valid_2020_12(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == name.rpartition("/")[2]


@pytest.mark.parametrize("name", SCHEMAS)
def test_everything_is_told_and_every_example_and_default_is_valid(name: str) -> None:
    schema = SCHEMAS[name]
    whole = registry()
    for path, part in subschemas(schema):
        if "$ref" in part:
            continue
        assert "description" in part or "const" in part, path
        if path.count("/") and "model" not in path:
            assert part.get("title"), path
        resolver = {"$ref": f"{schema['$id']}#{path.replace('%', '%25')}"}
        validator = Draft202012Validator(resolver, registry=whole)
        for value in [*part.get("examples", []), *([part["default"]] if "default" in part else [])]:
            assert not list(validator.iter_errors(value)), (path, value)


def test_every_key_of_the_manifest_has_an_example() -> None:
    for path, part in subschemas(manifest_schema()):
        constrained = part.get("type") in ("object", "array", "string", "integer", "number")
        if constrained and "$ref" not in part and not path.endswith(("/tail",)):
            assert "examples" in part or path.endswith("additionalProperties"), path


def test_the_shots_file_schema_refuses_what_only_a_manifest_has() -> None:
    validator = Draft202012Validator(SCHEMAS["shots.schema.json"], registry=registry())
    assert validator.is_valid({"shots": [{"id": "a"}]})
    assert not validator.is_valid({"batch": "x", "shots": []})


def test_editors_are_offered_the_models_fields() -> None:
    properties = manifest_schema()["$defs"]["shot"]["properties"]
    for name, field in models()["kling-3-0-turbo"].schema["properties"].items():
        if name == "model":
            continue
        assert properties[name]["title"] == field["title"]
        assert set(properties[name]) == {"title", "description", "examples"}, "no constraint: other models differ"


def test_patterns_have_words() -> None:
    for name, schema in SCHEMAS.items():
        for found in re.finditer(r'\{[^{}]*"pattern"[^{}]*\}', json.dumps(schema)):
            assert "patternErrorMessage" in found.group(), (name, found.group())


@pytest.mark.parametrize("name", MANIFESTS)
def test_examples_run(name: str) -> None:
    manifest = load(ROOT / "manifests" / name)
    assert len(manifest.jobs) == MANIFESTS[name]
    assert manifest.warnings == ()
    assert all(job.credits for job in manifest.jobs)
    total = sum(job.credits or 0 for job in manifest.jobs)
    assert manifest.max_credits is None or total <= manifest.max_credits


def test_profiles_of_the_examples() -> None:
    nightly = ROOT / "manifests" / "nightly.yaml"
    final = list(load(nightly, profile="final").jobs)
    assert {job.request["resolution"] for job in final} == {"1080p"}
    assert sum(job.credits or 0 for job in final) <= (load(nightly).max_credits or 0)
    assert len(load(nightly, profile="draft").jobs) == 9
    assert len(load(ROOT / "manifests" / "storyboard.yaml", profile="final").jobs) == 8


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").rglob("*.yaml")), ids=lambda p: p.name)
def test_examples_tell_editors_their_schema(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert named != first
    assert (path.parent / named).resolve().is_relative_to(ROOT / "schemas")
    assert (path.parent / named).is_file()
