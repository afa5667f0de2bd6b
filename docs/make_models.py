"""Draws docs/models.md from the catalogue; a test holds the two equal.

Run from the checkout: `python -m docs.make_models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchrunner.catalogue import Model, models
from batchrunner.core.names import COMMON, CommonName
from batchrunner.core.pricing import Price, Rate

PAGE = Path(__file__).with_name("models.md")
SECONDS = 5
"""Length that the table's prices are for, where the model takes it; else the nearest that it takes."""

INTRODUCTION = """\
# Models, their fields and prices

Made by `python -m docs.make_models` from `schemas/models`; don't edit it by hand. `batchrunner models MODEL` says
more about each: limits, defaults, what each field is for, and more examples of prices.

A model is one file of data: a JSON Schema of its requests, and beside it the endpoint, what comes out, a dated price
and what it calls the common names. Prices change: `prices:` in a manifest overrides one, and so does a file of your
own (below). 1 credit = $0.001; each price is rounded up to a whole credit.
"""

COMMON_NAMES = """\
## Common names

A manifest may say `first_frame`, `aspect_ratio`, `resolution`, `duration` and `audio` for any model. The model is
sent its own field, and its own names always work too; `batchrunner plan --requests` shows exactly what would be sent.
The model's own name and a common name for the same thing are an error where they stand at the same level; else the
higher level wins, as always: profile over shot over defaults.
"""

DEFAULTS = """\
**Defaults that shots of several models share.** What a shot itself asks for, and its model can't give, is an error.
So is what the defaults (or a profile) ask for, since nothing is paid for that was not asked for: the error names the
first such shot, its model, and how to mend it. Three things are no wish for that shot and are left out, with a
warning: length and sound where an image is made (and a resolution where its size is fixed), `audio: false` where
there is no switch for it, and an `aspect_ratio` or `duration` that the model refuses beside a picture or clip of
which it keeps its own.

An axis of a matrix and a column of a CSV may have a common name. In `output.name`, `${resolution}` and the others
stand for every model; a model's own field of that name comes first.
"""

OWN = """\
## A model of your own

Adding a model, or correcting one that is shipped, is one file in a folder of your own, and no release:

```yaml title="shots.yaml"
version: 1
batch: own
shots: [{id: boat, model: new-model, prompt: a paper boat, duration: 5}]
```

```console
$ mkdir my-models
$ batchrunner schema kling-3-0-turbo | sed 's/kling-3-0-turbo/new-model/' > my-models/new-model.schema.json
$ batchrunner models new-model --models my-models
...
$ export BATCHRUNNER_MODELS=my-models    # instead of the flag
$ batchrunner plan shots.yaml
change  job     credits    usd
new     boat-1      630  $0.63

own: 1 new, 0 changed, 0 unchanged, 0 in flight, 0 removed
  a run would cost 630 credits ($0.63)
```

Start from one that is like it; `models MODEL` checks it, and shows what it means; the simulator takes it too.

The file is called `MODEL.schema.json`; one with the name of a shipped model takes its place. `run`, `resume`,
`promote`, `cancel`, `validate`, `plan`, `models`, `schema` and `simulate` take the folder. A run that is resumed
needs it again: what the model makes and where it is sent stand in the file; without it the run is refused, and
nothing is lost. What is wrong with a file is told with its position, like an error of a manifest;
`schemas/model.schema.json` checks it in an
editor.

```json
{
  "title": "Dream 9",
  "type": "object",
  "properties": {
    "model": { "const": "dream-9" },
    "text": { "type": "string", "minLength": 1, "maxLength": 200, "description": "What to show." },
    "ratio": { "enum": ["16:9", "1:1"], "default": "16:9" },
    "quality": { "enum": ["low", "high"], "default": "low" },
    "len": { "type": "integer", "minimum": 1, "maximum": 12, "default": 4 },
    "start": { "type": "string", "pattern": "^https://", "patternErrorMessage": "an https URL is allowed" }
  },
  "required": ["model"],
  "anyOf": [
    { "required": ["text"], "title": "a text" },
    { "required": ["start"], "title": "a first frame" }
  ],
  "allOf": [
    {
      "description": "ratio can't be used with start.",
      "if": { "required": ["start"] },
      "then": { "properties": { "ratio": { "not": {}, "errorMessage": "can't be used with start" } } }
    }
  ],
  "additionalProperties": false,
  "x-batchrunner": {
    "provider": "reapi",
    "endpoint": "/videos/generations",
    "output": "video",
    "seconds": "len",
    "price": {
      "as_of": "2026-11-01",
      "source": "the service's price page",
      "per": "second",
      "rates": [
        { "when": { "quality": "low" }, "given": ["start"], "usd": "0.008" },
        { "when": { "quality": "low" }, "usd": "0.01" },
        { "when": { "quality": "high" }, "usd": "0.04" }
      ]
    },
    "names": {
      "first_frame": { "set": { "start": "$" } },
      "aspect_ratio": { "set": { "ratio": "$" }, "not_with": ["start"] },
      "resolution": { "set": { "quality": "$" }, "values": { "720p": "low", "1080p": "high" } },
      "duration": { "set": { "len": "$" } },
      "audio": { "not": "it has no switch for sound", "leave_out": [false] }
    }
  }
}
```

What stands in `x-batchrunner`:

- `seconds`: the field that holds the clip's length in whole seconds; a price `per: second` is times it.
- `price.rates`: the first that applies. `when`: field to value, or to a list of values (defaults filled in); `given`:
  at least one of these fields is there and not empty; `without`: none is. None applies: the price is unknown, which is
  a warning, and with a budget an error.
- `names.X.set`: the fields that the common name sets, `"$"` in the place of the value, such as `{"image_urls": ["$"]}`.
- `names.X.values`: common value to the model's own word.
- `names.X.not_with`: fields beside which what the *defaults* say is left out, with a warning.
- `names.X.not`: the model can't, and why. `leave_out`: values that ask for nothing and are left out; `true`: whatever
  the defaults say is.
- `warnings`: `if` (a schema), `field` and `message`: what is said of a valid request.

In the schema itself, a rule may say what is wrong in its own words: `errorMessage` continues a sentence that begins
with the field, or with the shot (`needs a prompt`), `patternErrorMessage` says what a pattern allows, and the
`title`s of `anyOf` are named. A `description` of a rule in `allOf` is shown by `batchrunner models`.
"""

