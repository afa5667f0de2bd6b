"""Which changes of the core a line of docs/mutants.md explains."""

from __future__ import annotations

import pytest

from tests.mutants.core import explained, kinds

NAME = "batchrunner.core.limits.xǁRateǁrefused__mutmut_7"


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('return "no URL"', 'return "no url"', ["words"]),
        ('return "no URL"', 'return "XXno URLXX"', ["words"]),
        ('how = f"no {a}" if b else "no URL"', 'how = f"no {a}" if b else "NO URL"', ["words"]),
        ('if a == "http":', 'if a == "XXhttpXX":', []),
        ('if a not in ("http", "https"):', 'if a not in ("http", "HTTPS"):', []),
        ('return given["name"]', 'return given["NAME"]', []),
        ('return {"name": a}', 'return {"XXnameXX": a}', []),
        ('return given.get("name")', 'return given.get("NAME")', []),
        ("a = max(5.0, x)", "a = max(6.0, x)", []),
        ("if a < 10:", "if a <= 10:", ["boundary"]),
        ("if a < 10:", "if a > 10:", []),
        ("if a < 10:", "if a == 10:", []),
        ("a += 1", "a -= 1", []),
        ("a = 1", "a = None", []),
        ("return a and b", "return a or b", []),
    ],
)
def test_kinds_of_change(before: str, after: str, found: list[str]) -> None:
    assert kinds(["-" + before, "+" + after]) == found
    assert kinds(["-" + before]) == []


def test_a_line_explains_one_change_or_a_kind_of_one_function() -> None:
    lines = ["-    if a < 10:", "+    if a <= 10:"]
    assert explained(NAME, lines, "- `limits.Rate.refused`: `if a <= 10:`. Why.")
    assert explained(NAME, lines, "- `limits.Rate.refused` (boundary): why.")
    assert not explained(NAME, lines, "- `limits.Rate.refused` (words): why.")
    assert not explained(NAME, lines, "- `limits.Rate.accepted` (boundary): why.")
    assert not explained(NAME, ["-    x()", "+    y()"], "- `limits.Rate.refused` (boundary): why.")
    assert not explained(NAME, [], "- `limits.Rate.refused` (boundary): why.")
