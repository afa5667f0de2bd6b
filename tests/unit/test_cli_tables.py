"""Columns, figures and JSON as the verbs print them."""

from __future__ import annotations

import pytest

from batchrunner.cli import tables
from tests.cli_support import call


def test_columns_line_up_whatever_the_script() -> None:
    lines = list(tables.table_lines(("name", "n"), [("犬", "7"), ("dog", "12")], right=(1,)))
    assert lines == ["name   n", "犬     7", "dog   12"]


def test_foreign_text_is_shown_and_not_obeyed() -> None:
    (line,) = tables.table_lines(("", ""), [("\x1b[31mred", "a\u202eb\nc")])
    assert line == "\\x1b[31mred  a\\u202eb\\x0ac"


def test_a_line_is_cut_at_the_width() -> None:
    (line,) = tables.table_lines(("", ""), [("dog", "x" * 50)], columns=20)
    assert tables.width(line) == 20
    assert line.endswith("x…")


def test_a_long_list_streams_in_chunks_under_one_header() -> None:
    rows = ((f"job-{i}", "x") for i in range(3 * tables.CHUNK))
    lines = list(tables.table_lines(("job", "s"), rows))
    assert len(lines) == 3 * tables.CHUNK + 1
    assert [i for i, line in enumerate(lines) if line.startswith("job ")] == [0]


def test_an_empty_table_is_its_header() -> None:
    assert list(tables.table_lines(("job", "state"), [])) == ["job  state"]


@pytest.mark.parametrize(
    ("text", "columns", "clipped"),
    [("dog", 3, "dog"), ("dogs", 3, "do…"), ("犬犬", 3, "犬…"), ("a\u0301b", 2, "a\u0301b")],
)
def test_clipping_counts_columns(text: str, columns: int, clipped: str) -> None:
    assert tables.clip(text, columns) == clipped


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (45.4, "45 s"), (89, "89 s"), (90, "2 min"), (3599, "60 min"), (11100, "3 h 05 min")],
)
def test_spans(seconds: float, text: str) -> None:
    assert tables.span(seconds) == text


def test_money() -> None:
    assert tables.money(630) == "630 credits ($0.63)"
    assert tables.money(1) == "1 credit ($0.001)"
    assert tables.money(None) == "an unknown price"
    assert tables.counted(1, "batch") == "1 batch"
    assert tables.counted(2000, "batch") == "2,000 batches"


def test_times() -> None:
    assert tables.utc_time(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
    assert tables.utc_time(None) == tables.local_time(None) == ""


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tables.colours()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert tables.colours()
    (line,) = tables.table_lines(("",), [("failed",)])
    assert line == "\x1b[31mfailed\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not tables.colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not tables.colours()


def test_a_lone_surrogate_is_json_all_the_same(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    tables.print_json({"a": "\udc80é"})
    assert b'"\\udc80\xc3\xa9"' in capfdbinary.readouterr().out


def test_no_such_verb_hints_at_the_nearest() -> None:
    ran = call("statsu")
    assert ran.code == 2
    assert "Did you mean 'status'?" in ran.err
