"""`export`: the same facts as `jobs --json`, in three formats, and never over somebody else's file."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.job import State
from batchrunner.report import files
from tests.cli_support import call, make_ledger
from tests.support import path_to, spec

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    path = tmp_path / "batchrunner.db"
    make_ledger(
        path,
        [
            (spec("dog", tags=["hero"]), path_to(State.SUCCEEDED)),
            (spec("dog", 2, prompt='=HYPERLINK("http://evil.test")', tags=["hero"]), path_to(State.FAILED)),
            (spec("cat", prompt="two\nlines, “quoted”"), ()),
        ],
    )
    return path


def facts(text: str) -> Any:
    return json.loads(text)


def test_every_format_says_what_jobs_says() -> None:
    jobs = call("jobs", "night", "--json").json
    assert len(jobs) == 3
    assert call("export", "night", "--format", "json").json == jobs
    assert [facts(line) for line in call("export", "night", "--format", "jsonl").out.split("\n")[:-1]] == jobs
    assert call("export", "night").out == call("jobs", "night", "--csv").out


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--state", "failed"], ["dog-2"]),
        (["--tag", "hero"], ["dog-1", "dog-2"]),
        (["--only", "c*", "--state", "pending", "--state", "failed"], ["cat-1"]),
        (["--state", "cancelled"], []),
    ],
)
def test_a_selection(words: list[str], kept: list[str]) -> None:
    assert [job["job"] for job in call("export", "night", "--format", "json", *words).json] == kept


def test_a_file_by_its_ending_replaced_whole(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json", "a.jsonl", "a.txt"):
        for _ in range(2):  # our own file is replaced
            ran = call("export", "night", "--out", name)
            assert (ran.code, ran.out, ran.err) == (0, f"3 jobs in {name}\n", "")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert len(json.loads((tmp_path / "a.json").read_text())) == 3
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o666 & ~files._umask()
    assert call("export", "night", "--out", "a.csv", "--format", "json").code == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "a.json").read_bytes()
    for name in ("b.json", "b.jsonl"):  # a file of no jobs is ours too
        for _ in range(2):
            assert call("export", "night", "--out", name, "--state", "cancelled").code == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_no_other_file_is_overwritten(tmp_path: Path, ledger: Path) -> None:
    before = ledger.read_bytes()
    (tmp_path / "manifest.yaml").write_text("version: 1\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ours.csv").write_text("job,batch,shot\n")
    (tmp_path / "link").symlink_to("ours.csv")
    for name in ("batchrunner.db", "manifest.yaml", "pipe", "folder", "link", "nowhere/a.csv"):
        ran = call("export", "night", "--out", name)
        assert (ran.code, ran.out) == (2, "")
        assert name.split("/")[0] in ran.err
    assert ledger.read_bytes() == before
    assert (tmp_path / "manifest.yaml").read_text() == "version: 1\n"
    assert (tmp_path / "ours.csv").read_text() == "job,batch,shot\n"


def test_what_is_not_there() -> None:
    ran = call("export", "nigt")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean night?" in ran.err
    assert call("export", "night", "--db", "other.db").code == 2
    assert call("export").code == 2


def test_no_spreadsheet_runs_a_cell(tmp_path: Path) -> None:
    """Every text that others wrote, in every column that takes it."""
    specs = [spec(f"s{i}", prompt=text, tags=[text]) for i, text in enumerate(FORMULAS)]
    make_ledger(tmp_path / "f.db", [(s, path_to(State.FAILED)) for s in specs])
    rows = list(csv.reader(io.StringIO(call("export", "night", "--db", "f.db").out, newline="")))
    assert len(rows) == 1 + len(FORMULAS)
    prompt = rows[0].index("prompt")
    assert [row[prompt] for row in rows[1:]] == ["'" + text for text in FORMULAS]
    assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("job,batch,old")

    def pieces() -> Any:
        yield b"job,batch,"
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        files.write(path, pieces(), lambda head: True)
    assert path.read_text() == "job,batch,old"
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name) == []
