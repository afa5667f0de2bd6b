"""A `Selection` as SQL."""

from __future__ import annotations

from ..core.selection import Selection


def where(selection: Selection, table: str = "job") -> tuple[str, list[str]]:
    """An SQL condition (`TRUE` for everything) and its parameters."""
    parts: list[str] = []
    values: list[str] = []
    if selection.only:
        one = f"(glob(?, {table}.key) OR glob(?, {table}.shot))"
        parts.append("(" + " OR ".join([one] * len(selection.only)) + ")")
        for pattern in selection.only:
            values += [pattern, pattern]
    if selection.tags:
        marks = ", ".join("?" * len(selection.tags))
        parts.append(f"EXISTS (SELECT 1 FROM json_each({table}.tags) WHERE value IN ({marks}))")
        values += selection.tags
    return " AND ".join(parts) or "TRUE", values
