"""Collecting what is wrong with a manifest: deduplicated, sorted by position, with hints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..core.text import visible
from .located import Document, Place
from .model import Finding, ManifestError

MAX_SHOWN = 100
"""Findings that are shown; one more says how many there are beyond."""
MAX_WORD = 200
"""Longest word, in characters, for which a near miss is looked for: the search takes 40 bytes for each."""
MAX_KEPT = 1000
"""Errors after which the checks stop: the reader has seen what is wrong."""


class Stop(Exception):
    """The document can't be read any further."""


class Report:
    """The findings of one load. The same message at the same position counts once."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = [secret.encode() for secret in secrets]
        self._found: dict[tuple[str, int, int, str, bool], Finding] = {}
        self._owned: set[tuple[str, int, int]] = set()
        self.errors = 0

    @property
    def full(self) -> bool:
        """Whether there is no use in looking further."""
        return self.errors >= MAX_KEPT

    def error(self, place: Place, message: str) -> None:
        line, column = place.position()
        self.error_at(place.document, line, column, message, place.path)

    def error_at(self, document: Document, line: int, column: int, message: str, path: str = "") -> None:
        """An error at a position that is no node's (1-based)."""
        self._add(Finding(document.name, line, column, path, message))

    def error_of_text(self, document: Document, line: int, column: int, message: str) -> None:
        """An error of the text itself; what is said later of the value read there would only repeat it."""
        self.error_at(document, line, column, message)
        self._owned.add((document.name, line, column))

    def warning(self, place: Place, message: str) -> None:
        line, column = place.position()
        self._add(Finding(place.document.name, line, column, place.path, message, warning=True))

    def _add(self, finding: Finding) -> None:
        position = (finding.file, finding.line, finding.column)
        key = (*position, finding.message, finding.warning)
        if key not in self._found and position not in self._owned:
            self._found[key] = finding
            self.errors += not finding.warning

    def warnings(self) -> tuple[Finding, ...]:
        """The warnings, sorted, cut at `MAX_SHOWN`."""
        return _cut(sorted(f for f in self._found.values() if f.warning))

    def check(self) -> None:
        """Go on only if there is no error.

        Raises:
            ManifestError: with every finding, sorted; errors are never crowded out by warnings.
        """
        if self.errors:
            errors = _cut(sorted(f for f in self._found.values() if not f.warning))
            warnings = self.warnings() if len(errors) < MAX_SHOWN else ()
            raise ManifestError(tuple(sorted((*errors, *warnings))) if warnings else errors)


def _cut(findings: list[Finding]) -> tuple[Finding, ...]:
    if len(findings) <= MAX_SHOWN:
        return tuple(findings)
    last = findings[MAX_SHOWN - 1]
    kind = "warnings" if last.warning else "errors"
    at_least = "at least " if len(findings) >= MAX_KEPT else ""
    more = Finding(
        last.file,
        last.line,
        last.column,
        "",
        f"and {at_least}{len(findings) - MAX_SHOWN} more {kind}, not shown",
        last.warning,
    )
    return (*findings[:MAX_SHOWN], more)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean aspect_ratio?)`, or nothing where no known word is near."""
    if len(word) > MAX_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not near:
        folded = {k.casefold(): k for k in known}
        near = [folded[word.casefold()]] if word.casefold() in folded else []
    return f" (did you mean {visible(near[0])}?)" if near else ""


def quoted(value: str, limit: int = 60) -> str:
    """A name or value of the user's, safe to print and cut to size, in quotes."""
    return f"'{visible(value, limit)}'"


def listed(names: Iterable[str], limit: int = 24) -> str:
    """`a, b, c`, with an ellipsis where there are too many."""
    all_names = [visible(n, 60) for n in names]
    return ", ".join(all_names[:limit]) + (", …" if len(all_names) > limit else "")
