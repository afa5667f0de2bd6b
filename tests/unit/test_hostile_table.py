"""Clauses of the table of hostile input that no other test holds; docs/fuzzing.md says which test holds which."""

from __future__ import annotations

import json
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from batchrunner.cli.main import cli
from batchrunner.core.text import visible
from batchrunner.manifest import Finding, ManifestError, checks, findings, load, located, schema_errors
from batchrunner.manifest.located import Document, Seq
from batchrunner.manifest.templates import MAX_VARIABLE
from tests.cli_support import call

HEAD = "version: 1\nbatch: b\ndefaults: {model: kling-3-0-turbo}\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "m.yaml") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + text if name == "m.yaml" else text, encoding="utf-8")
        return path

    return write


def refused(path: Path, **arguments: Any) -> list[Finding]:
    with pytest.raises(ManifestError) as caught:
        load(path, **arguments)
    return [f for f in caught.value.findings if not f.warning]


def memory_of(path: Path) -> tuple[int, list[Finding]]:
    """Peak of what a refused manifest takes, in bytes."""
    load_once = refused(path)  # validators and the like are built at the first time
    tracemalloc.start()
    try:
        found = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == load_once
    return peak, found


# --- YAML: bounds ----------------------------------------------------------------------------------------


def test_a_long_text_is_repeated_by_aliases_within_bounds(write: Write) -> None:
    """An error's text would hold every repetition: 10,000 aliases of a megabyte are 10 GB."""
    long = "x" * 100_000
    assert "aliases repeat too much" in refused(write(f"vars: {{a: &a {long}}}\nshots: [{'*a, ' * 101}]"))[0].message
    assert len(load(write(f"vars: {{a: &a {'x' * 900}}}\nshots: [{{id: a, prompt: *a}}]")).jobs) == 1


def test_a_cell_of_quotes_takes_little_memory(write: Write) -> None:
    write('id,prompt\na,"' + '""' * 1_500_000 + '"\n', "t.csv")
    peak, (found,) = memory_of(write("shots_from: [{file: t.csv}]"))
    assert "the cell is longer than" in found.message
    assert peak < 60_000_000  # of which 32 MiB to read into; each pair of quotes took 130 bytes


