"""The exact commands that a page offers to copy. They name the ledger in full, so that they mean the same anywhere."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ..core.morning import Entry
from ..core.text import visible


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands for one ledger; `path` is absolute, or a URL."""

    path: Path | str

    @property
    def db(self) -> str:
        return f" --db {word(str(self.path))}"

    def say(self, verb: str, *words: str) -> str:
        """`batchrunner VERB WORDS --db PATH`; words that are options stand as they are."""
        return f"batchrunner {verb} {' '.join(words)}{self.db}"

    def resolve(self, entry: Entry) -> list[tuple[str, str]]:
        """(what it means, the command) of each way to resolve an unconfirmed job."""
        words = [word(entry.name)]
        if entry.revised:
            words += ["--revision", str(entry.job["revision"])]
        return [
            (
                "It became a task at the provider: follow that, at no further cost",
                self.say("resolve", *words, "--task-id", "TASK_ID"),
            ),
            ("It did not, or paying twice is all right: submit again", self.say("resolve", *words, "--resubmit")),
            ("Let it go", self.say("resolve", *words, "--abandon")),
        ]


def word(text: str) -> str:
    """One word of a shell command."""
    return visible(shlex.quote(text))
