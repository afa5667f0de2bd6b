"""A user's own models: a folder of `MODEL.schema.json` files beside the catalogue that is shipped.

They come from anywhere, like manifests, and are read by the same bounded reader, so that errors have positions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import catalogue, plugins
from ..catalogue import SUFFIX, Model, file_name
from ..core.names import SLOT
from ..core.text import visible
from .events import read_yaml
from .findings import Report, Stop, did_you_mean, listed, quoted
from .layers import check_price, place_of
from .located import Document, Map, Node
from .reading import check_text, position_of, read_bytes
from .requests import ModelRules
from .schema_errors import Explainer, gate

MAX_FILES = 1000
MAX_FILE = 1024 * 1024
"""Bytes of one model's file; the longest that is shipped has 8 KiB."""


def read_models(folder: str | os.PathLike[str]) -> Mapping[str, Model]:
    """The shipped models and those of a folder, which win, by name, sorted.

    Raises:
        ManifestError: with everything that is wrong with any file of the folder.
    """
    spelled = os.fspath(folder)
    report = Report()
    shipped = catalogue.models()
    found = dict(shipped)
    try:
        names = sorted(n for n in os.listdir(spelled) if n.endswith(".json") and not n.startswith("."))
    except OSError as error:
        report.error_at(Document(spelled), 1, 1, f"can't read the folder: {error.strerror}")
        names = []
    if len(names) > MAX_FILES:
        report.error_at(Document(spelled), 1, 1, f"too many files: at most {MAX_FILES} models are read")
        names = []
    if not names and not report.errors:
        report.error_at(Document(spelled), 1, 1, f"no models here: a model's file is called MODEL{SUFFIX}")
    providers = sorted(plugins.names())
    for name in names:
        document = Document(os.path.join(spelled, name))
        model = _read(document, name, providers, report)
        if model is not None:
            found[model.name] = replace(model, file=os.path.abspath(document.name))
    report.check()
    return {name: found[name] for name in sorted(found)}


def _read(document: Document, name: str, providers: list[str], report: Report) -> Model | None:
    before = report.errors
    try:
        data = read_bytes(document, document.name, report, MAX_FILE)
        check_text(document, data, report)
        schema = _json(document, data, report)
        # A tab is a space to JSON, and nothing to YAML; in a text it must be escaped.
        read_yaml(document, data.replace(b"\t", b" "), report)
    except Stop:
        return None
    if report.errors != before:
        return None
    if not isinstance(document.root, Map):
        report.error_at(document, 1, 1, "a model's file is a JSON object; `batchrunner schema MODEL` shows one")
        return None
    node = Node(document, document.root)
    meta = catalogue.model_schema()
    if not gate(meta).is_valid(schema):
        for problem in Explainer(meta).problems(schema, "the model"):
            report.error(place_of(node, problem), problem.message)
        return None
    return _Checks(node, schema, providers, report).model(name)


def _json(document: Document, data: bytes, report: Report) -> Any:
    """The file's value as JSON reads it.

    Raises:
        Stop: it is no JSON; reported.
    """

    def constant(text: str) -> None:
        raise ValueError(f"{text} is not a number that JSON knows")

    try:
        return json.loads(data, parse_constant=constant)
    except json.JSONDecodeError as error:
        at = len(data.decode("utf-8-sig")[: error.pos].encode())
        line, column = position_of(data, at)
        report.error_at(document, line, column, f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}")
    except (ValueError, RecursionError) as error:
        report.error_at(document, 1, 1, f"not valid JSON: {error}")
    raise Stop


