"""Every `batchrunner ...` that the documentation tells a reader to type is one that the command line understands.

Console blocks are run (tests/acceptance/test_documentation.py). Whatever else there is, in a sentence, a table or a
crontab, is given to click's parser here, and not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from batchrunner.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(?!\d)(\S.*)$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
SHELL = {"sh", "cron", "bash", "text", "ini", ""}
CALL = re.compile(r"(?<!Usage:)(?:^|[\s(\"'/])batchrunner (.+)$")
REMARK = re.compile(r" {3,}|\s#")
ENDS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "2>", ")"})
"""Words after which another command, or a file, is meant."""


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Every line of a page that may be a command, and whether it is one to be typed as it stands."""
    for language, body in FENCE.findall(text):
        whole = body.replace("\\\n", " ").splitlines()
        if language == "console":
            yield from ((line[2:], True) for line in whole if line.startswith("$ "))
        elif language in SHELL:
            yield from ((line, True) for line in whole)
    rest = FENCE.sub("", text)
    yield from ((line, True) for line in INDENTED.findall(rest))
    yield from ((line, False) for line in INLINE.findall(rest))


def calls(text: str) -> Iterator[tuple[list[str], bool]]:
    """The arguments of every call of batchrunner in a page, and whether it is one to be typed as it stands."""
    for line, typed in lines(text):
        found = CALL.search(line)
        if found is None:
            continue
        told = REMARK.split(found[1].replace(r"\|", "/"))[0]
        lexer = shlex.shlex(told, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split, lexer.commenters = True, ""
        words = list(lexer)
        end = next((n for n, word in enumerate(words) if word in ENDS), len(words))
        if words[:end] and words[0] != "[OPTIONS]":
            yield words[:end], typed


def problem(words: list[str], typed: bool = True) -> str:
    """What click has against a call; empty for nothing. Nothing is run. A sentence may name a verb without its
    arguments, and a file that a reader has."""
    context = click.Context(cli, info_name="batchrunner")
    try:
        name, command, rest = cli.resolve_command(context, words)
        assert command is not None
        command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        return ""  # --help, --version
    except click.MissingParameter as error:
        return error.format_message() if typed else ""
    except click.ClickException as error:
        return "" if "does not exist" in error.format_message() else error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = [
        f"{shlex.join(words)}: {said}"
        for words, typed in calls(page.read_text("utf-8"))
        if (said := problem(words, typed))
    ]
    if page.name == "commands.md":  # where help texts are wrapped, and a line of prose may begin with our name
        wrong = [one for one in wrong if "No such command" not in one]
    assert not wrong


def test_commands_are_found_where_they_stand() -> None:
    text = (
        "say `batchrunner pause` or\n\n    batchrunner report B --open   # look\n\n"
        "```console\n$ batchrunner run a.yaml --quiet > log\nbatchrunner: no\n```\n"
        "```cron\n0 22 * * *  cd /srv && exec batchrunner run a.yaml --json >> n.ndjson\n```\n"
        "| `batchrunner cancel A\\|B` | `batchrunner_jobs` |\n```yaml\nbatchrunner is: none\n```\n"
    )
    assert sorted(calls(text)) == [
        (["cancel", "A/B"], False),
        (["pause"], False),
        (["report", "B", "--open"], True),
        (["run", "a.yaml", "--json"], True),
        (["run", "a.yaml", "--quiet"], True),
    ]
    assert problem(["run", "a.yaml", "--quite"]).startswith("No such option")
    assert problem(["rnu"]).startswith("No such command")
    assert problem(["resolve"]).startswith("Missing argument")
    assert not problem(["resolve"], typed=False)
