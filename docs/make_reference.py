"""Draws docs/reference and the man page from the command line, the manifest's schema and the README's table of exit
codes; a test holds them equal.

Run from the checkout: `python -m docs.make_reference`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batchrunner import __version__
from batchrunner.cli.main import COMMANDS, cli

DOCS = Path(__file__).parent
SCHEMA = DOCS.parent / "schemas" / "manifest.schema.json"
README = DOCS.parent / "README.md"
WIDTH = 100
"""Columns of the help texts."""

MADE = "Made by `python -m docs.make_reference` from {}; don't edit it by hand."


def pages() -> dict[Path, str]:
    """Every file that this makes, and its text."""
    return {
        DOCS / "reference" / "commands.md": commands(),
        DOCS / "reference" / "manifest.md": manifest(),
        DOCS / "reference" / "exit-codes.md": exitexit_code_rows(),
        DOCS / "batchrunner.1": man(),
    }


# --- The command line ------------------------------------------------------------------------------------


def _contexts() -> Iterator[click.Context]:
    """The program itself, and every verb."""
    top = click.Context(cli, info_name="batchrunner", terminal_width=WIDTH)
    yield top
    for verb in COMMANDS:
        command = cli.get_command(top, verb)
        if command is not None:
            context = click.Context(command, info_name=verb, parent=top, terminal_width=WIDTH)
            yield context
            if isinstance(command, click.Group):
                for name, inner in command.commands.items():
                    yield click.Context(inner, info_name=f"{verb} {name}", parent=top, terminal_width=WIDTH)


def commands() -> str:
    """Each verb's help, as it is printed."""
    lines = ["# The commands", "", MADE.format("the commands' own `--help`"), ""]
    lines += ["Everything below is also in `man batchrunner`.", ""]
    for context in _contexts():
        lines += [f"## {context.info_name}", "", "```text", context.get_help().rstrip(), "```", ""]
    return "\n".join(lines)