class _Checks:
    """What the meta-schema can't say: that names name something, and that values are valid."""

    def __init__(self, node: Node, schema: dict[str, Any], providers: list[str], report: Report) -> None:
        self.node = node
        self.extra = node.child("x-batchrunner")
        self.schema = schema
        self.providers = providers
        self.report = report
        self.properties: dict[str, Any] = schema["properties"]

    def model(self, file: str) -> Model | None:
        """The model, None where anything was reported."""
        before = self.report.errors
        self._name(file)
        self._references()
        if self.report.errors == before:
            self._usable()
        if self.report.errors != before:
            return None
        model = catalogue.model_of(self.schema)
        rules = ModelRules(model, model.price)
        self._defaults(rules)
        self._fields()
        self._price(rules)
        self._spellings(model, rules)
        return model if self.report.errors == before else None

    def _name(self, file: str) -> None:
        name = self.properties["model"]["const"]
        if file != file_name(name):
            place = self.node.child("properties").child("model").at("const")
            self.report.error(place, f"the model is called {name}, so its file must be called {file_name(name)}")
        if "model" not in self.schema["required"]:
            self.report.error(self.node.at("required"), "model must be among the required fields")
        provider = self.extra.value["provider"]
        if provider not in self.providers:
            hint = did_you_mean(provider, self.providers)
            message = f"unknown provider {quoted(provider)}{hint}; providers: {listed(self.providers)}"
            self.report.error(self.extra.at("provider"), message)

    def _references(self) -> None:
        known = self.schema.get("$defs", {})
        for node in _objects(self.node):
            target = node.value.get("$ref")
            if not isinstance(target, str):
                continue
            if node.path.startswith("$defs"):
                self.report.error(node.at("$ref"), "a rule of $defs must not name another one")
            elif target.removeprefix("#/$defs/") not in known:
                message = f"there is no {visible(target, 80)}; $defs has {listed(known) or 'nothing'}"
                self.report.error(node.at("$ref"), message)

    def _usable(self) -> None:
        """Whether the schema, with everything in it, can be built: patterns are the only thing left to be wrong."""
        for node in _objects(self.node):
            pattern = node.value.get("pattern")
            if isinstance(pattern, str):
                try:
                    gate({"pattern": pattern})
                except ValueError:
                    message = f"the pattern {quoted(pattern)} can't be used: no look-around, no back references"
                    self.report.error(node.at("pattern"), message)

    def _defaults(self, rules: ModelRules) -> None:
        for name, value in rules.model.defaults.items():
            field = self.node.child("properties").child(name)
            for problem in rules.field_problems(name, value):
                self.report.error(field.at("default"), f"the default is not valid: {problem.message}")

    def _known(self, node: Node, step: str | int, name: str) -> bool:
        if name in self.properties:
            return True
        hint = did_you_mean(name, self.properties)
        message = f"the model has no field {quoted(name)}{hint}; its fields: {listed(self.properties)}"
        self.report.error(node.key(step) if isinstance(step, str) and step == name else node.at(step), message)
        return False

    def _fields(self) -> None:
        extra = self.extra
        if "seconds" in extra.value:
            name = extra.value["seconds"]
            if self._known(extra, "seconds", name) and not _is_whole(self.properties[name]):
                self.report.error(extra.at("seconds"), f"{name} must be a whole number to be a length in seconds")
        for i, name in enumerate(extra.value.get("as_text", [])):
            if self._known(extra.child("as_text"), i, name) and not _is_whole(self.properties[name]):
                self.report.error(extra.child("as_text").at(i), f"{name} must be a whole number to be sent as text")
        for i, warning in enumerate(extra.value.get("warnings", [])):
            self._known(extra.child("warnings").child(i), "field", warning["field"])

    def _price(self, rules: ModelRules) -> None:
        price = self.extra.value.get("price")
        if price is None:
            return
        node = self.extra.child("price")
        if price["per"] == "second" and "seconds" not in self.extra.value:
            self.report.error(node.at("per"), "a price by the second needs `seconds`, the field of the clip's length")
        check_price(node, rules, self.report)

    def _spellings(self, model: Model, rules: ModelRules) -> None:
        if "names" not in self.extra.value:
            return
        names = self.extra.child("names")
        for name in names.value:
            node, common = names.child(name), model.names[name]
            known = [self._known(node.child("set"), f, f) for f in common.fields]
            for i, field in enumerate(common.not_with):
                self._known(node.child("not_with"), i, field)
            if common.fields and str(common.fields).count(f"'{SLOT}'") != 1:
                self.report.error(node.at("set"), f'"{SLOT}" must stand in it once, in the place of the value')
            elif common.fields and all(known):
                self._words(node, rules, name)

    def _words(self, node: Node, rules: ModelRules, name: str) -> None:
        """Whether the model takes each of its own words for a common name."""
        common = rules.names[name]
        for value, word in common.values.items():
            for field, own in common.own(word).items():
                for problem in rules.field_problems(field, own):
                    self.report.error(node.child("values").at(value), problem.message)


def _objects(node: Node) -> Iterator[Node]:
    """Every object of a tree."""
    if isinstance(node.value, Map):
        yield node
    if isinstance(node.value, (dict, list)):
        for step in node.value if isinstance(node.value, dict) else range(len(node.value)):
            if isinstance(node.value[step], (dict, list)):
                yield from _objects(node.child(step))


def _is_whole(field: Mapping[str, Any]) -> bool:
    values = [field["const"]] if "const" in field else field.get("enum")
    if values is not None:
        return all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    return bool(field.get("type") == "integer")
