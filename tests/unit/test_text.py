"""Text from outside, on a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.text import visible

HOSTILE = {
    "escape": ("\x1b[31mred", "\\x1b[31mred"),
    "osc": ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    "newline": ("a\nb\r\n", "a\\x0ab\\x0d\\x0a"),
    "tab": ("a\tb", "a\\x09b"),
    "nul": ("\0", "\\x00"),
    "delete": ("\x7f", "\\x7f"),
    "c1": ("\x9b31m", "\\x9b31m"),
    "bidi": ("\u202egnp.exe", "\\u202egnp.exe"),
    "isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "zero width": ("a\u200bb\u200d\ufeff", "a\\u200bb\\u200d\\ufeff"),
    "soft hyphen": ("\xad", "\\xad"),
    "line separator": ("\u2028\u2029", "\\u2028\\u2029"),
    "surrogate": ("\ud800", "\\ud800"),
    "private": ("\ue000", "\\ue000"),
    "tag": ("\U000e0041", "\\U000e0041"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_shown_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_is_just_short_enough_is_not_cut() -> None:
    assert [visible(text, 3) for text in ("ab", "abc", "abcd", "\x1b")] == ["ab", "abc", "ab…", "\\x…"]


@pytest.mark.parametrize("text", ["", "a corgi", "C:\\x1b", "é ü 犬 🐕 ½", "e\u0301"])
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_nothing_that_moves_a_cursor_comes_through(text: str) -> None:
    for char in visible(text):
        assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(), st.integers(1, 40))
def test_limit(text: str, limit: int) -> None:
    cut = visible(text, limit)
    assert len(cut) <= limit
    if len(visible(text)) > limit:
        assert cut.endswith("…")
        assert visible(text).startswith(cut[:-1])
    else:
        assert cut == visible(text)
