"""The models that are shipped."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from batchrunner import catalogue, plugins
from batchrunner.catalogue import manifest_schema, models, schema_folder

NAMES = list(models())


def test_sorted_and_there() -> None:
    assert sorted(NAMES) == NAMES
    assert "kling-3-0-turbo" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_complete(name: str) -> None:
    model = models()[name]
    jsonschema.Draft202012Validator.check_schema(model.schema)
    assert model.name == name
    assert model.provider in plugins.SHIPPED
    assert model.endpoint.startswith("/")
    assert model.output in {"video", "image", "audio"}
    assert model.schema["additionalProperties"] is False
    assert "model" in model.schema["required"]
    assert "model" not in model.fields
    assert set(model.defaults) <= set(model.fields)
    for field in model.fields:
        assert model.schema["properties"][field].get("description"), field


NO_PRICE = {"minimax/video-01-director"}
"""No page names it."""


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NO_PRICE])
def test_every_model_has_a_dated_price_for_its_defaults(name: str) -> None:
    model = models()[name]
    assert model.price is not None
    assert model.price.as_of
    assert model.price.source
    duration = {} if model.length({}) or model.price.per == "output" else {"duration": 5}
    credits = model.price.credits(duration, model.defaults)  # noqa: A001
    assert credits is not None
    assert credits > 0


def test_what_is_sent_where_the_service_is_told_the_model_elsewhere() -> None:
    model = models()["fal-ai/kling-video/v3/turbo/pro/text-to-video"]
    request = {"model": model.name, "prompt": "a corgi", "duration": 5, "aspect_ratio": "1:1"}
    assert model.sent(request) == {"prompt": "a corgi", "duration": "5", "aspect_ratio": "1:1"}


def test_kling() -> None:
    model = models()["kling-3-0-turbo"]
    assert model.title == "Kling 3.0 Turbo"
    assert model.endpoint == "/videos/generations"
    assert model.defaults == {"resolution": "720p", "duration": 5, "aspect_ratio": "16:9"}
    assert model.fields[0] == "prompt"


def test_manifest_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    assert manifest_schema() is manifest_schema()


def test_the_packaged_schemas_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a wheel the schemas stand inside the package; in a checkout beside it."""
    beside = schema_folder()
    assert (Path(str(beside)) / "manifest.schema.json").is_file()
    (tmp_path / "schemas").mkdir()
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    assert schema_folder() == tmp_path / "schemas"


def test_a_model_without_title_or_price() -> None:
    schema = {
        "properties": {"model": {"const": "bare"}, "anything": True},
        "x-batchrunner": {"provider": "reapi", "endpoint": "/x", "output": "image"},
    }
    bare = catalogue.model_of(json.loads(json.dumps(schema)))
    assert (bare.title, bare.price, bare.defaults, bare.fields) == ("bare", None, {}, ("anything",))
