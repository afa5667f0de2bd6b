"""JSON Schema errors in words: what is wrong, what is allowed, what was probably meant.

`jsonschema-rs` says whether a value is valid, `jsonschema` why not. So that both mean the same by `pattern`
(`\\d` and digits of other scripts, `$` and a final line feed), `jsonschema` asks `jsonschema-rs` about it.

Where a rule says itself what is wrong (`errorMessage`, `patternErrorMessage`; editors know them too), that is said. An
`errorMessage` continues a sentence that begins with what the rule is about: `needs a prompt`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from ..core.text import visible
from .findings import MAX_KEPT, did_you_mean, listed, quoted

Steps = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a value.

    Attributes:
        steps: the way to it from the value that was checked.
        message: what is wrong and what is allowed.
        at_key: the finding belongs to the last step's key, not to its value.
    """

    steps: Steps
    message: str
    at_key: bool = False


def gate(schema: Mapping[str, Any]) -> Any:
    """The fast validator: `is_valid(value)`. Patterns are matched in linear time: a model may be anybody's.

    Raises:
        ValueError: a pattern that can't be matched so, with look-around or back references.
    """
    return jsonschema_rs.Draft202012Validator(
        dict(schema), validate_formats=False, pattern_options=jsonschema_rs.RegexOptions()
    )


@functools.cache
def _pattern_gate(pattern: str) -> Any:
    return gate({"pattern": pattern})


