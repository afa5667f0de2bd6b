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
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[":
            negated = pattern[i : i + 1] == "^"
            start = i + negated
            end = pattern.find("]", start + 1)
            if end < 0:
                return re.compile(r"(?!)")
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", pattern[start:end])
            out.append(f"[{'^' if negated else ''}{body}]")
            i = end + 1
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # a range that runs backwards, such as [z-a]: nothing that anyone means
        return re.compile(r"(?!)")
