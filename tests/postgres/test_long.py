"""The record of `make cluster-long`: whatever became of a run is in it, and is not played again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import long
from tests.postgres.trouble import Seen


def test_a_record_goes_on_where_it_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[tuple[str, int]] = []
    bad = {("frozen", 1)}

    def one(trouble: str, seed: int, jobs: int) -> Seen:
        if len(played) == 3:
            raise KeyboardInterrupt
        played.append((trouble, seed))
        wrong = ["it hangs"] if (trouble, seed) in bad else []
        return Seen(trouble, seed, jobs, states={"succeeded": jobs}, wrong=wrong, said="what it has printed")

    def call(*more: str) -> int:
        words = ["long", "--seeds", "2", "--trouble", "killed", "--trouble", "frozen", "--record", str(tmp_path / "r")]
        monkeypatch.setattr("sys.argv", [*words, *more])
        return long.main()

    monkeypatch.setattr(long, "_one", one)
    monkeypatch.setattr(long, "binaries", lambda: tmp_path)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert played == [("killed", 0), ("frozen", 0), ("killed", 1)]

    played.clear()
    assert call() == 1
    assert played == [("frozen", 1)]
    said = capsys.readouterr().out
    assert "frozen 1: 300 succeeded" in said
    assert "it hangs" in said
    assert "what it has printed" in said
    played.clear()
    assert call() == 1
    assert played == [], "what has failed is in the record, too"
    bad.clear()
    assert call("--again") == 0
    assert played == [("frozen", 1)]
    assert len(long.Record(tmp_path / "r", 300).runs) == 4
    with pytest.raises(SystemExit):
        call("--jobs", "10")