@functools.cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(_validator: Any, wanted: str, instance: Any, _schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _pattern_gate(wanted).is_valid(instance):
            yield ValidationError(f"{instance!r} does not match {wanted!r}")

    return validators.extend(Draft202012Validator, {"pattern": pattern})  # type: ignore[no-untyped-call]


class Explainer:
    """Explains why values are not valid by one schema. Built once, used for every value that fails."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._validator: Any = None

    def problems(self, value: Any, subject: str = "") -> list[Problem]:
        """Everything wrong with `value` (of a thousand problems, the first); empty where it is valid.

        Args:
            value: a JSON value.
            subject: how to call the value itself in a message, such as `duration`.
        """
        if self._validator is None:
            self._validator = _validator_class()(self._schema)
        found: dict[Problem, None] = {}
        for error in self._validator.iter_errors(value):
            for problem in _explain(error, subject):
                found[problem] = None
                if len(found) >= MAX_KEPT:
                    return list(found)
        return list(found)


def _explain(error: Any, subject: str) -> Iterator[Problem]:
    steps: Steps = tuple(error.absolute_path)
    name = _name(steps, subject)
    schema = error.schema if isinstance(error.schema, dict) else {}
    if "errorMessage" in schema:
        at_key = bool(steps) and schema.get("not") == {}
        yield Problem(steps, f"{name or 'this'} {schema['errorMessage']}", at_key)
    else:
        yield from _words(error, schema, steps, name)


def _words(error: Any, schema: Mapping[str, Any], steps: Steps, name: str) -> Iterator[Problem]:
    kind = str(error.validator)
    if kind in ("additionalProperties", "unevaluatedProperties") and error.validator_value is False:
        yield from _unknown_keys(error, schema, steps, name)
    elif kind == "required":
        missing = error.message.split("' is a required", 1)[0].removeprefix("'")
        yield Problem(steps, f"{name + ' has no' if name else 'there is no'} {missing}; it is required")
    elif "propertyNames" in error.absolute_schema_path:
        yield Problem((*steps, str(error.instance)), _pattern(schema, quoted(str(error.instance))), at_key=True)
    elif kind == "pattern":
        yield Problem(steps, _pattern(schema, f"{name or 'this'} {show(error.instance)}"))
    elif kind in ("anyOf", "oneOf"):
        if error.validator_value[0].get("required") and not isinstance(error.instance, dict):
            return  # its type is refused elsewhere
        yield Problem(steps, _branches(error, schema, name))
    elif kind == "not":
        yield from _not(schema, steps, name)
    elif kind == "dependentRequired":
        yield Problem(steps, f"{name or 'this'}: {error.message}")
    elif kind == "uniqueItems":
        yield Problem(steps, f"{name or 'this list'} must not contain the same value twice")
    elif kind in ("minItems", "maxItems", "minProperties", "maxProperties"):
        yield Problem(steps, f"{name or 'this'} must have {_size(schema)}, got {len(error.instance)}")
    elif kind in ("enum", "const"):
        yield Problem(steps, _one_of(error, schema, name))
    else:
        yield Problem(steps, f"{name or 'this'} must be {allowed(schema)}, got {_got(error.instance, schema)}")


def _name(steps: Steps, subject: str) -> str:
    name = subject
    for step in steps:
        name = f"{name}[{step}]" if isinstance(step, int) else visible(step, 60)
    return name


def _unknown_keys(error: Any, schema: Mapping[str, Any], steps: Steps, name: str) -> Iterator[Problem]:
    known = [k for k, v in schema.get("properties", {}).items() if not (isinstance(v, dict) and v.get("not") == {})]
    where = f" in {name}" if name else ""
    for key in error.instance:
        if key not in schema.get("properties", {}):
            message = f"unknown key {quoted(key)}{where}{did_you_mean(key, known)}; allowed: {listed(known)}"
            yield Problem((*steps, key), message, at_key=True)


def _pattern(schema: Mapping[str, Any], what: str) -> str:
    said = schema.get("patternErrorMessage")
    if said is None:
        said = f"allowed is what matches {schema.get('pattern')}"
    return f"{what} is not valid: {said}"


def _branches(error: Any, schema: Mapping[str, Any], name: str) -> str:
    branches = schema[error.validator]
    titles = [str(b["title"]) for b in branches if isinstance(b, dict) and "title" in b]
    what = name or "this"
    if len(titles) == len(branches) and all("required" in b for b in branches):
        chosen = [t for b, t in zip(branches, titles, strict=True) if set(b["required"]) <= error.instance.keys()]
        if len(chosen) > 1:
            return f"{what} takes only one of {' and '.join(chosen)}"
        return f"{what} needs {_or(titles)}"
    if len(titles) == len(branches):
        return f"{what} must be {_or(titles)}, got {show(error.instance)}"
    if error.context:
        from jsonschema.exceptions import best_match

        return next(_explain(best_match(error.context), name)).message
    return f"{what} is not valid: {error.message[:200]}"


def _not(schema: Mapping[str, Any], steps: Steps, name: str) -> Iterator[Problem]:
    refused = schema["not"]
    if refused == {} and steps:
        yield Problem(steps, f"{name} is not allowed here: {schema.get('description', '')}".rstrip(": "), at_key=True)
        return
    said = (refused.get("title") or refused.get("description")) if isinstance(refused, dict) else None
    both = refused.get("required", []) if isinstance(refused, dict) else []
    if said is None and len(both) > 1:
        said = f"{' and '.join(both)} can't be used together"
    yield Problem(steps, f"{name + ': ' if name else ''}{said or 'this combination is not allowed'}")


def _one_of(error: Any, schema: Mapping[str, Any], name: str) -> str:
    values = schema.get("enum", [schema.get("const")])
    texts = [show(v) if not isinstance(v, str) else v for v in values]
    hint = ""
    if isinstance(error.instance, str):
        hint = did_you_mean(error.instance, [v for v in values if isinstance(v, str)])
        if any(show(v) == error.instance for v in values if not isinstance(v, str)):
            hint = "; write it without quotes"
    wanted = f"one of {listed(texts)}" if len(texts) > 1 else texts[0]
    return f"{name or 'this'} must be {wanted}, got {show(error.instance)}{hint}"


def allowed(schema: Mapping[str, Any]) -> str:
    """What a schema of one value allows, in words: `a whole number from 3 to 15`."""
    if "enum" in schema:
        return f"one of {listed([v if isinstance(v, str) else show(v) for v in schema['enum']])}"
    kinds = schema.get("type", [])
    words = [_kind(k, schema) for k in ([kinds] if isinstance(kinds, str) else kinds)]
    if not words:
        words = [_kind("number", schema)]
    return _or(words)


def _or(words: list[str]) -> str:
    return " or ".join(words) if len(words) < 3 else ", ".join(words[:-1]) + " or " + words[-1]


def _kind(kind: str, schema: Mapping[str, Any]) -> str:
    if kind in ("integer", "number"):
        word = "a whole number" if kind == "integer" else "a number"
        step = f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
        return word + _range(schema.get("minimum"), schema.get("maximum"), schema) + step
    if kind == "string":
        low, high = schema.get("minLength"), schema.get("maxLength")
        if low is None and high is None:
            return "text"
        return "text of" + _range(low or None, high, {}).replace(" from", "").replace(" of", "") + " characters"
    return {"boolean": "true or false", "array": "a list", "object": "a mapping", "null": "nothing"}[kind]


def _range(low: Any, high: Any, schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}" + (f", at most {high}" if high is not None else "")
    if "exclusiveMaximum" in schema:
        return f" below {schema['exclusiveMaximum']}" + (f", at least {low}" if low is not None else "")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def _size(schema: Mapping[str, Any]) -> str:
    low = schema.get("minItems", schema.get("minProperties", 0))
    high = schema.get("maxItems", schema.get("maxProperties"))
    unit = "value" if "minItems" in schema or "maxItems" in schema else "key"
    if high is None:
        return f"at least {low} {unit}{'' if low == 1 else 's'}"
    return f"{low} to {high} {unit}s"


def _got(value: Any, schema: Mapping[str, Any]) -> str:
    wanted = schema.get("type")
    if isinstance(value, str):
        if wanted in ("string", None) and ("minLength" in schema or "maxLength" in schema):
            return f"{len(value)} characters"
        if wanted in ("integer", "number", "boolean"):
            plain = wanted != "boolean" and value.lstrip("-").replace(".", "", 1).isdecimal()
            return f"the text {show(value)}" + ("; write it without quotes" if plain else "")
    elif wanted == "string" and isinstance(value, (int, float)):
        return f"{show(value)}; put it in quotes if text is meant"
    return show(value)


def show(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return json.dumps(value)[:60]
