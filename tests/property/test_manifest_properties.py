"""What holds for every text, tree and request."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.catalogue import manifest_schema, models
from batchrunner.manifest import Manifest, ManifestError, load
from batchrunner.manifest.events import read_yaml
from batchrunner.manifest.findings import Report, Stop
from batchrunner.manifest.located import Document, Map, Node, Seq
from batchrunner.manifest.reading import check_text
from batchrunner.manifest.requests import ModelRules
from batchrunner.manifest.schema_errors import Explainer, gate
from tests.unit.test_models import CASES, meant

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp"]), max_size=20
).filter(lambda s: "\ufeff" not in s)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | TEXT
    | st.sampled_from(["16:9", "no", "010", "1e3", "0x1F", "~", "", ".nan", "=", "<<"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT.filter(lambda k: k != "<<"), inner, max_size=4),
    max_leaves=25,
)


def read(data: bytes) -> Document:
    document, report = Document("x.yaml"), Report()
    try:
        check_text(document, data, report)
        read_yaml(document, data, report)
    except Stop:
        pass
    report.check()
    return document


def yaml_1_1(number: float) -> str:
    """A float as both YAML 1.1 (PyYAML writes a tag otherwise) and 1.2 read it."""
    text = repr(number)
    return text if "." in text else text.replace("e", ".0e")


@given(TREES, st.sampled_from([None, True, False]))
def test_a_tree_survives_yaml(tree: Any, flow: bool | None) -> None:
    class Dumper(yaml.SafeDumper):
        """Strings in quotes: PyYAML's own rules for plain ones are those of YAML 1.1."""

    Dumper.add_representer(str, lambda d, s: d.represent_scalar("tag:yaml.org,2002:str", s, style='"'))
    Dumper.add_representer(float, lambda d, f: d.represent_scalar("tag:yaml.org,2002:float", yaml_1_1(f)))
    text = yaml.dump(tree, Dumper=Dumper, allow_unicode=True, default_flow_style=flow, sort_keys=False)
    document = read(text.encode())
    assert typed(document.root) == typed(tree)
    check_positions(document, Node(document, document.root))


@given(TREES)
def test_json_is_yaml(tree: Any) -> None:
    document = read(json.dumps(tree, ensure_ascii=False).encode())
    assert typed(document.root) == typed(tree)


