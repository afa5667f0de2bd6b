"""`models` and `schema`: what can be asked for, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.names import CommonName
from ..core.pricing import Price, Rate, usd_text
from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from .options import any_db_option, json_option, models_option
from .tables import json_text, money, number, print_json, print_table, say

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from click.shell_completion import CompletionItem

    from ..catalogue import Model

DOLLARS = "1 credit = $0.001"


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models that begin with `incomplete`."""
    from click.shell_completion import CompletionItem

    from ..catalogue import models as catalogue

    del ctx, param
    return [CompletionItem(name) for name in catalogue() if name.startswith(incomplete)]


@click.command(
    epilog="""\b
Examples:
  batchrunner models
  batchrunner models kling-3-0-turbo
  batchrunner models --json | jq '.[] | {model, price}'
  batchrunner models --models my-models my-model     a model of your own
"""
)
@click.argument("model", required=False, shell_complete=complete_models)
@models_option
@json_option
@any_db_option
def models(model: str | None, as_json: bool) -> int:
    """List the models, their fields and prices.

    With MODEL: what each of its fields takes, its default, and what a request costs.
    """
    from .loading import models_in_use

    if model is not None:
        found = _find(model)
        print_json(_model_json(found)) if as_json else _explain(found)
        return EXIT_OK
    every = list(models_in_use().values())
    if as_json:
        print_json([_model_json(m) for m in every])
        return EXIT_OK
    print_table(("model", "provider", "makes", "price", "for example"), map(_row, every))
    say()
    say("`batchrunner models MODEL` explains its fields; prices: in a manifest overrides a price")
    return EXIT_OK


@click.command(
    epilog="""\b
Examples:
  batchrunner schema > manifest.schema.json
  batchrunner schema kling-3-0-turbo | jq .properties
"""
)
@click.argument("model", required=False, shell_complete=complete_models)
@models_option
@any_db_option
def schema(model: str | None) -> int:
    """Print the JSON Schema of manifests, or of one model's requests."""
    from ..catalogue import file_name, schema_folder

    folder = schema_folder()
    file: Traversable = folder / "manifest.schema.json"
    if model is not None:
        found = _find(model)
        file = Path(found.file) if found.file else folder / "models" / file_name(found.name)
    click.echo(file.read_bytes(), nl=False)
    return EXIT_OK


def _find(name: str) -> Model:
    """
    Raises:
        UsageError: there is no such model.
    """
    import difflib

    from .loading import models_in_use

    every = models_in_use()
    if name not in every:
        near = difflib.get_close_matches(name, every, 1)
        hint = f"did you mean {near[0]}?" if near else "`batchrunner models` lists them"
        raise UsageError(f"no model {name}; {hint}")
    return every[name]


# --- Prices ----------------------------------------------------------------------------------------------


def examples(model: Model) -> list[dict[str, Any]]:
    """What requests cost: the defaults, each line of the price list, and the longest clip of the first.

    Each is `{"request": {...}, "credits": N, "usd": "0.63"}`; the request names what decides the price.
    """
    if model.price is None:
        return []
    found: list[dict[str, Any]] = []
    properties = model.schema["properties"]
    length = model.seconds if model.price.per == "second" else None
    _add(found, model, {name: model.defaults[name] for name in model.price.fields if name in model.defaults})
    for rate in model.price.rates:
        given = {name: value[0] if isinstance(value, tuple) else value for name, value in rate.when}
        given |= {name: properties.get(name, {}).get("examples", [None])[0] for name in rate.given[:1]}
        for seconds in _numbers(properties[length]) if length else [None]:
            _add(found, model, given if seconds is None or length is None else {**given, length: seconds})
    return found


def _add(found: list[dict[str, Any]], model: Model, request: dict[str, Any]) -> None:
    price = model.price.credits(request, model.defaults) if model.price else None
    if price is not None and all(e["request"] != request for e in found):
        found.append({"request": request, "credits": price, "usd": usd_text(price)})


def _numbers(field: dict[str, Any]) -> list[int]:
    """The usual and the greatest value of a number."""
    choices = [field["const"]] if "const" in field else field.get("enum", [])
    usual = field.get("default", choices[0] if choices else field.get("minimum"))
    most = field.get("maximum", max(choices, default=None))
    return list(dict.fromkeys(n for n in (usual, most) if isinstance(n, int)))


def price_text(price: Price | None) -> str:
    """`$0.12584 a second (720p)`, several lines of a list joined."""
    if price is None:
        return "unknown"
    unit = "a second" if price.per == "second" else "each"
    lines = ((rate, _conditions(rate)) for rate in price.rates)
    return ", ".join(f"${rate.usd} {unit}" + (f" ({when})" if when else "") for rate, when in lines)


def _conditions(rate: Rate) -> str:
    """When a line of a price list applies: `resolution 4k, without video_urls`."""
    parts = [f"{name} {' or '.join(map(_value, v)) if isinstance(v, tuple) else _value(v)}" for name, v in rate.when]
    if rate.given:
        parts.append("with " + " or ".join(rate.given))
    if rate.without:
        parts.append("without " + " or ".join(rate.without))
    return ", ".join(parts)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, indent=None)


