"""Reads, checks and expands a manifest. The room's front door."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import catalogue, plugins
from ..catalogue import Model
from ..core.job import RetryBudget
from ..core.limits import Limits, parse_limits
from ..core.places import Place, Remote, is_url
from ..core.pricing import Price, parse_price
from ..core.text import visible
from .checks import Checker
from .events import read_yaml
from .expand import Expansion
from .findings import Report, Stop, did_you_mean, listed, quoted
from .layers import check_layer, check_price, unknown_model, usual_first
from .located import Document, Map, Node
from .model import DEFAULT_IN_FLIGHT, DEFAULT_SUBMITS_PER_MINUTE, Manifest
from .notices import sinks
from .outputs import NameTemplate, folder
from .promotion import Promotion
from .reading import check_text, read_bytes
from .requests import SHOT_KEYS, ModelRules
from .schema_errors import gate
from .shots import Layer, Settings, strings
from .sources import Sources, check_head
from .templates import NAME, RESERVED, TemplateError, names_in, resolve_variables

DEFAULT_PROVIDER = "reapi"
DEFAULT_DIR = "outputs/${batch}"


def load(
    file: str | os.PathLike[str],
    *,
    profile: str | None = None,
    variables: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    models: Mapping[str, Model] | None = None,
) -> Manifest:
    """Read a manifest, check all of it, and expand it.

    Args:
        file: the manifest; findings show it as it is spelled here.
        profile: `--profile`: name of the profile to apply.
        variables: `--var`: name to text, over the manifest's `vars`.
        secrets: texts that no file may contain, such as the API key; they are never shown.
        models: the models there are; None for the shipped ones.

    Returns:
        the manifest; its jobs are made when they are walked.

    Raises:
        ManifestError: with everything that is wrong, sorted by position.
    """
    with _collector_off():
        return _Loader(os.fspath(file), profile, dict(variables or {}), secrets, models).load()


def load_profile(
    file: str | os.PathLike[str],
    profile: str,
    *,
    variables: Mapping[str, str],
    secrets: Sequence[str] = (),
    models: Mapping[str, Model] | None = None,
) -> Promotion:
    """Read the head of a manifest for one of its profiles; its shots are not looked at. Arguments as in `load`.

    Raises:
        ManifestError: with everything that is wrong in the head, or there is no such profile.
    """
    with _collector_off():
        return _Loader(os.fspath(file), profile, dict(variables), secrets, models).promotion(profile)


@contextmanager
def _collector_off() -> Iterator[None]:
    """The tree has no cycles and lives on: collecting while it grows only costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Loader:
    def __init__(
        self,
        file: str,
        profile: str | None,
        overrides: dict[str, str],
        secrets: Sequence[str],
        models: Mapping[str, Model] | None,
    ) -> None:
        self.models = catalogue.models() if models is None else models
        self.file = file
        self.profile = profile
        self.overrides = overrides
        self.report = Report(secrets)
        self.document = Document(file)
        self.schema = catalogue.manifest_schema()

    def load(self) -> Manifest:
        root, settings = self._head()
        head, report, name = root.value, self.report, settings.name
        expansion = Expansion(settings, self._sources(root, settings.variables, settings.rules))
        output = self._output(root, settings.variables)
        budget = _section(root, "budget").value.get("max_credits")
        output_node = _section(root, "output")
        checker = Checker(expansion, self.schema, report, output_node.at("name"), budget is not None)
        checker.run()
        notify = sinks(root, settings.variables, report) if not report.errors else ()
        limits = self._limits(root, settings.rules)
        self._unused(head, checker.used | (name.names if name else frozenset()))
        if not checker.sums.models and not report.errors:
            report.warning(root.key("shots"), "the manifest has no shots: there is nothing to do")
        report.check()
        expansion.count = checker.sums.jobs
        used = frozenset(settings.rules[name].model.provider for name in checker.sums.models)
        return Manifest(
            profile=self.profile,
            **self._bounds(root, settings),
            output_dir=self._place(output),
            jobs=expansion,
            providers=used,
            limits=limits,
            notify=notify,
            warnings=report.warnings(),
            chained=checker.links.any,
            sums=checker.sums,
        )

    def promotion(self, profile: str) -> Promotion:
        root, settings = self._head()
        self._unused(root.value, set())
        notify = sinks(root, settings.variables, self.report) if not self.report.errors else ()
        limits = self._limits(root, settings.rules)
        self.report.check()
        bounds = self._bounds(root, settings)
        return Promotion(profile=profile, **bounds, settings=settings, limits=limits, notify=notify)

    def _head(self) -> tuple[Node, Settings]:
        """The manifest without its shots."""
        root = self._read()
        head = root.value
        check_head(root, self.schema, "", self.report, broken=self.report.errors > 0)
        batch = head.get("batch") if isinstance(head.get("batch"), str) else ""
        provider = self._provider(root)
        values = self._variables(root, batch)
        rules = self._rules(root, provider)
        under, over = self._layers(root, rules)
        return root, Settings(batch, provider, self.profile, values, under, over, self._name(root), rules)

    def _bounds(self, root: Node, settings: Settings) -> dict[str, Any]:
        """What a valid head says of the batch as a whole."""
        limits, retry = _section(root, "limits").value, _section(root, "retry").value
        budget = _section(root, "budget").value.get("max_credits")
        return {
            "file": Path(os.path.abspath(self.file)),
            "batch": settings.batch,
            "provider": settings.provider,
            "max_credits": None if budget is None else int(budget),
            "submits_per_minute": float(limits.get("submits_per_minute", DEFAULT_SUBMITS_PER_MINUTE)),
            "in_flight": int(limits.get("in_flight", DEFAULT_IN_FLIGHT)),
            "retry": RetryBudget(int(retry.get("provider", 0)), int(retry.get("moderated", 0))),
        }

    # --- reading -----------------------------------------------------------------------------------------

    def _read(self) -> Node:
        try:
            data = read_bytes(self.document, self.file, self.report)
            check_text(self.document, data, self.report)
            read_yaml(self.document, data, self.report)
        except Stop:
            self.report.check()
        if not isinstance(self.document.root, Map):
            self.report.error_at(self.document, 1, 1, "a manifest is a mapping with the keys version, batch and shots")
            self.report.check()
        return Node(self.document, self.document.root)

    def _sources(self, root: Node, values: Mapping[str, Any], rules: Mapping[str, ModelRules]) -> list[Node]:
        spelled = os.path.dirname(self.file)
        columns = dict.fromkeys(
            (*SHOT_KEYS, *usual_first(rules), *(name for r in rules.values() for name in r.accepts))
        )
        sources = Sources(os.path.realpath(spelled or "."), spelled, self.report, values, columns, self.schema)
        sources.collections = self.document.collections
        sources.collect(root, "", (os.path.basename(self.file),))
        return sources.lists

    # --- the head ----------------------------------------------------------------------------------------

    def _provider(self, root: Node) -> str:
        name = root.value.get("provider", DEFAULT_PROVIDER)
        known = {*plugins.SHIPPED, *(m.provider for m in self.models.values())}
        if isinstance(name, str) and name not in known and name not in (known := {*known, *plugins.names()}):
            self.report.error(
                root.at("provider"),
                f"unknown provider {quoted(name)}{did_you_mean(name, known)}; providers: {listed(sorted(known))}",
            )
            return DEFAULT_PROVIDER
        return name if isinstance(name, str) else DEFAULT_PROVIDER

    def _limits(self, root: Node, rules: Mapping[str, ModelRules]) -> Limits:
        """Bounds of polls, and of single providers and models; the names must be those of some."""
        section = _section(root, "limits")
        given: dict[str, Any] = {"polls_per_minute": section.value.get("polls_per_minute")}
        for kind, known in (
            ("providers", sorted({rule.model.provider for rule in rules.values()})),
            ("models", sorted(rules)),
        ):
            node = _section(section, kind)
            for name in node.value:
                if name not in known:
                    said = f"; {kind}: {listed(known)}"
                    self.report.error(
                        node.key(name), f"unknown {kind[:-1]} {quoted(name)}{did_you_mean(name, known)}{said}"
                    )
            given[kind] = {name: bounds for name, bounds in node.value.items() if isinstance(bounds, Map)}
        return Limits() if self.report.errors else parse_limits(given)

    def _variables(self, root: Node, batch: str) -> dict[str, Any]:
        node = _section(root, "vars")
        declared = {k: v for k, v in node.value.items() if isinstance(v, (str, int, float, bool))}
        values, problems = resolve_variables(declared, self.overrides, batch)
        for name, message in problems.items():
            if name in self.overrides:
                self.report.error_at(self.document, 1, 1, f"--var {visible(name, 60)}: {message}")
            else:
                self.report.error(node.at(name), message)
        return values

    def _unused(self, head: Mapping[str, Any], used: set[str]) -> None:
        declared = _as_map(head.get("vars"))
        if self.overrides:
            elsewhere = {key: value for key, value in head.items() if key != "shots"}
            used = used.union(*(names_in(text) for text in strings(elsewhere)))
        for name in self.overrides:
            if NAME.fullmatch(name) and name not in RESERVED and name not in declared and name not in used:
                hint = did_you_mean(name, declared)
                self.report.error_at(
                    self.document,
                    1,
                    1,
                    f"--var {name}: the manifest uses no such variable{hint}"
                    + (f"; its variables: {listed(declared)}" if declared else ""),
                )

    def _rules(self, root: Node, provider: str) -> dict[str, ModelRules]:
        node = _section(root, "prices")
        only = {provider} if "provider" in root.value else {m.provider for m in self.models.values()}
        known = {n: m for n, m in self.models.items() if m.provider in only}
        prices: dict[str, Price] = {}
        is_price = gate({"$ref": "#/$defs/price", "$defs": self.schema["$defs"]}).is_valid
        for name, data in node.value.items():
            if name not in known:
                self.report.error(node.key(name), unknown_model(name, known))
            elif is_price(data):
                prices[name] = parse_price(data)
        rules = {n: ModelRules(m, prices.get(n, m.price)) for n, m in known.items()}
        for name in prices:
            check_price(node.child(name), rules[name], self.report)
        return rules

    def _layers(self, root: Node, rules: Mapping[str, ModelRules]) -> tuple[Layer, Layer]:
        under = Layer.read(_section(root, "defaults"))
        profiles = _section(root, "profiles")
        base = under.fields.get("model")
        check_layer(under, base if isinstance(base, str) else None, rules, self.report)
        over = Layer(Node(self.document, _EMPTY))
        for name, value in profiles.value.items():
            if not isinstance(value, Map) or self.report.full:
                continue
            layer = Layer.read(profiles.child(name))
            model = layer.fields.get("model", base)
            check_layer(layer, model if isinstance(model, str) else None, rules, self.report)
            if name == self.profile:
                over = layer
        if self.profile is not None and self.profile not in profiles.value:
            known = list(profiles.value)
            said = f"; profiles: {listed(known)}" if known else "; the manifest has no profiles"
            self.report.error(
                root.key("profiles"), f"unknown profile {quoted(self.profile)}{did_you_mean(self.profile, known)}{said}"
            )
        return under, over

    def _output(self, root: Node, values: Mapping[str, Any]) -> str:
        node = _section(root, "output")
        text = node.value.get("dir", DEFAULT_DIR)
        try:
            return folder(text, values) if isinstance(text, str) and values.get("batch") else "."
        except TemplateError as error:
            self.report.error(node.at("dir"), str(error))
            return "."

    def _place(self, output: str) -> Place:
        if is_url(output):
            return Remote(output)
        return Path(os.path.abspath(os.path.join(os.path.dirname(self.file) or ".", output)))

    def _name(self, root: Node) -> NameTemplate | None:
        node = _section(root, "output")
        text = node.value.get("name")
        if not isinstance(text, str):
            return None
        try:
            return NameTemplate(text)
        except TemplateError as error:
            self.report.error(node.at("name"), f"output.name: {error}")
            return None


_EMPTY = Map()
_EMPTY.at = _EMPTY.end = 0


def _as_map(value: Any) -> Map:
    return value if isinstance(value, Map) else _EMPTY


def _section(root: Node, name: str) -> Node:
    """A mapping of the head; an empty one where it is absent or something else (that was reported)."""
    if isinstance(root.value.get(name), Map):
        return root.child(name)
    return Node(root.document, _EMPTY, f"{root.path}.{name}" if root.path else name)