def typed(value: Any) -> Any:
    """The tree with types, so that 1, 1.0 and true differ and -0.0 is 0.0."""
    if isinstance(value, dict):
        return {k: typed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [typed(v) for v in value]
    return type(value).__name__, value


def check_positions(document: Document, node: Node) -> None:
    """Positions grow in the order of the text: walking siblings finds the right marks."""
    seen: list[tuple[int, int]] = []

    def walk(node: Node) -> None:
        steps = list(node.value) if isinstance(node.value, Map) else range(len(node.value))
        for step in steps:
            if isinstance(step, str):
                seen.append(node.key(step).position())
            seen.append(node.at(step).position())
            child = node.child(step)
            if isinstance(child.value, (Map, Seq)):
                walk(child)

    if isinstance(node.value, (Map, Seq)):
        walk(node)
    assert seen == sorted(seen)
    assert len(seen) == max(0, len(document.marks) - 1)


# --- load raises ManifestError, or returns ---------------------------------------------------------------

LINES = [
    "version: 1",
    "batch: b",
    "shots:",
    "- id: a",
    "  - id: b",
    "    prompt: x",
    "    takes: 2",
    "    matrix: {p: [1, 2]}",
    "    exclude: [{p: 1}]",
    "defaults:",
    "  model: kling-3-0-turbo",
    "vars: {a: '${b}'}",
    "include: [x]",
    "output: {name: '${shot}'}",
    "budget: {max_credits: 1}",
    "prices: {kling-3-0-turbo: {per: second, usd: 1}}",
]
PIECES = [
    "&a",
    "*a",
    "<<:",
    "---",
    "...",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "|",
    ">",
    "!!int",
    "?",
    ":",
    "%TAG",
    "\\",
    "${",
    "#",
    "null",
]
WORDS = st.sampled_from([*LINES, *PIECES, "<<: *a", "\t"])
MESS = st.lists(WORDS | TEXT, max_size=25).map("\n".join) | st.lists(WORDS, max_size=40).map("\n".join)


def attempt(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_bytes(data)
        manifest = load_or_refuse(path, {"b": "1"})
        if manifest is not None:
            assert len(list(manifest.jobs)) == len(manifest.jobs)


def load_or_refuse(path: Path, variables: dict[str, str]) -> Manifest | None:
    """What `load` gives, or None where it refuses; any other exception fails the test."""
    try:
        return load(path, variables=variables)
    except ManifestError as error:
        if all(f.warning for f in error.findings):
            raise
        return None


@settings(max_examples=300, deadline=None)
@given(MESS)
def test_any_text_is_read_or_refused(text: str) -> None:
    attempt(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    attempt(data)


KEYS = st.sampled_from(
    [*manifest_schema()["properties"], *manifest_schema()["$defs"]["shot"]["properties"], "x", "file"]
)
VALUES = SCALARS | st.sampled_from(["kling-3-0-turbo", "${a}", "${", "a/b", "../x", 5, 99, "720p"])
SHAPES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)
HEADS = st.fixed_dictionaries(
    {"version": st.just(1), "batch": st.just("b")},
    optional={
        "defaults": SHAPES | st.just({"model": "kling-3-0-turbo"}),
        "profiles": SHAPES,
        "vars": SHAPES,
        "output": SHAPES,
        "prices": SHAPES,
        "include": SHAPES,
        "shots_from": SHAPES,
        "limits": SHAPES,
        "shots": st.lists(
            st.fixed_dictionaries(
                {"id": st.sampled_from(["a", "b", "c.d"])},
                optional={
                    "prompt": VALUES,
                    "matrix": st.dictionaries(KEYS, st.lists(VALUES, max_size=3) | VALUES, max_size=3),
                    "exclude": SHAPES,
                    "takes": st.integers(0, 3) | VALUES,
                    "tags": SHAPES,
                    "duration": VALUES,
                    "model": VALUES,
                },
            )
            | SHAPES,
            max_size=4,
        ),
    },
)


@settings(max_examples=400, deadline=None)
@given(HEADS)
def test_any_tree_is_a_manifest_or_refused(tree: Any) -> None:
    attempt(json.dumps(tree).encode())


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=120), st.sampled_from(["csv", "jsonl"]), st.booleans())
def test_any_table_is_read_or_refused(text: str, kind: str, headed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(
            f"version: 1\nbatch: b\ndefaults: {{model: kling-3-0-turbo}}\nshots_from: [{{file: t.{kind}}}]\n"
        )
        head = "id,prompt,duration,matrix\n" if headed else ""
        (Path(folder) / f"t.{kind}").write_bytes((head + text).encode("utf-8", "surrogatepass"))
        load_or_refuse(path, {})


# --- keys and fingerprints -------------------------------------------------------------------------------

SHOTS = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True).filter(lambda s: s.split(".")[0] not in {"con", "aux"}),
    st.fixed_dictionaries(
        {"prompt": st.text("abc ${}", min_size=1, max_size=8).map(lambda s: s.replace("$", "") or "x")},
        optional={
            "duration": st.integers(3, 15),
            "takes": st.integers(1, 3),
            "matrix": st.dictionaries(
                st.sampled_from(["p", "q", "resolution"]), st.just(["720p", "1080p"]), min_size=1, max_size=3
            ),
        },
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(SHOTS, st.randoms(use_true_random=False))
def test_order_changes_neither_keys_nor_fingerprints(shots: dict[str, Any], random: Any) -> None:
    def expand(order: list[str], flip: bool) -> dict[str, str]:
        listed = []
        for name in order:
            shot = {"id": name, **shots[name]}
            if flip:
                shot = dict(reversed(list(shot.items())))
                if "matrix" in shot:
                    shot["matrix"] = {k: v[::-1] for k, v in reversed(list(shot["matrix"].items()))}
            listed.append(shot)
        head = {"version": 1, "batch": "b", "defaults": {"model": "kling-3-0-turbo"}, "shots": listed}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.yaml"
            path.write_text(json.dumps(head))
            return {job.key: job.fingerprint for job in load(path).jobs}

    names = list(shots)
    before = expand(names, flip=False)
    random.shuffle(names)
    assert expand(names, flip=True) == before
    assert expand(names[:1], flip=False).items() <= before.items()


# --- the two validators agree ----------------------------------------------------------------------------

ODD = VALUES | st.sampled_from(
    [
        "16:9",
        "1080p",
        "720p\n",
        "http://a",
        "https://a/\u00a0",
        "https://example.com/a.png",
        "https://a\n",
        "https://a b",
        True,
        5.0,
        3,
        "x" * 3073,
    ]
) | st.lists(SCALARS, max_size=2)  # fmt: skip
RULES = {name: ModelRules(model, model.price) for name, model in models().items()}
WHOLE_SCHEMA = {name: (gate(model.schema).is_valid, Explainer(model.schema)) for name, model in models().items()}


def _values(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of one model: values that the tables of requests give a field, good ones and bad ones, or anything."""
    case = CASES[name]
    written = [meant(r) for r in [*case["valid"], *(i["request"] for i in case["invalid"])]]
    fields = {}
    for field in [*models()[name].schema["properties"], "unknown"]:
        seen = [request[field] for request in written if field in request]
        fields[field] = st.sampled_from(seen) | ODD if seen else ODD
    fields["model"] = st.just(name) | ODD
    return st.fixed_dictionaries({}, optional=fields).map(lambda request: {"model": name, **request})


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(CASES)).flatmap(lambda name: st.tuples(st.just(name), _values(name))))
def test_gate_explainer_and_parts_agree_on_requests(drawn: tuple[str, dict[str, Any]]) -> None:
    name, value = drawn
    rules = RULES[name]
    is_valid, explainer = WHOLE_SCHEMA[name]
    valid = is_valid(value)
    assert valid == (not explainer.problems(value))
    assert valid == (not rules.problems(value))
    assert rules.clean(value) == (valid and not rules.warnings(value))


ID_LIKE = st.text(st.sampled_from("aZ0._-٣é \n$"), max_size=6)
WHOLE = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 1.0, "1", True, 2]),
        "batch": ID_LIKE,
        "vars": st.dictionaries(ID_LIKE, VALUES, max_size=2),
        "profiles": st.dictionaries(ID_LIKE, st.dictionaries(KEYS, VALUES, max_size=2), max_size=2),
        "limits": st.dictionaries(
            st.sampled_from(["in_flight", "submits_per_minute", "x"]), VALUES | NUMBERS, max_size=2
        ),
        "budget": st.dictionaries(st.sampled_from(["max_credits", "x"]), NUMBERS, max_size=2),
        "prices": st.dictionaries(
            ID_LIKE,
            st.dictionaries(
                st.sampled_from(["per", "usd", "rates"]),
                st.sampled_from(["second", "0.1", "٣", "0.1\n", 1, [], [{"usd": 1}]]),
            ),
            max_size=2,
        ),
        "shots": st.lists(st.dictionaries(KEYS, SHAPES | ID_LIKE, max_size=4), max_size=2),
        "x": VALUES,
    },
)


@settings(max_examples=400, deadline=None)
@given(WHOLE)
def test_gate_and_explainer_agree_on_manifests(value: dict[str, Any]) -> None:
    schema = manifest_schema()
    assert gate(schema).is_valid(value) == (not Explainer(schema).problems(value))
