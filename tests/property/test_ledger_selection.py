"""One rule of what is selected, told twice: by SQLite's GLOB for jobs in the ledger, by `Selection` for the others."""

from __future__ import annotations

import json
import sqlite3

from hypothesis import example, given
from hypothesis import strategies as st

from batchrunner.core.selection import Selection
from batchrunner.ledger.selecting import where

keys = st.from_regex(r"[ab\-@=+.]{1,5}", fullmatch=True)
patterns = st.from_regex(r"[ab\-*?\[\]^.@]{0,6}", fullmatch=True)
tags = st.lists(st.sampled_from(["a", "b", "hero", "ü", "'", '"']), max_size=3)


@given(keys, keys, tags, st.lists(patterns, max_size=2), tags)
@example("a-b", "a", [], ["[a-b]*"], [])
@example("a-b", "a", [], ["["], [])
@example("a]", "b", [], ["a[]]"], [])
@example("a", "b", [], ["[^b]"], [])
@example("-", "b", [], ["[b-]"], [])
@example("a.b", "b", [], ["a?b"], [])
@example("a", "b", [], ["[b-a]"], [])
def test_both_say_the_same(key: str, shot: str, own: list[str], only: list[str], wanted: list[str]) -> None:
    selection = Selection(tuple(only), tuple(wanted))
    assert bool(selection) is bool(only or wanted)
    condition, values = where(selection)
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE job (key TEXT, shot TEXT, tags TEXT)")
        connection.execute("INSERT INTO job VALUES (?, ?, ?)", (key, shot, json.dumps(own)))
        found = connection.execute(f"SELECT count(*) FROM job WHERE {condition}", values).fetchone()[0]
    finally:
        connection.close()
    assert bool(found) is selection.matches(key, shot, own)
