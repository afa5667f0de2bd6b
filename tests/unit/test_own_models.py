"""Models of a user's own: one file in a folder, and what is said where it is wrong."""

from __future__ import annotations

import copy
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.catalogue import file_name, manifest_schema, model_schema, models, schema_folder
from batchrunner.manifest import ManifestError, load, read_models
from batchrunner.manifest.requests import ModelRules
from batchrunner.manifest.schema_errors import Explainer, gate
from tests.cli_support import call, run_json

DREAM: dict[str, Any] = {
    "title": "Dream 9",
    "type": "object",
    "properties": {
        "model": {"const": "dream-9"},
        "text": {"type": "string", "maxLength": 200},
        "ratio": {"enum": ["16:9", "1:1"], "default": "16:9"},
        "height": {"enum": ["low", "high"], "default": "low"},
        "len": {"type": "integer", "minimum": 1, "maximum": 4, "default": 2},
        "start": {"$ref": "#/$defs/url"},
    },
    "required": ["model", "text"],
    "additionalProperties": False,
    "$defs": {"url": {"type": "string", "pattern": "^https://", "patternErrorMessage": "an https URL is allowed"}},
    "x-batchrunner": {
        "provider": "reapi",
        "endpoint": "/videos/generations",
        "output": "video",
        "seconds": "len",
        "price": {"as_of": "2026-11-01", "source": "made up", "per": "second", "usd": "0.01"},
        "names": {
            "aspect_ratio": {"set": {"ratio": "$"}},
            "resolution": {"set": {"height": "$"}, "values": {"720p": "high"}},
            "duration": {"set": {"len": "$"}},
            "first_frame": {"set": {"start": "$"}},
        },
    },
}
MANIFEST = """\
version: 1
batch: own
shots:
  - {id: a, model: dream-9, text: a corgi, duration: 1, aspect_ratio: 1:1, resolution: 720p}
  - {id: b, model: dream-9, text: a cat, duration: 1}
"""


def write(folder: Path, data: dict[str, Any] | str, name: str = "dream-9.schema.json") -> Path:
    folder.mkdir(exist_ok=True)
    text = data if isinstance(data, str) else json.dumps(data, indent=1)
    (folder / name).write_text(text, "utf-8")
    return folder


def refused(folder: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_models(folder)
    assert not any(f.warning for f in caught.value.findings)
    return [f"{Path(f.file).name}:{f.line}:{f.column}: {f.message}" for f in caught.value.findings]


def changed(path: str, value: Any) -> dict[str, Any]:
    """`DREAM` with one value at `a/b/c` set, or removed (None)."""
    data = copy.deepcopy(DREAM)
    *above, last = path.split("/")
    node: Any = data
    for step in above:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return data


async def test_a_made_up_model_is_one_file_and_runs_in_the_simulator(tmp_path: Path) -> None:
    write(tmp_path / "mine", DREAM)
    (tmp_path / "m.yaml").write_text(MANIFEST, "utf-8")
    ended = await run_json(tmp_path, "run", "m.yaml", "--simulate", "--models", "mine", "--limit", "1")
    assert ended.code == 4, ended.err
    without = await run_json(tmp_path, "resume", "--simulate")
    assert without.code == 2
    assert "unfinished jobs of dream-9, which no model here describes" in without.err
    assert "--models DIR, or BATCHRUNNER_MODELS" in without.err
    ended = await run_json(tmp_path, "resume", "--simulate", environment={"BATCHRUNNER_MODELS": "mine"})
    assert ended.code == 0, ended.err
    assert ended.events[-1]["credits"]["spent"] == 20  # 0.01 x 1 s, twice
    assert sorted(p.name for p in (tmp_path / "outputs" / "own").glob("*.mp4")) == ["a-1.mp4", "b-1.mp4"]
    sidecar = json.loads((tmp_path / "outputs" / "own" / "a-1.mp4.json").read_text())
    wanted = {"model": "dream-9", "text": "a corgi", "len": 1, "ratio": "1:1", "height": "high"}
    assert sidecar["request"] == wanted


def test_every_verb_that_reads_manifests_takes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", DREAM)
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST, "utf-8")
    assert call("validate", path).code == 2
    assert "2 jobs" in call("validate", path, "--models", tmp_path / "mine").out
    assert call("plan", path, "--models", tmp_path / "mine", "--db", tmp_path / "l.db").code == 0
    frozen = tmp_path / "plan.json"
    assert call("plan", path, "--models", tmp_path / "mine", "--db", tmp_path / "l.db", "--out", frozen).code == 0
    assert '"dream-9": "2026-11-01"' in frozen.read_text("utf-8")
    for verb in ("run", "resume", "promote", "validate", "plan", "models", "schema", "simulate"):
        assert "BATCHRUNNER_MODELS" in call(verb, "--help").out, verb
    monkeypatch.setenv("BATCHRUNNER_MODELS", str(tmp_path / "mine"))
    assert call("run", path, "--dry-run", "--db", tmp_path / "l.db").code == 0
    shown = call("models", "dream-9").out
    assert "an https URL" not in shown
    assert "aspect_ratio  ratio" in shown
    assert str(tmp_path / "mine" / "dream-9.schema.json") in shown
    assert call("schema", "dream-9").json == DREAM
    assert [m["model"] for m in call("models", "--json").json] == sorted([*models(), "dream-9"])
    assert call("models", "--models", tmp_path / "nowhere").code == 2


