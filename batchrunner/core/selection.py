"""Which jobs a command speaks of."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """`--only` and `--tag`. Several of one kind widen, both kinds together narrow; empty selects all.

    Attributes:
        only: globs (`*`, `?`, `[a-z]`) on the job's key or its shot's id.
        tags: tags of which the job has at least one.
    """

    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only or self.tags)

    def matches(self, key: str, shot: str, tags: Iterable[str]) -> bool:
        """Whether a job is selected: the same rule as the ledger's, for jobs that are not in it."""
        if self.only and not any(_glob(p).fullmatch(key) or _glob(p).fullmatch(shot) for p in self.only):
            return False
        return not self.tags or not set(self.tags).isdisjoint(tags)


@functools.lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    """SQLite's GLOB as a regular expression: `*`, `?`, `[a-z]`, `[^a-z]`. An unclosed `[` matches nothing."""
    out: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "[":
            body, i = _set(pattern, i)
            out.append(body)
        else:
            out.append({"*": ".*", "?": "."}.get(char, re.escape(char)))
    return re.compile("".join(out), re.DOTALL)


def _set(pattern: str, i: int) -> tuple[str, int]:
    """The set that begins after the `[` before `i`, as a regular expression, and where the pattern goes on.

    As SQLite's `patternCompare` reads it: a `]` that comes first is meant, and so is a `-` at either end.
    """
    negated = pattern[i : i + 1] == "^"
    i += negated
    start, body, prior = i, "", ""
    while i < len(pattern) and (pattern[i] != "]" or i == start):
        char = pattern[i]
        if char == "-" and prior and pattern[i + 1 : i + 2] not in ("", "]"):
            i += 1
            if prior <= pattern[i]:
                body += f"{re.escape(prior)}-{re.escape(pattern[i])}"
            prior = ""
        else:
            body += re.escape(char)
            prior = "" if i == start and char == "]" else char
        i += 1
    if i >= len(pattern):
        return "(?!)", i
    return f"[{'^' if negated else ''}{body}]", i + 1
