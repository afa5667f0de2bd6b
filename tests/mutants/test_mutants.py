"""The catalogue of mistakes fits the source, and whoever tries them tells caught from survived.

The mistakes are tried by `python -m tests.mutants`; here only a few.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS, Edit, Mutant
from tests.mutants.core import changed, explained, place
from tests.mutants.run import ROOT, CannotTell, Verdict, apply, check_baseline, mutated, try_mutant

QUICK = ("retries_one_too_many", "price_floored", "retry_after_unclamped", "old_revisions_forgotten")
"""Tried in the gate: seconds each."""


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_mistake_can_still_be_made(mutant: Mutant) -> None:
    """What is to be replaced stands there once, what comes of it is Python, and the tests that are named exist."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        before = texts.get(edit.file) or (ROOT / "batchrunner" / edit.file).read_text("utf-8")
        texts[edit.file] = mutated(edit, before)
    for file, text in texts.items():
        if file.endswith(".py"):
            compile(text, file, "exec")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text("utf-8"), test


def test_every_mistake_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(MUTANTS) >= 90
    for mutant in MUTANTS.values():
        assert mutant.mistake.endswith(".")
        assert mutant.edits
        assert mutant.tests
    assert len({mutant.mistake for mutant in MUTANTS.values()}) == len(MUTANTS)


@pytest.mark.slow
def test_a_few_are_caught() -> None:
    mutants = [MUTANTS[name] for name in QUICK]
    assert check_baseline(mutants) > 20
    for mutant in mutants:
        verdict = try_mutant(mutant)
        assert verdict.caught_by, verdict


def _try(old: str, new: str, test: str = "tests/unit/test_retry.py") -> Verdict:
    return try_mutant(Mutant("x", "Something.", (Edit("core/retry.py", old, new),), (test,)))


@pytest.mark.slow
def test_what_nobody_catches_is_told() -> None:
    assert _try("used >= allowed", "not used < allowed").survived


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("used >= allowed", "used >= (", "no Python"),
        ("used >= allowed", "used >=  allowed", "nothing changes"),
        ("import replace", "import nothing as replace", "does not start"),
    ],
)
def test_a_program_that_does_not_start_or_change_proves_nothing(old: str, new: str, why: str) -> None:
    verdict = _try(old, new)
    assert why in verdict.not_tried
    assert not verdict.survived
    assert not verdict.caught_by


@pytest.mark.slow
def test_a_test_that_is_not_there_catches_nothing() -> None:
    verdict = _try("used >= allowed", "used > allowed", "tests/unit/test_retry.py::test_that_is_not_there")
    assert "pytest ended with 4" in verdict.not_tried


@pytest.mark.parametrize("old", ["", "used", "this stands nowhere"])
def test_an_edit_applies_exactly_once_or_not_at_all(old: str, tmp_path: Path) -> None:
    file = tmp_path / "batchrunner" / "x.py"
    file.parent.mkdir()
    file.write_text("used = used + 1\n")
    with pytest.raises(CannotTell, match="stands"):
        apply(Mutant("x", "Something.", (Edit("x.py", old, "unused"),), ()), tmp_path)
    assert file.read_text() == "used = used + 1\n"


def test_a_mutant_is_told_by_its_name_and_its_line() -> None:
    names = ["batchrunner.core.pacing.xǁGcraǁtake__mutmut_2", "batchrunner.core.lifecycle.x__next__mutmut_30"]
    assert [place(name) for name in names] == ["pacing.Gcra.take", "lifecycle._next"]
    lines = changed("# name\n--- a\n+++ b\n@@ -1 +1 @@\n def f():\n-    a = 1\n+    a = 2\n")
    assert lines == ["-    a = 1", "+    a = 2"]
    name = "batchrunner.core.pacing.xǁGcraǁtake__mutmut_2"
    assert explained(name, lines, "- `pacing.Gcra.take`: `a = 2` is as good as 1")
    assert not explained(name, lines, "- `pacing.Gcra.delay`: `a = 2`\n`pacing.Gcra.take`: `a = 3`")
    assert not explained(name, [], "`pacing.Gcra.take`: ``")
