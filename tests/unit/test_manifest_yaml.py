"""Text to a located tree: YAML 1.2 scalars, positions, and input made to hurt."""

import tracemalloc
from typing import Any

import pytest
import yaml

from batchrunner.manifest import events, located
from batchrunner.manifest.events import read_yaml
from batchrunner.manifest.findings import Report, Stop
from batchrunner.manifest.located import Document, Node, Seq
from batchrunner.manifest.model import ManifestError
from batchrunner.manifest.reading import check_text
from batchrunner.manifest.scalars import BadScalar, resolve


def read(text: str | bytes) -> Document:
    document, report = Document("x.yaml"), Report()
    data = text if isinstance(text, bytes) else text.encode()
    try:
        check_text(document, data, report)
        read_yaml(document, data, report)
    except Stop:
        assert report.errors
    report.check()
    return document


def refusal(text: str | bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return "\n".join(f"{f.line}:{f.column} {f.message}" for f in caught.value.findings)


SCALARS: list[tuple[str, Any]] = [
    ("16:9", "16:9"),
    ("1:1", "1:1"),
    ("12:30:45", "12:30:45"),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("NO", "NO"),
    ("true", True),
    ("True", True),
    ("TRUE", True),
    ("tRUE", "tRUE"),
    ("false", False),
    ("FALSE", False),
    ("null", None),
    ("Null", None),
    ("~", None),
    ("", None),
    ("nULL", "nULL"),
    ("0", 0),
    ("010", 10),
    ("-7", -7),
    ("+7", 7),
    ("0o10", 8),
    ("0o8", "0o8"),
    ("0x1F", 31),
    ("0xg", "0xg"),
    ("0b11", "0b11"),
    ("1_000", "1_000"),
    ("1,000", "1,000"),
    ("1.5", 1.5),
    ("1.", 1.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("1e3", 1000.0),
    ("1E-3", 0.001),
    ("1e", "1e"),
    (".", "."),
    ("-", "-"),
    ("+", "+"),
    ("1.2.3", "1.2.3"),
    ("2026-11-22", "2026-11-22"),
    ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"),
    ("720p", "720p"),
    ("4k", "4k"),
    ("1e3x", "1e3x"),
    ("٣", "٣"),
    ("=", "="),
    ("<<", "<<"),
    ("0x7FFFFFFFFFFFFFFF", 2**63 - 1),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775807", -(2**63) + 1),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_core_schema(text: str, value: Any) -> None:
    got = resolve(text)
    assert got == value
    assert type(got) is type(value)
    if text != "-":
        root = read(f"k: {text}\nl: '{text}'\n").root
        assert (root["k"], root["l"]) == (value, text)
        assert type(root["k"]) is type(value)


@pytest.mark.parametrize(
    "text", [".nan", ".NaN", ".inf", "-.INF", "1e999", "9223372036854775808", "0x" + "f" * 17, "1" * 5000]
)
def test_numbers_that_are_refused(text: str) -> None:
    with pytest.raises(BadScalar):
        resolve(text)
    assert refusal(f"a: b\nk: {text}\n").startswith("2:4 ")
    assert read(f"k: '{text}'").root == {"k": text}


def test_positions() -> None:
    document = read(
        "# c\na: [1, {b: 'é', c: [x, y]}]\n\nd:\n  e: |\n    two\n    lines\n  f: &x {g: 1}\n  h: *x\ni: é\n"
    )
    root = Node(document, document.root)
    assert root.place.position() == (2, 1)
    assert root.key("a").position() == (2, 1)
    assert root.find(("a", 1, "c", 1)).position() == (2, 24)
    assert root.find(("a", 1, "c", 1)).path == "a[1].c[1]"
    assert root.child("a").child(1).key("c").position() == (2, 17)
    assert root.find(("d", "e")).position() == (5, 6)
    assert root.find(("d", "f", "g")).position() == (8, 13)
    assert root.find(("d", "h")).position() == (9, 6)
    assert root.find(("d", "h", "g")).position() == (8, 13)
    assert root.find(("i",)).position() == (10, 4)
    assert root.find(("nothing",)).position() == (2, 1)
    assert root.find(("i", "deeper")).position() == (10, 4)
    assert root.find(()).position() == (2, 1)
    assert root.child("a").at(9).position() == (2, 4)


def test_an_entry_that_is_left_out_moves_nothing() -> None:
    document, report = Document("x.yaml"), Report()
    read_yaml(document, b"a: 1\na: [1, {x: 2}]\nb: {c: 3, c: {d: 4}, e: 5}\nf: 6\n", report)
    root = Node(document, document.root)
    assert document.root == {"a": 1, "b": {"c": 3, "e": 5}, "f": 6}
    assert root.find(("f",)).position() == (4, 4)
    assert root.find(("b", "e")).position() == (3, 25)
    assert report.errors == 2


def test_aliases_are_followed_within_bounds() -> None:
    root = read("a: &a {x: [1, 2]}\nb: *a\nc: &s text\nd: [*s, *s]\n").root
    assert root["b"] is root["a"]
    assert root["d"] == ["text", "text"]
    assert "2:3 the alias *a has no anchor &a before it" in refusal("a: &a\n- *a\n")


def test_empty_documents() -> None:
    assert read("").root is None
    assert read("# only a comment\n").root is None
    assert read("---\n").root is None
    assert read(b"\xef\xbb\xbfa: 1\n").root == {"a": 1}


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"a: \x00", "1:4 the control character U+0000"),
        (b"a: b\n\x1b[0m", "2:1 the control character U+001B"),
        (b"a: \xff", "1:4 the byte 0xFF that is not UTF-8"),
        (b"a: '\xc3\xa9' \xc3", "1:8 the byte 0xC3 that is not UTF-8"),
        (b"a: \xed\xa0\x80", "1:4 the byte 0xED that is not UTF-8"),
        (b"\xff\xfea\x00", "1:1 UTF-16 is not allowed"),
        ("a: é\nb: x\u0085y".encode(), "2:5 the invisible character U+0085"),
        ("b: x\u2028y".encode(), "1:5 the invisible character U+2028"),
        ("b: x\ufeffy".encode(), "1:5 the invisible character U+FEFF"),
        ("b: x\uffff".encode(), "1:5 the invisible character U+FFFF"),
        (b"a: 1\r\nb: \x7f", "2:4 the control character U+007F"),
        (b"a: 1\rb: \x7f", "2:4 the control character U+007F"),
        (b'a: "\\uD800"', "1:7 not valid YAML"),
        (b'a: "\\0"', "1:4 the control character U+0000"),
        (b'"\\x1b": 1', "1:1 the control character U+001B"),
        (b'a: "\\x85"', "1:4 the control character U+0085"),
        (b"%YAML 1.2\n---\na: 1\n", "1:1 directives"),
        (b"\n# c\n%TAG ! x\n---\na: 1\n", "3:1 directives"),
    ],
)
def test_text_that_is_refused(data: bytes, start: str) -> None:
    assert refusal(data).startswith(start)


