"""Whatever the tutorial and the how-tos tell a reader to type does what they say: real shell, real CLI, simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import console

DOCS = Path(console.__file__).parent
OTHERS = ("live", "models", "nightly", "outputs", "plan", "promote", "report")
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md")), *(DOCS / f"{name}.md" for name in OTHERS)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with console.simulator(tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, service: str) -> None:
    played = console.play(page, tmp_path, service)
    assert played
    complaints = "\n\n".join(console.complaints(played))
    assert not complaints, (
        f"{page.name}: {complaints}\n\nIf that is right now: python -m docs.console docs/.../{page.name}"
    )


def test_the_first_example_does_what_the_readme_says(tmp_path: Path) -> None:
    text = (DOCS.parent / "README.md").read_text("utf-8").split("## An example")[1]
    example = text[: text.index("A clip that was rehearsed")]
    page = tmp_path / "page.md"
    example = example.replace("```yaml", '```yaml title="first.yaml"', 1).replace("\n\n$ ", "\n$ ")
    page.write_text(example, "utf-8")
    played = console.play(page, tmp_path, "http://127.0.0.1:1")
    assert [one.command.text.split()[1] for one in played] == ["plan", "run"]
    assert not console.complaints(played)


def test_a_page_that_says_something_else_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```yaml title="in/a.txt"\nhello\n```\n'
        "```console\n$ cat in/a.txt\nhello\n$ echo one; echo two; echo three\none\n...\n$ false\n$ echo kept\nlost\n"
        "$ (exit 4)\n$ echo $?\n4\n$ (exit 4)\n$ echo $?\n3\n```\n"
        "<!-- not run: it must not be -->\n```console\n$ exit 9\n```\n",
        "utf-8",
    )
    played = console.play(page, tmp_path, "http://127.0.0.1:1")
    assert [one.code for one in played] == [0, 0, 1, 0, 4, 0, 4, 0]
    assert [text.split("\n")[0] for text in console.complaints(played)] == [
        "line 10: $ false",
        "line 11: $ echo kept",
        "line 17: $ echo $?",
    ]


def test_what_differs_each_time_is_no_difference() -> None:
    said = ["b-1: succeeded", "a-1: succeeded", "at 2026-11-26 12:00:00 task_0123456789ab 1,234 bytes", "end"]
    printed = ["a-1: succeeded", "b-1: succeeded", "at 2027-01-01 01:00:00 task_ba9876543210 99 bytes", "end"]
    assert console.same(said, printed)
    assert not console.same(said, [*printed[:-1], "the end"])
    assert not console.same(said, ["a-1: succeeded", "b-1: failed", *printed[2:]])
