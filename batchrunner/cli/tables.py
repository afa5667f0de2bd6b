"""What every verb prints with: JSON, aligned columns, money and times.

Text for people is the same with and without a terminal, apart from colours and from cutting lines at its width: what
is piped can be searched whole.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from ..core.figures import counted as counted
from ..core.figures import local_time as local_time
from ..core.figures import money as money
from ..core.figures import number as number
from ..core.figures import span as span
from ..core.figures import utc_time as utc_time
from ..core.text import visible

STATE_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "unconfirmed": "yellow",
    "running": "cyan",
    "downloading": "cyan",
    "submitting": "cyan",
    "cancelled": "bright_black",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "new": "green",
    "changed": "yellow",
    "removed": "red",
    "in flight": "cyan",
}
"""Colour of a cell that says exactly this."""

CHUNK = 500
"""Rows that share one set of column widths, so that a list of any length streams."""


# --- JSON ------------------------------------------------------------------------------------------------


def json_text(value: Any, *, indent: int | None = 2) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def echo_bytes(text: str) -> None:
    """UTF-8 on stdout, whatever the locale. A lone surrogate becomes `\\udc80`, which is how JSON spells it."""
    click.echo(text.encode("utf-8", "backslashreplace"))


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    echo_bytes(json_text(value))


def print_json_array(values: Iterable[Any]) -> None:
    """A JSON array on stdout, an element a line, none of them kept."""
    from ..report.results import encoded, json_array_text

    print_pieces(encoded(json_array_text(values)))


def print_pieces(pieces: Iterable[bytes]) -> None:
    """Bytes on stdout as they come."""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


class Counter:
    """Counts what passes through."""

    def __init__(self, items: Iterable[dict[str, Any]]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self._items:
            self.count += 1
            yield item


# --- Text ------------------------------------------------------------------------------------------------


def on_terminal() -> bool:
    """Whether stdout is a terminal that understands more than lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def colours() -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return on_terminal() and not os.environ.get("NO_COLOR")


def say(text: str = "") -> None:
    """A line for people on stdout. The caller has made foreign text `visible`."""
    click.echo(text, color=colours())


def note(text: str) -> None:
    """A line for people on stderr."""
    click.echo(text, err=True, color=False)


def warn(text: str) -> None:
    note(f"warning: {text}")


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(text: str, columns: int) -> str:
    """`text` in at most so many columns, cut with an ellipsis."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for char in text:
        used += _columns(char)
        if used > columns - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def table_lines(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), columns: int | None = None
) -> Iterator[str]:
    """Aligned columns, two spaces apart.

    Args:
        headers: one for each column; all empty for no header line.
        rows: cells of foreign text; they are made visible here.
        right: indexes of columns that are aligned right.
        columns: width at which lines are cut; None for no limit.
    """
    styled = colours()
    chunk: list[list[str]] = []
    head = [list(headers)] if any(headers) else []
    first = True

    def flush() -> Iterator[str]:
        shown = head + chunk if first else chunk
        widths = [max((width(row[i]) for row in head + chunk), default=0) for i in range(len(headers))]
        for index, row in enumerate(shown):
            is_head = first and bool(head) and index == 0
            yield _line(row, widths, right, columns, styled=styled, head=is_head)

    for row in rows:
        chunk.append([visible(cell) for cell in row])
        if len(chunk) >= CHUNK:
            yield from flush()
            chunk, first = [], False
    if chunk or first:
        yield from flush()


def _line(
    row: Sequence[str], widths: Sequence[int], right: Sequence[int], columns: int | None, *, styled: bool, head: bool
) -> str:
    parts: list[str] = []
    used = 0
    for i, (cell, wide) in enumerate(zip(row, widths, strict=True)):
        if columns is not None:
            cell = clip(cell, max(4, columns - used))
        pad = " " * (wide - width(cell))
        last = i == len(row) - 1
        used += max(wide, width(cell)) + 2
        if styled:
            cell = _style(cell, head=head)
        parts.append(pad + cell if i in right else cell if last else cell + pad)
    return "  ".join(parts).rstrip()


def _style(cell: str, *, head: bool) -> str:
    if head:
        return click.style(cell, bold=True)
    colour = STATE_COLOURS.get(cell)
    return click.style(cell, fg=colour) if colour else cell


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table on stdout; cut at the terminal's width where there is one."""
    import shutil

    columns = shutil.get_terminal_size().columns if on_terminal() else None
    for line in table_lines(headers, rows, right=right, columns=columns):
        say(line)


def left_text(seconds: float, between: Sequence[float] | None) -> str:
    """How long it will take: `about 12 min left (10 min to 15 min)`."""
    likely = f"about {span(seconds)} left"
    if not between or span(between[0]) == span(between[1]):
        return likely
    return f"{likely} ({span(between[0])} to {span(between[1])})"