def man() -> str:
    """The man page, in the man macros (man 7 man): every verb with its options and examples."""
    _, *verbs = _contexts()
    lines = [
        '.\\" Made by python -m docs.make_reference; do not edit it by hand.',
        f'.TH BATCHRUNNER 1 "" "batchrunner {__version__}" "User Commands"',
        ".SH NAME",
        "batchrunner \\- run hundreds of paid, slow, remote generation jobs from a YAML manifest",
        ".SH SYNOPSIS",
        ".B batchrunner",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(cli.help or ""),
        *_example(cli.epilog or ""),
        ".SH COMMANDS",
    ]
    for context in verbs:
        command = context.command
        pieces = " ".join(command.collect_usage_pieces(context))
        lines += [f".SS {_roff(f'batchrunner {context.info_name} {pieces}')}", *_paragraphs(command.help or "")]
        records = [p.get_help_record(context) for p in command.get_params(context) if isinstance(p, click.Option)]
        for record in records:
            if record is not None:
                lines += [".TP", f".B {_roff(record[0])}", _roff(" ".join(record[1].split()))]
        lines += _example(command.epilog or "")
    lines += [".SH EXIT STATUS"]
    for code, meaning, action in exit_code_rows():
        lines += [".TP", f".B {_roff(code)}", _roff(f"{meaning}. {action}".replace("`", "").rstrip(" ."))]
    lines += [
        ".SH SEE ALSO",
        "README.md and docs/ of the source; \\fBbatchrunner\\fR \\fICOMMAND\\fR \\fB\\-\\-help\\fR",
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _roff(" ".join(paragraph.replace("\b", "").split()))


def _example(text: str) -> Iterator[str]:
    """Text whose lines stay as they are."""
    body = text.replace("\b\n", "").strip("\n")
    if body.strip():
        yield ".PP"
        yield ".EX"
        yield from (_roff(line) for line in body.split("\n"))
        yield ".EE"


def _roff(text: str) -> str:
    """Text as troff prints it unchanged: a backslash, a hyphen that is meant, and a line that looks like a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


# --- The manifest ----------------------------------------------------------------------------------------


def manifest() -> str:
    """Every key of a manifest, from its schema."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    kinds = schema["$defs"]
    lines = ["# The manifest", "", MADE.format("`schemas/manifest.schema.json`"), ""]
    lines += [
        schema["description"],
        "",
        "`batchrunner schema` prints the schema; editors complete and check by it.",
        "",
    ]
    for name, field in schema["properties"].items():
        lines += _section(2, name, field, kinds, required=name in schema["required"])
    lines += ["## A shot", "", kinds["shot"]["description"], ""]
    lines += _table(kinds["shot"], kinds)
    lines += ["The fields of each model: [Models](../models.md).", ""]
    lines += ["## A price", "", kinds["price"]["description"], "", *_table(kinds["price"], kinds)]
    lines += ["### A rate", "", *_table(kinds["price"]["properties"]["rates"]["items"], kinds)]
    lines += [
        "## Whom to tell",
        "",
        kinds["notify"]["items"]["description"],
        "",
        *_table(kinds["notify"]["items"], kinds),
    ]
    for name in ("webhook", "mail"):
        lines += [f"### {name}", "", *_table(kinds["notify"]["items"]["properties"][name], kinds)]
    lines += ["## A file of shots", "", kinds["shotsFile"]["description"], "", *_table(kinds["shotsFile"], kinds)]
    return "\n".join(lines)


def _section(level: int, name: str, field: dict[str, Any], kinds: dict[str, Any], *, required: bool) -> list[str]:
    whole = _resolved(field, kinds)
    facts = [*(["required"] if required else []), *_facts(whole)]
    lines = [f"{'#' * level} {name}", "", f"{whole['description']}" + (f" *({'; '.join(facts)})*" if facts else ""), ""]
    if "examples" in whole:
        lines += ["```yaml", f"{name}: {_flow(whole['examples'][0])}", "```", ""]
    item = whole.get("items", {})
    table = whole if "$ref" not in field and whole.get("properties") and name != "vars" else None
    if "$ref" not in item and item.get("properties"):
        table = item
    return lines + (_table(table, kinds) if table else [])


def _table(schema: dict[str, Any], kinds: dict[str, Any]) -> list[str]:
    lines = ["| key | | takes |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        whole = _resolved(field, kinds)
        facts = [*(["required"] if name in schema.get("required", ()) else []), *_facts(whole)]
        lines.append(f"| `{name}` | {_cell(whole['description'])} | {_cell('; '.join(facts))} |")
    return [*lines, ""]


def _resolved(field: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """A field with what its `$ref` says beneath its own words."""
    reference = field.get("$ref")
    return field if reference is None else {**kinds[reference.rsplit("/", 1)[1]], **field}


def _facts(field: dict[str, Any]) -> Iterator[str]:
    """What a field takes, in words."""
    if "enum" in field:
        yield " or ".join(f"`{value}`" for value in field["enum"])
    elif field.get("type") in ("integer", "number"):
        yield "a whole number" if field["type"] == "integer" else "a number"
    elif field.get("type") == "array":
        yield "a list"
    elif field.get("type") == "object":
        yield "a mapping"
    if "exclusiveMinimum" in field:
        yield f"above {field['exclusiveMinimum']}"
    if "minimum" in field:
        yield f"{field['minimum']:,} to {field['maximum']:,}"
    if "patternErrorMessage" in field:
        yield field["patternErrorMessage"]
    if "default" in field:
        yield f"default `{field['default']}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _flow(value: Any) -> str:
    """YAML that a reader may copy."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n...\n").rstrip()


# --- Exit codes ------------------------------------------------------------------------------------------


def exit_code_rows() -> list[tuple[str, str, str]]:
    """(code, meaning, what to do), the rows of the README's table."""
    table = README.read_text("utf-8").split("| exit code |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(code, meaning, action) for code, meaning, action in rows]


def exitexit_code_rows() -> str:
    """The exit codes, from the README."""
    lines = ["# Exit codes", "", MADE.format("the README"), ""]
    lines += ["Those of `run`, `resume` and `promote`; other verbs use 0, 1 and 2 in the same sense.", ""]
    lines += ["| code | meaning | what to do |", "|---|---|---|"]
    lines += [f"| {code} | {meaning} | {action} |" for code, meaning, action in exit_code_rows()]
    lines += ["", "What a service manager should make of each: [Every night](../nightly.md)."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