# --- Rendering -------------------------------------------------------------------------------------------


def _row(model: Model) -> tuple[str, ...]:
    first = next(iter(examples(model)), None)
    example = "" if first is None else f"{_request(model, first['request'])}: {money(first['credits'])}"
    rates = () if model.price is None else model.price.rates
    text = price_text(model.price)
    if model.price is not None and len(rates) > 1:
        low, high = min(r.usd for r in rates), max(r.usd for r in rates)
        text = f"${low} to ${high} {'a second' if model.price.per == 'second' else 'each'}"
    return model.name, model.provider, model.output, text, example


def _request(model: Model, request: dict[str, Any]) -> str:
    parts = []
    for name, value in request.items():
        if isinstance(value, list):
            parts.append(f"with {name}")
        elif name == model.seconds:
            parts.append(f"{value} s")
        else:
            parts.append(value if isinstance(value, str) else f"{name} {_value(value)}")
    return ", ".join(parts) or "any"


def _explain(model: Model) -> None:
    say(f"{model.name}: {visible(model.title)}")
    if model.schema.get("description"):
        say(f"  {visible(model.schema['description'])}")
    say(f"  provider {model.provider}, POST {model.endpoint}, makes {model.output}")
    if model.file:
        say(f"  from {visible(model.file)}")
    say()
    required = set(model.schema.get("required", ()))
    rows = [_field_row(name, model.field(name), name in required) for name in model.fields]
    print_table(("field", "takes", "default", ""), rows)
    if model.rules:
        say()
    for rule in model.rules:
        say(f"  {visible(rule)}")
    if model.names:
        say()
        rows = [(f"  {name}", *_spelling(common)) for name, common in model.names.items()]
        print_table(("common name", "is", ""), rows)
    say()
    _explain_price(model)


def _spelling(common: CommonName) -> tuple[str, str]:
    """What a model calls a common name, or why it can't take it."""
    if not common.fields:
        return "-", visible(common.reason)
    words = ", ".join(f"{word} for {value}" for value, word in common.values.items())
    notes = [words] if words else []
    if common.not_with:
        notes.append(f"of the defaults: not with {' or '.join(common.not_with)}")
    return common.called, "; ".join(notes)


def _explain_price(model: Model) -> None:
    price = model.price
    if price is None:
        say("price: unknown; give it in the manifest under prices:")
        return
    dated = f", as of {price.as_of}" if price.as_of else ""
    source = f" ({visible(price.source)})" if price.source else ""
    say(f"price: {DOLLARS}{dated}{source}; rounded up to a whole credit")
    print_table(
        ("", ""),
        [(f"  ${r.usd} {'a second' if price.per == 'second' else 'each'}", _conditions(r)) for r in price.rates],
    )
    say()
    told = ((_request(model, e["request"]), e) for e in examples(model))
    rows = [(f"  {request}", f"{number(e['credits'])} credits", f"${e['usd']}") for request, e in told]
    print_table(("", "", ""), rows, right=(1, 2))


def _field_row(name: str, field: dict[str, Any], required: bool) -> tuple[str, ...]:
    default = _value(field["default"]) if "default" in field else "required" if required else ""
    return f"  {name}", _takes(field), default, field.get("description", "")


def _takes(field: dict[str, Any]) -> str:
    """What a field takes, in a few words."""
    if "const" in field:
        return _value(field["const"])
    if "enum" in field:
        return " ".join(map(_value, field["enum"]))
    kind = field.get("type", "any")
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}
    text = words.get(kind, str(kind)) if isinstance(kind, str) else " or ".join(kind)
    if field.get("format") == "uri":
        text = "https URL"
    low, high = _bounds(field)
    return text + _range(low, high, " long" if kind == "string" else " items" if kind == "array" else "")


def _bounds(field: dict[str, Any]) -> tuple[Any, Any]:
    for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        if low in field or high in field:
            return field.get(low), field.get(high)
    return None, None


def _range(low: Any, high: Any, unit: str) -> str:
    if high is None:
        return "" if low is None else f", {low} or more{unit}"
    return f", up to {high}{unit}" if low is None else f", {low} to {high}{unit}"


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "model": model.name,
        "title": model.title,
        "provider": model.provider,
        "endpoint": model.endpoint,
        "output": model.output,
        **({"file": model.file} if model.file else {}),
        "fields": {name: model.schema["properties"][name] for name in model.fields},
        "rules": list(model.rules),
        "names": {name: _spelling_json(common) for name, common in model.names.items()},
        "defaults": model.defaults,
        "price": _price_json(model.price),
        "examples": examples(model),
    }


def _spelling_json(common: CommonName) -> dict[str, Any]:
    if not common.fields:
        return {"not": common.reason}
    return {"set": common.fields, "values": common.values}


def _price_json(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return {"per": price.per, "rates": list(map(_rate_json, price.rates)), "as_of": price.as_of, "source": price.source}


def _rate_json(rate: Rate) -> dict[str, Any]:
    line: dict[str, Any] = {"when": dict(rate.when)}
    line |= {"given": list(rate.given)} if rate.given else {}
    line |= {"without": list(rate.without)} if rate.without else {}
    return {**line, "usd": str(rate.usd)}
