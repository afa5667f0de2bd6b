"""Why workers send nothing more of what was left to them, though there is something."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.selection import Selection
from ..engine.control import Stop
from ..ledger.postgres import peers, terms
from ..ledger.sql import Connection

SHORT = "the budget does not reach for what is left"


def why_not(connection: Connection, batches: Sequence[int], selection: Selection) -> tuple[Stop, str] | None:
    """Why workers send nothing more of the selected jobs of batches, and in words, where it is the terms or the
    money."""
    late, enough = terms.closed(connection, batches, selection)
    if late:
        return Stop.DEADLINE, "the time is up; what was in flight was followed to its end"
    if enough:
        return Stop.LIMIT, "as many were submitted as --limit says"
    return (Stop.BUDGET, SHORT) if peers.short_of_money(connection, batches) else None
