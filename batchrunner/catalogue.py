"""The models as data: a JSON Schema each, with endpoint, output kind and dated price beside it.

A model is one file, `schemas/models/<model>.schema.json` (`/` of its name is `__` there). What JSON Schema has no word
for stands in its `x-batchrunner` object: `provider`, `endpoint`, `output` (`video`, `image`, `audio`), `seconds` (the
field that holds the clip's length), `price`, `as_text` (whole numbers that are sent as text), `names` (what it calls
the common names) and `warnings` about valid requests.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .core.names import CommonName, parse_names
from .core.pricing import Price, parse_price

SUFFIX = ".schema.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue.

    Attributes:
        name: as in the manifest and the request.
        provider: name of the provider that runs it.
        title: for people.
        endpoint: path below the provider's base URL.
        output: `video`, `image` or `audio`.
        schema: the JSON Schema of the request object, `model` included.
        defaults: the provider's default for every field that has one.
        price: None where unknown.
        seconds: the field that holds the clip's length in whole seconds; None where there is none.
        names: what it makes of the common names; one that is missing it has no field for.
        file: absolute path of a user's own file; empty for a model that is shipped.
        as_text: fields whose whole numbers the service wants as text.
    """

    name: str
    provider: str
    title: str
    endpoint: str
    output: str
    schema: dict[str, Any]
    defaults: dict[str, Any]
    price: Price | None
    seconds: str | None = None
    names: Mapping[str, CommonName] = field(default_factory=dict)
    file: str = ""
    as_text: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The request fields, without `model`."""
        return tuple(name for name in self.schema["properties"] if name != "model")

    def field(self, name: str) -> dict[str, Any]:
        """The subschema of a field; a rule of `$defs` that it names is filled in."""
        found: dict[str, Any] = resolved(self.schema, self.schema["properties"][name])
        return found

    @property
    def rules(self) -> tuple[str, ...]:
        """What holds between the fields, in words."""
        either = [b["title"] for b in self.schema.get("anyOf", ()) if "title" in b]
        told = [r["description"] for r in self.schema.get("allOf", ()) if "description" in r]
        return (*([f"Needs {' or '.join(either)}."] if either else []), *told)

    def sent(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request's fields for a service that is told the model elsewhere: without `model`, numbers as text where
        it wants them so."""
        return {
            name: str(value) if name in self.as_text and isinstance(value, int) else value
            for name, value in request.items()
            if name != "model"
        }

    def common(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The common names that a request (defaults filled in) says something of, with their values."""
        full = {**self.defaults, **request}
        told = {name: common.told(full) for name, common in self.names.items()}
        return {name: value for name, value in told.items() if value is not None}

    def length(self, request: Mapping[str, Any]) -> int | None:
        """Length of the clip that a request asks for, in seconds; None where it says none."""
        value = request.get(self.seconds, self.defaults.get(self.seconds)) if self.seconds else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def file_name(model: str) -> str:
    """The name of a model's file. `/` is no part of a file's name, and `__` of no service's model that we know."""
    return model.replace("/", "__") + SUFFIX


def resolved(schema: Mapping[str, Any], part: Any) -> Any:
    """A subschema; where it names a rule of `$defs`, that rule is filled in."""
    if isinstance(part, dict) and "$ref" in part:
        return {**schema.get("$defs", {}).get(str(part["$ref"]).removeprefix("#/$defs/"), {}), **part}
    return part


def schema_folder() -> Traversable:
    """The folder with the schemas: in the installed package, or beside it in a checkout."""
    packaged = resources.files("batchrunner") / "schemas"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parent.parent / "schemas"


@functools.cache
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of the manifest, version 1."""
    loaded: dict[str, Any] = json.loads((schema_folder() / "manifest.schema.json").read_text("utf-8"))
    return loaded


@functools.cache
def model_schema() -> dict[str, Any]:
    """The JSON Schema of a model's file."""
    loaded: dict[str, Any] = json.loads((schema_folder() / "model.schema.json").read_text("utf-8"))
    return loaded


def model_of(schema: dict[str, Any]) -> Model:
    """A model from its file's value, valid by `model_schema`."""
    extra = schema["x-batchrunner"]
    properties = schema["properties"]
    seconds = extra.get("seconds")
    return Model(
        name=properties["model"]["const"],
        provider=extra["provider"],
        title=schema.get("title", properties["model"]["const"]),
        endpoint=extra["endpoint"],
        output=extra["output"],
        schema=schema,
        defaults={k: v["default"] for k, v in properties.items() if isinstance(v, dict) and "default" in v},
        price=parse_price(extra["price"], seconds or "duration") if "price" in extra else None,
        seconds=seconds,
        names=parse_names(extra.get("names", {}), properties),
        as_text=tuple(extra.get("as_text", ())),
    )


@functools.cache
def models() -> Mapping[str, Model]:
    """Every model that is shipped, by name, sorted."""
    folder = schema_folder() / "models"
    found = [model_of(json.loads(f.read_text("utf-8"))) for f in folder.iterdir() if f.name.endswith(SUFFIX)]
    return {m.name: m for m in sorted(found, key=lambda m: m.name)}
