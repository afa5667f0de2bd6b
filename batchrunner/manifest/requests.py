"""A model's request fields: types, schema, warnings, price; each checked once for each distinct value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..catalogue import Model, resolved
from ..core.names import SLOT, CommonName
from ..core.pricing import Price
from .findings import did_you_mean, listed, quoted
from .scalars import resolve, typed
from .schema_errors import Explainer, Problem, gate, show

OF_MODEL = "a shot has no provider of its own: it goes to the service of its model (`batchrunner models` lists them)"
SHOT_KEYS = ("id", "matrix", "exclude", "takes", "tags")
"""Keys of a shot that are no request fields."""
_MEMO = 1 << 16
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """Something wrong with a request: with `field`, or with the request as a whole (None)."""

    field: str | None
    problem: Problem


class ModelRules:
    """What one model's schema says of requests.

    The schema is taken apart: each field's own subschema, whose answers are remembered by value, and the rules
    that concern the request as a whole. A test holds that both together refuse what the whole schema refuses.
    Validators are built when they are first asked: a manifest uses few of the models there are.
    """

    def __init__(self, model: Model, price: Price | None) -> None:
        self.model = model
        self.price = price
        schema = model.schema
        self.properties: Mapping[str, Any] = schema["properties"]
        self.names = model.names
        self.renamed = frozenset(n for n, c in self.names.items() if c != CommonName({n: SLOT}))
        """Common names that are more than a field of that name."""
        leaves = {n: _leaf(schema, c) for n, c in self.names.items() if n in self.renamed}
        own = {n: resolved(schema, s) for n, s in self.properties.items()}
        self.accepts: Mapping[str, Any] = {**leaves, **own}
        """Every field and common name that a manifest may give, with its schema; empty for what the model can't."""
        self.takes = frozenset(self.properties) | {n for n, c in self.names.items() if c.fields}
        self.strings = frozenset(n for n, s in self.accepts.items() if is_text(s))
        self.integers = frozenset(n for n, s in self.accepts.items() if s.get("type") == "integer")
        self._noted = schema.get("x-batchrunner", {}).get("warnings", [])
        rules = {k: v for k, v in schema.items() if k not in ("properties", "additionalProperties")}
        self._rules = Explainer(rules)
        self._parts = {n: {**_definitions(schema), **s} for n, s in self.properties.items()}
        self._fields = {n: Explainer(part) for n, part in self._parts.items()}
        self._gates: dict[str, Callable[[Any], bool]] = {}
        self._known: dict[Any, list[Problem]] = {}
        self._prices: dict[Any, int | None] = {}
        self._price_fields = price.fields if price else ()

    @cached_property
    def valid(self) -> Callable[[Any], bool]:
        """Whether a request is valid."""
        return gate(self.model.schema).is_valid  # type: ignore[no-any-return]

    @cached_property
    def clean(self) -> Callable[[Any], bool]:
        """Whether a request is valid and nothing is to be said of it: one call for most jobs."""
        schema = self.model.schema
        if not self._noted:
            return self.valid
        noted = {"not": {"anyOf": [w["if"] for w in self._noted]}}
        return gate({**schema, "allOf": [*schema.get("allOf", []), noted]}).is_valid  # type: ignore[no-any-return]

    @cached_property
    def _warnings(self) -> list[tuple[Any, str, str]]:
        definitions = _definitions(self.model.schema)
        return [(gate({**definitions, **w["if"]}), str(w["field"]), str(w["message"])) for w in self._noted]

    def convert(self, field: str, value: Any) -> Any:
        """A value as the request carries it: a whole float becomes an int where the field is one."""
        if type(value) is float and field in self.integers and value.is_integer():
            return int(value)
        return value

    def from_text(self, field: str, text: str) -> Any:
        """The value of a CSV cell: text where the field is text, else what YAML would make of it.

        Raises:
            BadScalar: a number that is none.
        """
        if field in self.strings or field not in self.accepts:
            return text
        return resolve(text.strip())

    def no_field(self, field: str) -> str:
        """What to say of a field that the model doesn't have."""
        if field == "provider":
            return f"{OF_MODEL}; {self.model.name} is {self.model.provider}'s"
        hint = did_you_mean(field, [*self.model.fields, *sorted(self.takes - {"model"}), *SHOT_KEYS])
        return f"{self.model.name} has no field {quoted(field)}{hint}; its fields: {listed(self.model.fields)}"

    def field_problems(self, field: str, value: Any) -> list[Problem]:
        """What is wrong with one field of the model, by its own subschema."""
        if field not in self.properties:
            return [Problem((), self.no_field(field), at_key=True)]
        key = (field, typed(value))
        found = self._known.get(key)
        if found is None:
            found = [] if self._field_is_valid(field)(value) else self._fields[field].problems(value, field)
            if len(self._known) < _MEMO:
                self._known[key] = found
        return found

    def _field_is_valid(self, field: str) -> Callable[[Any], bool]:
        """Whether a value of the field is valid: as a rule it is, and then nothing has to be imported to explain it."""
        if field not in self._gates:
            self._gates[field] = gate(self._parts[field]).is_valid
        return self._gates[field]

    def common_problems(self, name: str, value: Any) -> list[Problem]:
        """What is wrong with the value of a common name that the model can take."""
        common = self.names[name]
        if name in self.properties:
            return self.field_problems(name, common.word(value))
        if common.values:
            return [] if common.word(value) is not value else [Problem((), self._no_word(name, value))]
        key = (name, typed(value))
        found = self._known.get(key)
        if found is None:
            called = f"; {self.model.name} calls it {common.called}"
            leaf = Explainer({**_definitions(self.model.schema), **self.accepts[name]})
            found = [Problem(p.steps, p.message + called, p.at_key) for p in leaf.problems(value, name)]
            if len(self._known) < _MEMO:
                self._known[key] = found
        return found

    def _no_word(self, name: str, value: Any) -> str:
        common = self.names[name]
        own = any(value == word for word in common.values.values())
        hint = f" (or {common.called}: {value})" if own else did_you_mean(str(value), common.values)
        called = f"; {self.model.name} calls it {common.called}"
        return f"{name} must be one of {listed(common.values)}, got {show(value)}{hint}{called}"

    def own_words(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields and common names as the model's fields, whatever their values are worth."""
        found: dict[str, Any] = {}
        for name, value in fields.items():
            found |= self.names[name].own(value) if name in self.renamed else {name: value}
        return found

    def cant(self, name: str) -> str:
        """What to say of a common name that the model can't take."""
        return f"{self.model.name} can't take {name}: {self.names[name].reason}"

    def problems(
        self, request: Mapping[str, Any], subject: str = "the request", spelled: Mapping[str, str] = _NONE
    ) -> list[FieldProblem]:
        """Everything wrong with a request, called `subject` in messages; empty where it is valid.

        Args:
            request: in the model's own words.
            subject: how to call it.
            spelled: which of its fields a common name has set; they are told under that name.
        """
        given = {f: value for f, value in request.items() if f not in spelled}
        found = [FieldProblem(f, p) for f, value in given.items() for p in self.field_problems(f, value)]
        for name in dict.fromkeys(spelled.values()):
            found += [FieldProblem(name, p) for p in self.common_problems(name, self.names[name].told(request))]
        for problem in self._rules.problems(request, subject):
            field = problem.steps[0] if problem.steps else None
            if isinstance(field, str):
                name = spelled.get(field, field)
                steps = problem.steps[1:] if name == field else ()
                message = problem.message if name == field else f"{problem.message}; {name} sets {field}"
                found.append(FieldProblem(name, Problem(steps, message, problem.at_key)))
            else:
                found.append(FieldProblem(None, problem))
        if not found and not self.valid(request):
            found.append(FieldProblem(None, Problem((), f"{subject} is not valid for {self.model.name}")))
        return found

    def warnings(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(field, message) of everything that the user should know about a valid request."""
        return [(field, message) for holds, field, message in self._warnings if holds.is_valid(request)]

    def credits(self, request: Mapping[str, Any]) -> int | None:
        """The price in whole credits; None where none is known."""
        if self.price is None:
            return None
        values = tuple(map(request.get, self._price_fields))
        key = (values, tuple(map(type, values)))
        try:
            return self._prices[key]
        except KeyError:
            pass
        except TypeError:  # a field that is a list: rare, and never remembered
            return self.price.credits(request, self.model.defaults)
        found = self.price.credits(request, self.model.defaults)
        if len(self._prices) < _MEMO:
            self._prices[key] = found
        return found

    def missing_length(self, request: Mapping[str, Any]) -> str | None:
        """The field that would give the price, where that hangs on a length that nobody gives."""
        price = self.price
        if price is None or price.per != "second" or price.seconds not in self.properties:
            return None
        return price.seconds if price.seconds not in {**self.model.defaults, **request} else None

    def seconds(self, request: Mapping[str, Any]) -> int | None:
        """Length of the clip that is asked for, where the model has one."""
        return self.model.length(request)


def problems_of(model: Model, request: Mapping[str, Any]) -> str:
    """What is wrong with a request, as a sentence; empty for nothing."""
    return "; ".join(p.problem.message for p in ModelRules(model, None).problems(request))


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"$defs": schema["$defs"]} if "$defs" in schema else {}


def _leaf(schema: Mapping[str, Any], common: CommonName) -> Mapping[str, Any]:
    """The subschema of the value that a common name stands for."""
    found: Any = schema
    for step in common.path:
        found = found.get("items", {}) if isinstance(step, int) else found.get("properties", {}).get(step, {})
        found = resolved(schema, found)
    return found if common.path else {}


def is_text(schema: Any) -> bool:
    """Whether a subschema allows strings only."""
    if not isinstance(schema, dict):
        return False
    if "enum" in schema:
        return all(isinstance(v, str) for v in schema["enum"])
    if "const" in schema:
        return isinstance(schema["const"], str)
    return bool(schema.get("type") == "string")
