"""Which changes of the core a line of docs/mutants.md explains."""

from __future__ import annotations

import pytest

from tests.mutants.core import explained, only_words

NAME = "batchrunner.core.limits.xǁRateǁrefused__mutmut_7"


@pytest.mark.parametrize(
    ("before", "after", "only"),
    [
        ('return "no URL"', 'return "no url"', True),
        ('return "no URL"', 'return "XXno URLXX"', True),
        ('how = f"no {a}" if b else "no URL"', 'how = f"no {a}" if b else "NO URL"', True),
        ('if a == "http":', 'if a == "XXhttpXX":', False),
        ('if a not in ("http", "https"):', 'if a not in ("http", "HTTPS"):', False),
        ('return given["name"]', 'return given["NAME"]', False),
        ('return {"name": a}', 'return {"XXnameXX": a}', False),
        ('return given.get("name")', 'return given.get("NAME")', False),
        ("a = max(5.0, x)", "a = max(6.0, x)", False),
        ("if a < 10:", "if a <= 10:", False),
        ("if a < 10:", "if a > 10:", False),
        ("if a < 10:", "if a == 10:", False),
        ("a += 1", "a -= 1", False),
        ("a = 1", "a = None", False),
        ("return a and b", "return a or b", False),
    ],
)
def test_only_words_for_people(before: str, after: str, only: bool) -> None:
    assert only_words(["-" + before, "+" + after]) is only
    assert not only_words(["-" + before])


def test_a_line_explains_one_change_or_the_words_of_one_function() -> None:
    lines = ["-    if a < 10:", "+    if a <= 10:"]
    assert explained(NAME, lines, "- `limits.Rate.refused`: `if a <= 10:`. Why.")
    assert not explained(NAME, lines, "- `limits.Rate.accepted`: `if a <= 10:`. Why.")
    assert not explained(NAME, lines, "- `limits.Rate.refused`: `if a >= 10:`. Why.")
    assert not explained(NAME, lines, "- `limits.Rate.refused` (words): why.")
    words = ['-    return "no URL"', '+    return "no url"']
    assert explained(NAME, words, "- `x.y` (words), `limits.Rate.refused` (words): why.")
    assert not explained(NAME, words, "- `x.y` (words), `limits.Rate.refused`: why.")
    assert not explained(NAME, [], "- `limits.Rate.refused` (words): why.")