def test_a_file_of_the_same_name_overrides_a_shipped_model(tmp_path: Path) -> None:
    shipped = (schema_folder() / "models" / "kling-3-0-turbo.schema.json").read_text("utf-8")
    write(tmp_path, shipped.replace("0.12584", "0.2"), "kling-3-0-turbo.schema.json")
    found = read_models(tmp_path)
    assert set(found) == set(models())
    assert found["kling-3-0-turbo"].price != models()["kling-3-0-turbo"].price
    (tmp_path / "m.yaml").write_text(
        "version: 1\nbatch: b\nshots: [{id: a, model: kling-3-0-turbo, prompt: x}]\n", "utf-8"
    )
    assert [job.credits for job in load(tmp_path / "m.yaml", models=found).jobs] == [1000]  # 0.2 x 5 s
    assert [job.credits for job in load(tmp_path / "m.yaml").jobs] == [630]


def test_tabs_are_spaces(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(DREAM, indent="\t"))
    assert "dream-9" in read_models(tmp_path)


X = "x-batchrunner"
WRONG: list[tuple[str, Any, str]] = [
    ("properties/model/const", "Dream 9", "a model is named by"),
    ("properties/model/const", "other", "its file must be called other.schema.json"),
    ("properties/text/maxlength", 5, "unknown key 'maxlength' in text (did you mean maxLength?)"),
    ("properties/text/type", "text", "type must be a type or a list of types"),
    ("properties/len/default", 9, "the default is not valid: len must be a whole number from 1 to 4, got 9"),
    ("properties/start/$ref", "http://example.com/x", "only a rule of this file may be named"),
    ("properties/start/$ref", "#/$defs/uri", "there is no #/$defs/uri; $defs has url"),
    ("$defs/url/$ref", "#/$defs/url", "a rule of $defs must not name another one"),
    ("$defs/url/pattern", "^(?=a)", "no look-around"),
    ("required", ["text"], "model must be among the required fields"),
    ("additionalProperties", True, "additionalProperties must be false"),
    (f"{X}/provider", "reapy", "unknown provider 'reapy' (did you mean reapi?)"),
    (f"{X}/endpoint", "https://evil.example/x", "a path such as /videos/generations is allowed"),
    (f"{X}/endpoint", "/videos/../balance", "a path such as /videos/generations is allowed"),
    (f"{X}/output", "text", "output must be one of video, image, audio"),
    (f"{X}/seconds", "length", "the model has no field 'length'"),
    (f"{X}/seconds", "text", "text must be a whole number to be a length in seconds"),
    (f"{X}/seconds", None, "a price by the second needs `seconds`"),
    (f"{X}/price/as_of", None, "price has no as_of; it is required"),
    (f"{X}/price/usd", "cheap", "usd must be a number or decimal digits in quotes, got 'cheap'"),
    (f"{X}/price/given", ["x"], "unknown key 'given' in price"),
    (f"{X}/names/size", {"set": {"ratio": "$"}}, "unknown key 'size' in names"),
    (f"{X}/names/audio", {"set": {"sound": "$"}}, "the model has no field 'sound'"),
    (f"{X}/names/audio", {"set": {"text": "loud"}}, '"$" must stand in it once'),
    (f"{X}/names/audio", {"set": {"text": "$"}, "not": "no"}, "audio takes only one of set and not"),
    (f"{X}/names/resolution/values", {"720p": "medium"}, "height must be one of low, high, got 'medium'"),
    (f"{X}/names/duration/not_with", ["clip"], "the model has no field 'clip'"),
    (
        f"{X}/warnings",
        [{"if": {}, "field": "txt", "message": "m"}],
        "the model has no field 'txt' (did you mean text?)",
    ),
    (f"{X}", None, "has no x-batchrunner; it is required"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_what_is_wrong_is_told_where_it_stands(path: str, value: Any, message: str, tmp_path: Path) -> None:
    data = changed(path, value)
    found = refused(write(tmp_path, data))
    assert any(message in f for f in found), found
    assert len(found) == 1, found
    line = int(found[0].split(":")[1])
    text = json.dumps(data, indent=1).splitlines()
    if value is not None and "/" in path:
        first = next(n for n, t in enumerate(text, 1) if f'"{path.rpartition("/")[2]}":' in t and n >= line - 3)
        assert 0 <= line - first <= 4, (found, text[line - 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1:1: not valid JSON"),
        ("[]", ":1:1: a model's file is a JSON object"),
        ('{"a": 1,\n "b": }', ":2:7: not valid JSON: expecting value"),
        ('{"a": NaN}', ":1:1: not valid JSON: NaN is not a number that JSON knows"),
        ('{"type": "object",\n "type": "object"}', ":2:2: "),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested too deeply"),
        ('{"a": "\u0000"}', "control character"),
        ("# yaml\ntype: object\n", ":1:1: not valid JSON"),
        ('{"a": 1e999}', "too large for a number"),
    ],
)
def test_hostile_files(text: str, message: str, tmp_path: Path) -> None:
    found = refused(write(tmp_path, text))
    assert any(message in f for f in found), found


def test_hostile_folders(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no models here: a model's file is called MODEL.schema.json" in refused(empty)[0]
    assert "can't read the folder" in refused(tmp_path / "nowhere")[0]
    assert "its file must be called dream-9.schema.json" in refused(write(tmp_path / "b", DREAM, "dream.json"))[0]
    (tmp_path / "c" / "x.schema.json").mkdir(parents=True)
    assert "it is a folder" in refused(tmp_path / "c")[0]
    big = write(tmp_path / "d", " " * (1 << 20) + "{}")
    assert "the file is too large: at most 1 MiB are read" in refused(big)[0]
    write(tmp_path / "e", DREAM, ".dream-9.schema.json.json")
    write(tmp_path / "e", DREAM)
    write(tmp_path / "e", "notes", "README.md")
    assert "dream-9" in read_models(tmp_path / "e")


# --- any file --------------------------------------------------------------------------------------------

SHIPPED = {name: json.loads((schema_folder() / "models" / file_name(name)).read_text("utf-8")) for name in models()}
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        5,
        -1,
        "",
        "$",
        "model",
        "#/$defs/url",
        [],
        {},
        ["$"],
        {"not": {}},
        {"type": "string"},
        {"$ref": "#/$defs/url"},
    ]
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a tree."""
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += nodes(inner, (*path, step))
    return found


WAYS = {name: nodes(schema)[1:] for name, schema in SHIPPED.items()}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(SHIPPED)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(st.tuples(st.sampled_from(WAYS[name]), ODD), max_size=3))
    )
)
def test_any_file_is_a_model_or_refused(drawn: tuple[str, list[tuple[tuple[Any, ...], Any]]]) -> None:
    """A shipped model with up to three values replaced. What is taken can be used: it explains, prices and spells."""
    name, mistakes = drawn
    data = copy.deepcopy(SHIPPED[name])
    for way, value in mistakes:
        node: Any = data
        for step in way[:-1]:
            node = node[step] if isinstance(node, dict) and step in node else None
        if isinstance(node, dict):
            node[way[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), data, file_name(name))
        try:
            found = read_models(folder)
        except ManifestError:
            return
        model = found[name]
        rules = ModelRules(model, model.price)
        request = {"model": name, "prompt": "a corgi", "duration": 5}
        assert rules.valid(request) == (not rules.problems(request))
        rules.warnings(request)
        rules.credits(request)
        model.common(request)
        manifest = Path(folder) / "m.yaml"
        manifest.write_text(
            f"version: 1\nbatch: b\ndefaults: {{duration: 5, audio: false}}\n"
            f"shots: [{{id: a, model: {name}, prompt: x, aspect_ratio: '1:1', first_frame: 'https://a/b'}}]\n"
        )
        with suppress(ManifestError):
            load(manifest, models=found)


def test_the_meta_schema_takes_what_is_shipped_and_agrees_with_itself() -> None:
    meta = model_schema()
    for schema in SHIPPED.values():
        assert gate(meta).is_valid(schema)
        assert Explainer(meta).problems(schema) == []


def test_a_price_reads_the_same_in_a_manifest_and_in_a_model() -> None:
    mine, theirs = (schema["$defs"] for schema in (model_schema(), manifest_schema()))
    assert mine["usd"] == theirs["usd"]
    assert mine["price"]["properties"]["rates"] == theirs["price"]["properties"]["rates"]
    assert mine["price"]["properties"].keys() == theirs["price"]["properties"].keys()
