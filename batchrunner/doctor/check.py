"""One line of the report, and the exit code that follows from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..exits import EXIT_FAILED, EXIT_OK, EXIT_REFUSED


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was looked at, what was found, and how to mend it."""

    name: str
    level: Level
    text: str
    fix: str = ""
    refused: bool = False
    """The provider refused the credentials, or can't be reached: exit code 6."""


def exit_code(checks: list[Check]) -> int:
    """0 where nothing failed; warnings don't count."""
    if any(c.refused for c in checks):
        return EXIT_REFUSED
    return EXIT_FAILED if any(c.level is Level.FAIL for c in checks) else EXIT_OK