UNKNOWN = """\
## What the source doesn't say

Where the source is silent or contradicts itself, the laxer rule holds and a warning says so: which ratios
`happyhorse-1-1` and the Vidu models take, beyond 16:9, 9:16 and 1:1; whether `wan2.7-video` and `doubao-seedance-2.0`
make anything of nothing; how the lengths in `multi_prompt` of `kling-3-0` are charged. A price that isn't listed is
unknown and not guessed: `minimax/video-01-director`, `gemini-omni` at 4k or with a clip, and `doubao-seedance-2.0`
without a `duration`, whose default isn't documented. `std` and `pro` of `kling-3-0` are taken for 720p and 1080p, and
a request of it that doesn't say `sound` is priced as one without. With `doubao-seedance-2.0` every picture, clip or
sound counts as a reference.
"""


def page() -> str:
    """The whole page, as Markdown."""
    known = models().values()
    lines = [
        INTRODUCTION,
        "| model | provider | makes | fields (defaults) | price | read |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(model) for model in known]
    lines += ["", "## Rules between the fields", ""]
    lines += [f"- `{model.name}`: {' '.join(model.rules)}" for model in known if model.rules]
    lines += ["", COMMON_NAMES]
    lines += [f"| model | {' | '.join(f'`{name}`' for name in COMMON)} |", "|---" * (len(COMMON) + 1) + "|"]
    lines += [f"| {model.name} | {' | '.join(_spelling(model.names.get(n)) for n in COMMON)} |" for model in known]
    lines += ["", DEFAULTS, OWN, UNKNOWN]
    return "\n".join(lines)


def _row(model: Model) -> str:
    required = set(model.schema["required"])
    fields = []
    for name in model.fields:
        default = model.defaults.get(name)
        told = f" ({_value(default)})" if name in model.defaults else ""
        fields.append(f"**{name}**" if name in required else f"{name}{told}")
    price, read = ("unknown", "") if model.price is None else (_prices(model, model.price), model.price.as_of)
    return f"| `{model.name}` | {model.provider} | {model.output} | {', '.join(fields)} | {price} | {read} |"


def _prices(model: Model, price: Price) -> str:
    lines = []
    for rate in price.rates:
        units = _length(model) if price.per == "second" else None
        amount = rate.usd if units is None else rate.usd * units
        text = f"{amount:f}"
        shown = text.rstrip("0").rstrip(".") if "." in text else text
        lines.append(f"${shown}" + ("" if units is None else f" for {units} s") + _conditions(model, rate))
    return "<br>".join(lines)


def _length(model: Model) -> int:
    field = model.field(model.seconds or "duration")
    if "enum" in field:
        return int(min(field["enum"], key=lambda seconds: abs(seconds - SECONDS)))
    return max(field["minimum"], min(field["maximum"], SECONDS))


def _conditions(model: Model, rate: Rate) -> str:
    parts = []
    for name, value in rate.when:
        values = " or ".join(map(_value, value)) if isinstance(value, tuple) else _value(value)
        parts.append(f"{values} s" if name == model.seconds else name if value is True else values)
    parts += [f"with {' or '.join(rate.given)}"] if rate.given else []
    parts += [f"without {' or '.join(rate.without)}"] if rate.without else []
    return f" ({', '.join(parts)})" if parts else ""


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _spelling(common: CommonName | None) -> str:
    return "".join(_words(common)) if common else "-"


def _words(common: CommonName) -> Iterator[str]:
    if not common.fields:
        yield "-"
        return
    yield f"`{common.called}`"
    if common.values:
        yield f" {', '.join(str(word) for word in common.values.values())}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
