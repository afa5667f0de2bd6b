"""The key in every dress that it may come back in."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrunner.core.secret import HIDDEN, SHORTEST, forms, hide

KEY = "rk_live/canary+0123?456~"
texts = st.text("ab/+ :", max_size=4)


def test_a_key_that_is_too_short_is_not_searched_for() -> None:
    assert forms("a" * (SHORTEST - 1)) == ()
    assert "a" * SHORTEST in forms("a" * SHORTEST)
    assert hide("a" * SHORTEST, forms("a" * (SHORTEST - 1))) == "a" * SHORTEST


@pytest.mark.parametrize("shown", [KEY, quote(KEY), quote(KEY, safe="")])
def test_as_it_stands_and_percent_encoded(shown: str) -> None:
    assert hide(f"<{shown}> and <{shown}>", forms(KEY)) == f"<{HIDDEN}> and <{HIDDEN}>"


@given(st.text("abcXYZ019_-+/?~", min_size=SHORTEST, max_size=40), texts, texts)
@example(KEY, "", "")
@example(KEY, "user:", "")
@example(KEY, "Bearer ", "x")
@example("?" * SHORTEST, "ab", "c")
def test_in_base64_wherever_it_begins(key: str, before: str, after: str) -> None:
    """All but the characters at its two ends, which are made of its neighbours too."""
    for encode in (b64encode, urlsafe_b64encode):
        encoded = encode(f"{before}{key}{after}".encode()).decode()
        found = hide(encoded, forms(key))
        start, end = len(before) * 8, (len(before) + len(key)) * 8
        inner = encoded[-(-start // 6) : end // 6]
        assert inner in forms(key)
        assert HIDDEN in found
        assert inner not in found


def test_the_forms_of_a_key() -> None:
    assert forms("a" * 9) == ("a" * 9, "YWFhYWFhYWFh", "FhYWFhYWFhY", "hYWFhYWFhYW")
    assert forms("a" * 8 + "W")[1] == "YWFhYWFhYWFX"
    assert forms("a/b+c~d?")[:3] == ("a/b+c~d?", "a%2Fb%2Bc~d%3F", "a/b%2Bc~d%3F")
    assert hide("nothing of it", forms(KEY)) == "nothing of it"
