"""Every verb teaches, costs no heavy import before it is needed, and completes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from batchrunner.cli.main import COMMANDS, cli
from batchrunner.core.job import State
from tests.cli_support import call, make_ledger
from tests.support import path_to, spec

HEAVY = ("asyncio", "aiohttp", "aiosqlite", "jsonschema", "jsonschema_rs", "rich", "yaml", "uvloop", "orjson", "av")


def command(verb: str) -> click.Command:
    found: click.Command = getattr(importlib.import_module(f"batchrunner.cli.{COMMANDS[verb][0]}"), verb)
    return found


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_an_example(verb: str) -> None:
    ran = call(verb, "--help")
    assert ran.code == 0
    assert f"batchrunner {verb}" in ran.out.split("Options:", 1)[1]


@pytest.mark.parametrize("verb", [v for v, (module, _) in COMMANDS.items() if module != "run"])
def test_the_list_says_what_the_verb_says(verb: str) -> None:
    assert " ".join((command(verb).help or "").split("\n\n")[0].split()) == COMMANDS[verb][1]


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["status", "--json"], ["jobs", "--json"]])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_heavy_is_imported_for_a_look(arguments: list[str], there: bool, tmp_path: Path) -> None:
    if there:
        make_ledger(tmp_path / "batchrunner.db", [(spec(), ())])
    code = (
        "import sys\nfrom batchrunner.cli.errors import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert [m for m in HEAVY if m in ran.stderr.split()] == []


# --- Completion ------------------------------------------------------------------------------------------


def complete(*words: str) -> list[str]:
    return [c.value for c in ShellComplete(cli, {}, "batchrunner", "_X").get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)
    path = tmp_path / "batchrunner.db"
    make_ledger(path, [(spec(), path_to(State.FAILED)), (spec("cat"), ())])
    return path


@pytest.mark.usefixtures("ledger")
def test_batches_and_jobs_complete() -> None:
    assert complete("status", "") == ["night"]
    assert complete("status", "x") == []
    assert complete("show", "d") == ["dog-1"]
    assert complete("retry", "") == ["night", "cat-1", "dog-1"]
    assert complete("models", "kling-3-0-t") == ["kling-3-0-turbo"]
    assert "unconfirmed" in complete("jobs", "--state", "un")


def test_completion_reads_the_ledger_that_is_named(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert complete("show", "") == []
    assert complete("show", "--db", str(ledger), "") == ["cat-1", "dog-1"]
    monkeypatch.setenv("BATCHRUNNER_DB", str(ledger))
    assert complete("cancel", "c") == ["cat-1"]
    assert sorted(p.name for p in other.iterdir()) == []


def test_completion_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batchrunner.db").write_bytes(b"this is no database" * 100)
    assert complete("show", "d") == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_everything_takes_a_ledger(verb: str) -> None:
    """CONTRACT.md, Commands: a script may give `--db` to everything."""
    assert "--db" in call(verb, "--help").out