TABLES = {
    "t.csv": "id,prompt\n" + "a,\n" * 60,
    "t.jsonl": "{}\n" * 60,
    "nested.jsonl": '{"id": "a", "x": [' + "[]," * 60 + "[]]}\n",
    "cell.csv": 'id,matrix\na,"[' + "[]," * 60 + '[]]"\n',
    "more.yaml": "shots: [" + "{}, " * 60 + "]\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_collections_are_bounded_in_every_file(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(located, "MAX_COLLECTIONS", 50)
    write(TABLES[name], name)
    source = f"include: [{name}]" if name.endswith("yaml") else f"shots_from: [{{file: {name}}}]"
    found = refused(write(source))
    assert "too many mappings and lists: at most 50" in found[-1].message
    assert Path(found[-1].file).name == name


def test_collections_are_bounded_over_all_files(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        write("".join(f'{{"id": "a{i}{j}", "prompt": "x"}}\n' for j in range(20)), f"t{i}.jsonl")
    path = write("shots_from: [{file: t0.jsonl}, {file: t1.jsonl}, {file: t2.jsonl}]")
    assert len(load(path).jobs) == 60
    monkeypatch.setattr(located, "MAX_COLLECTIONS", 50)
    (found,) = refused(path)
    assert "too many mappings and lists" in found.message
    assert Path(found.file).name == "t2.jsonl"


@pytest.mark.parametrize("name", ["m.yaml", "t.jsonl", "nested.jsonl"])
def test_keys_of_one_mapping_are_bounded(name: str, write: Write) -> None:
    """Each unknown one costs a search for what was meant, and one for its place: 20,000 of them took 21 s."""
    keys = ", ".join(f'"k{i}": 1' for i in range(located.MAX_KEYS + 1))
    write(f'{{"id": "a", {keys}}}\n' if name == "t.jsonl" else f'{{"id": "a", "x": {{{keys}}}}}\n', "t.jsonl")
    path = write(f"vars: {{{keys}}}" if name == "m.yaml" else "shots_from: [{file: t.jsonl}]")
    assert "too many keys: at most 2000" in refused(path)[0].message


def test_no_more_is_explained_than_is_shown() -> None:
    explainer = schema_errors.Explainer({"properties": {"a": {}}, "additionalProperties": False})
    assert len(explainer.problems({f"k{i}": 1 for i in range(2 * findings.MAX_KEPT)})) == findings.MAX_KEPT


def test_what_is_wrong_with_a_million_jobs_is_looked_for_in_some(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    explain = checks.Checker._explain

    def counted(*arguments: Any) -> None:
        calls.append(1)
        explain(*arguments)

    monkeypatch.setattr(checks.Checker, "_explain", counted)
    axis = list(range(999))
    found = refused(write(f"shots: [{{id: a, matrix: {{p: {axis}, q: {axis}}}}}, {{id: b, duration: 99}}]"))
    assert [f.message[:25] for f in found] == [
        "shot a needs a prompt or ",
        "shot b needs a prompt or ",
        "duration must be a whole ",
    ]
    assert len(calls) == checks.MAX_REPEATED_IN_A_SHOT + 2
    monkeypatch.setattr(checks, "MAX_REPEATED", 5)
    calls.clear()
    refused(
        write("vars: {v: 99}\nprofiles: {f: {duration: '${v}'}}\nshots: [" + "{id: a, prompt: x}, " * 100 + "]"),
        profile="f",
    )
    assert len(calls) <= 7


def test_variables_bring_little_text(write: Write) -> None:
    value = "x" * (MAX_VARIABLE // 2)
    path = write(f"vars: {{v: {value}}}\nshots: [{{id: a, prompt: '{'${v}' * 3}'}}]")
    assert f"at most {MAX_VARIABLE} characters" in refused(path)[0].message


def test_sets_of_excluded_axes_are_bounded(write: Write) -> None:
    """Every point is looked up in each of them."""
    names = [f"a{i}" for i in range(12)]
    axes = ", ".join(f"{n}: [1, 2]" for n in names)
    pairs = [f"{{{a}: 1, {b}: 1}}" for a in names for b in names if a != b]
    assert (
        "66 different sets of axes"
        in refused(write(f"shots: [{{id: a, prompt: x, matrix: {{{axes}}}, exclude: {pairs}}}]".replace("'", "")))[
            0
        ].message
    )
    few = ", ".join(pairs[:22])
    assert load(write(f"shots: [{{id: a, prompt: x, matrix: {{{axes}}}, exclude: [{few}]}}]")).jobs


def test_hints_and_excerpts_look_at_little_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings.did_you_mean("promt" * 50_000, ["prompt"]) == ""
    looked = []
    category = unicodedata.category

    def counted(char: str) -> str:
        looked.append(char)
        return category(char)

    monkeypatch.setattr(unicodedata, "category", counted)
    assert visible("\u202e" * 1_000_000, 10) == "\\u202e\\u2…"
    assert len(looked) <= 11


def test_items_are_found_in_any_order() -> None:
    document = Document("x", root=Seq([Seq(), 1, Seq([1, 2]), 3]))
    document.root.at = 0
    for at, item in zip((1, 3), (document.root[0], document.root[2]), strict=True):
        item.at, item.end = at, at + 1 + len(item)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 2, 0, 3, 1]):
        assert [document.mark_of_item(document.root, i) for i in order] == [[1, 2, 3, 6][i] for i in order]


# --- YAML: positions, words and exit codes ---------------------------------------------------------------


@pytest.mark.parametrize("text", ["shots: [", "shots: {a: [", "vars: {a: 'x", 'vars: {a: "x'])
def test_what_ends_too_early_is_wrong_where_it_ends(text: str, write: Write) -> None:
    (found,) = refused(write(text))
    assert (found.line, found.column) <= (4, len(text) + 1)


BIDI = "\u202e"
UNPRINTABLE = {
    "a key of a line": (
        "shots_from: [{file: t.jsonl}]",
        '{"id": "a", "matrix": {"\\u001b[31m": 1, "\\u001b[31m": 2}}\n',
    ),
    "a key of a shot": ("shots_from: [{file: t.jsonl}]", f'{{"id": "a", "{BIDI}": 1, "{BIDI}": 2}}\n'),
    "an id": (f"defaults: {{}}\nshots: [{{id: '{BIDI}a'}}]".replace("defaults: {}\n", ""), ""),
    "a variable": (f"vars: {{'{BIDI}a': }}\nshots: []", ""),
    "an excluded axis": (
        "shots_from: [{file: t.jsonl}]",
        f'{{"id": "a", "prompt": "x", "matrix": {{"p": [1]}}, "exclude": [{{"{BIDI}": 1}}]}}\n',
    ),
}


@pytest.mark.parametrize(("text", "table"), UNPRINTABLE.values(), ids=UNPRINTABLE)
def test_findings_are_printable(text: str, table: str, write: Write) -> None:
    write(table, "t.jsonl")
    for finding in refused(write(text)):
        assert visible(finding.message) == finding.message
        assert len(finding.message) < 2000


@pytest.mark.parametrize("value", ["a\udcff", "\ud800\ud800", "a\x1bb", "a\0b"])
def test_variables_of_the_command_line_are_text_wherever_they_stand(value: str, write: Write) -> None:
    """An argument that is no UTF-8 has lone surrogates: in a key or a request they could not be written down."""
    path = write(
        "vars: {v: x}\noutput: {name: '${v}-${job}.mp4'}\n"
        "shots: [{id: a, prompt: '${v}', tags: ['${v}'], matrix: {p: ['${v}']}}]"
    )
    (found,) = refused(path, variables={"v": value})
    assert found.message.startswith("--var v: ")
    (found,) = refused(path, variables={f"{value}{BIDI}": "x"})
    assert visible(found.message) == found.message
    ran = call("validate", path, "--var", f"v={value}")
    assert ran.code == 2
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: &a [*a]", "\udc80", "{a: b}: c", "!!python/object:os.system x", "- " * 50_000]
)
def test_any_error_of_the_loader_is_exit_2(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for verb in ("validate", "plan", "run"):
        ran = call(verb, path, *(["--simulate"] if verb == "run" else []))
        assert ran.code == 2
        assert "Traceback" not in ran.err
        assert f"{path}:1:" in ran.err
    assert list(tmp_path.iterdir()) == [path]


# --- the key ---------------------------------------------------------------------------------------------

SECRET = "rk_live_0123456789abcdef"


def test_no_option_takes_a_key() -> None:
    context = click.Context(cli)
    verbs = [cli.get_command(context, name) for name in cli.list_commands(context)]
    found = {name for verb in (cli, *verbs) if verb is not None for p in verb.params for name in p.opts}
    assert "--db" in found
    assert not [name for name in found if "key" in name or "token" in name or "secret" in name]


@pytest.mark.parametrize(
    "text", ["api_key: {}\nshots: []", "provider: {}\nshots: []", "shots: [{{id: a, prompt: x, api_key: {}}}]"]
)
def test_a_manifest_has_no_place_for_a_key(text: str, write: Write) -> None:
    """Refused; what is said names the place, not what stands there, unless it stands where a word is expected."""
    found = refused(write(text.format(SECRET)))
    assert found
    if "api_key" in text:
        assert all("api_key" in f.message and SECRET not in f.message for f in found)


# --- text on a terminal ----------------------------------------------------------------------------------


def test_what_a_manifest_says_is_escaped(write: Write) -> None:
    """Bidi marks may stand in a prompt; they don't reach a terminal as they are."""
    write(f'{{"id": "a", "prompt": "{BIDI}x", "tags": ["{BIDI}"], "colour{BIDI}": 1}}\n', "t.jsonl")
    path = write("shots_from: [{file: t.jsonl}]")
    ran = call("validate", path)
    assert ran.code == 2
    assert BIDI not in ran.err + ran.out
    assert "\\u202e" in ran.err
    assert BIDI in "".join(entry["path"] for entry in json.loads(call("validate", path, "--json").out))