def test_a_bad_byte_between_two_chunks() -> None:
    text = b"a: " + b"x" * ((1 << 20) - 4) + "é".encode() + b"\xe2\x82"
    assert f"1:{(1 << 20) + 1} the byte 0xE2" in refusal(text)


# --- made to hurt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["[", "{", "- ", "? ", "[\n", "{a: ", "- - ", "!!x [", "&a [", '"a": {'])
def test_depth_is_checked_while_reading(unit: str) -> None:
    assert "nested too deeply: at most 32 levels" in refusal("a: \n " + unit * 100_000)


def test_32_levels_are_allowed() -> None:
    value = read("[" * 32 + "]" * 32).root
    for _ in range(32):
        assert isinstance(value, Seq)
        value = value[0] if value else None
    assert "nested too deeply" in refusal("[" * 33 + "]" * 33)
    assert "nested too deeply" in refusal("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 12 + "*a" + "]" * 12)


def bomb(merge: bool) -> str:
    lines = ["l0: &l0 {a: x, b: x, c: x, d: x, e: x, f: x, g: x, h: x, i: x}"]
    for i in range(1, 9):
        if merge:
            lines.append(f"l{i}: &l{i} {{" + ", ".join(f"k{j}: {{<<: *l{i - 1}}}" for j in range(4)) + "}")
        else:
            lines.append(f"l{i}: &l{i} [" + ", ".join([f"*l{i - 1}"] * 9) + "]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ("<<: {a: 1}", "3:4 merge keys (<<) are not supported"),
        ("true: 1", "3:4 a key must be a string; put 'true' in quotes"),
        ("plain: 1, plain: 2", "3:14 duplicate key 'plain'; it stands at 3:4 already"),
        ("!!str plain: 1", "3:4 tags ('!!str') are not allowed"),
        ("&x plain: 1, b: *x", ""),
    ],
)
def test_a_key_that_was_met_before_is_looked_at_again(again: str, said: str) -> None:
    text = f'- {{plain: 1, "<<": 1, "true": 1}}\n- {{plain: 1, "<<": 1, "true": 1}}\n- {{{again}}}\n'
    if said:
        assert said in refusal(text)
    else:
        assert read(text).root[2] == {"plain": 1, "b": "plain"}


@pytest.mark.parametrize("merge", [True, False])
def test_bombs_take_little_memory(merge: bool) -> None:
    text = bomb(merge)
    assert len(text) < 1000
    tracemalloc.start()
    try:
        said = refusal(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ("merge keys" if merge else "aliases repeat too much") in said
    assert peak < 5_000_000


def test_structural_errors_are_bounded() -> None:
    said = refusal("".join(f"{i}: x\n" for i in range(1000)))
    assert said.count("must be a string") == events.MAX_STRUCTURAL


def test_collections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(located, "MAX_COLLECTIONS", 50)
    assert "50:3 too many mappings and lists" in refusal("- []\n" * 60)


def test_keys_that_are_aliases_or_collections() -> None:
    assert "2:1 a key must be a plain string" in refusal("a: &k x\n*k : y\n")
    assert "1:1 a key must be a plain string" in refusal("{a: b}: c\n")
    assert "1:1 tags ('!!str')" in refusal("!!str a: c\n")


def test_a_large_flat_list_is_read() -> None:
    assert len(read("- x\n" * 20_000).root) == 20_000


def test_the_pure_parser_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: [1, {b: 'é', c: \"x\\ty\"}]\nd: |\n  two\n  lines\ne: &x {g: 1}\nh: *x\n"
    fast = read(text)
    monkeypatch.setattr(events, "_Parser", events._PureParser)
    slow = read(text)
    assert slow.root == fast.root
    assert slow.marks == fast.marks
    assert refusal("a: [").startswith("1:5 not valid YAML")


def test_libyaml_is_there() -> None:
    """Its absence is survivable and slow: the wheels that we depend on have it."""
    assert yaml.__with_libyaml__
