"""Checks of what applies to every shot: defaults, profiles, prices. Each is reported once, where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .findings import Report, did_you_mean, listed, quoted
from .located import Node, Place
from .requests import OF_MODEL, SHOT_KEYS, ModelRules
from .schema_errors import Problem
from .shots import Layer, is_simple, strings

Rules = Mapping[str, ModelRules]


def place_of(node: Node, problem: Problem) -> Place:
    """Where a problem of `node`'s value stands."""
    if not problem.at_key:
        return node.find(problem.steps)
    *above, last = problem.steps
    for step in above:
        node = node.child(step)
    return node.key(str(last))


def unknown_model(name: str, known: Iterable[str]) -> str:
    """What to say of a model that isn't in the catalogue."""
    names = list(known)
    return f"unknown model {quoted(name)}{did_you_mean(name, names)}; models: {listed(names)}"


def usual_first(rules: Rules) -> list[str]:
    """Every field that a model takes, and every common name: what most models take first, so that a list that is cut
    has what is likely to be looked for."""
    takers = Counter(name for r in rules.values() for name in r.takes)
    return sorted(takers, key=lambda name: (-takers[name], name))


def any_model_problems(rules: Rules, field: str, value: Any) -> list[Problem]:
    """What is wrong with a field when its model is not known: no model has it, or none takes its value."""
    if field == "provider":
        return [Problem((), OF_MODEL, at_key=True)]
    having = [r for r in rules.values() if field in r.takes]
    if not having:
        known = [name for name in usual_first(rules) if name != "model"]
        hint = did_you_mean(field, [*known, *SHOT_KEYS])
        return [Problem((), f"no model has a field {quoted(field)}{hint}; fields: {listed(known)}", at_key=True)]
    found = [_given(r, field, value) for r in having]
    if not all(found) or len(having) == 1:
        return found[0] if all(found) else []
    said = f"no model takes this; by {having[0].model.name}, "
    return [Problem(p.steps, said + p.message, p.at_key) for p in found[0]]


def check_layer(layer: Layer, model: str | None, rules: Rules, report: Report) -> None:
    """Check the fields of defaults or a profile once, for all shots; bad ones are reported and left out.

    Args:
        layer: what to check.
        model: the model that its values are meant for; None where that is not known here.
        rules: the models.
        report: where problems go.
    """
    own = layer.fields.get("model")
    if isinstance(own, str) and is_simple(own) and own not in rules:
        report.error(layer.node.at("model"), unknown_model(own, rules))
        layer.drop("model")
    for name, value in list(layer.fields.items()):
        if name == "model" or report.full:
            continue
        problems = field_problems(rules, model, name, value)
        for problem in problems:
            steps = (name, *problem.steps)
            report.error(place_of(layer.node, Problem(steps, problem.message, problem.at_key)), problem.message)
        if problems:
            layer.drop(name)
    layer.simple = all(map(is_simple, layer.fields.values()))


def field_problems(rules: Rules, model: str | None, name: str, value: Any) -> list[Problem]:
    """What is wrong with a raw field; nothing is said of a value with a variable in it."""
    own = rules.get(model or "")
    known = own.takes if own else {n for r in rules.values() for n in r.takes}
    if name in known and not all(map(is_simple, strings(value))):
        return []
    return _given(own, name, value) if own else any_model_problems(rules, name, value)


def _given(rules: ModelRules, name: str, value: Any) -> list[Problem]:
    """What is wrong with a field, or a common name, of what applies to many shots."""
    value = rules.convert(name, value)
    if name not in rules.renamed:
        return rules.field_problems(name, value)
    common = rules.names[name]
    if common.fields:
        return rules.common_problems(name, value)
    return [] if common.needless(value, shared=True) else [Problem((), rules.cant(name), at_key=True)]


def check_price(node: Node, rules: ModelRules, report: Report) -> None:
    """Check the fields and values in the conditions of a price that the manifest gives."""
    for i, rate in enumerate(node.value.get("rates", [])):
        here = node.child("rates").child(i)
        for name, wanted in rate.get("when", {}).items():
            for value in wanted if isinstance(wanted, list) else [wanted]:
                for problem in rules.field_problems(name, value):
                    when = here.child("when")
                    report.error(when.key(name) if problem.at_key else when.at(name), problem.message)
        for key in ("given", "without"):
            for n, name in enumerate(rate.get(key, [])):
                if name not in rules.properties:
                    report.error(here.child(key).at(n), rules.no_field(name))
