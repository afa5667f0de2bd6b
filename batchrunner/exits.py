"""How a command ends: the exit codes (CONTRACT.md), and the error that means 2. Imports nothing, so that every verb
can name a code without paying for the engine."""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNCONFIRMED = 3
EXIT_STOPPED = 4
EXIT_BUSY = 5
EXIT_REFUSED = 6
EXIT_BUG = 70
EXIT_SIGINT = 130
EXIT_SIGTERM = 143

DEFAULT_DB = "batchrunner.db"
"""The ledger, in the current folder, where neither --db nor BATCHRUNNER_DB says otherwise."""


def simulated_name(name: str) -> str:
    """The name of the ledger of simulated work beside the one of that name; one that is such a ledger keeps its own."""
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, ".", "db"
    return name if stem.endswith(".sim") else f"{stem}.sim{dot}{suffix}"


class UsageError(Exception):
    """What the user asked for can't be done; the message says how to mend it. Exit code 2, nothing was sent.

    Attributes:
        lines: details, one to a line below the message.
    """

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)
