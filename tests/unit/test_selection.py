"""`Selection.matches` means what the ledger's SQL means."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchrunner.core.selection import Selection, _glob


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), True),
        (Selection(only=("dog-*",)), True),
        (Selection(only=("dog",)), True),  # the shot's id
        (Selection(only=("cat", "dog-1")), True),
        (Selection(only=("cat",)), False),
        (Selection(tags=("hero", "other")), True),
        (Selection(tags=("other",)), False),
        (Selection(only=("dog",), tags=("other",)), False),
    ],
)
def test_several_of_one_kind_widen_and_both_kinds_narrow(selection: Selection, chosen: bool) -> None:
    assert selection.matches("dog-1", "dog", ("hero", "night")) is chosen


def test_what_selects_is_told_from_what_selects_all() -> None:
    assert not Selection()
    assert Selection(only=("a",))
    assert Selection(tags=("a",))


@settings(max_examples=500)
@given(st.text("ab-]^![*?&~|", max_size=7), st.text("ab-]^![\\&", max_size=4))
@example("[b-a]", "b")
@example("[]-a]", "-")
@example("[]a]b", "]b")
@example("[^a]", "b")
@example("[a", "a")
@example("[!a]", "!")
@example("[^a]", "^")
@example("[a]", "X")
@example("[a-]", "-")
@example("[a-]b", "-b")
@example("[ea-c]", "e")
@example("[a-c-e]", "-")
@example("[a-c]", "b")
@example("[-a]", "-")
def test_globs_are_sqlites(pattern: str, text: str) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        theirs = bool(connection.execute("SELECT ? GLOB ?", (text, pattern)).fetchone()[0])
    finally:
        connection.close()
    assert bool(_glob.__wrapped__(pattern).fullmatch(text)) == theirs
