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

from ..core.pricing import usd_text
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
    stdout = sys.stdout.buffer
    before = "["
    for value in values:
        stdout.write(f"{before}\n{json_text(value, indent=None)}".encode("utf-8", "backslashreplace"))
        before = ","
    stdout.write(b"[]\n" if before == "[" else b"\n]\n")
    stdout.flush()


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
        for number, row in enumerate(shown):
            is_head = first and bool(head) and number == 0
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


# --- Figures ---------------------------------------------------------------------------------------------


def number(value: int) -> str:
    """12500 -> `12,500`."""
    return f"{value:,}"


def money(credits: int | None) -> str:  # noqa: A002
    """630 -> `630 credits ($0.63)`."""
    if credits is None:
        return "an unknown price"
    return f"{number(credits)} credit{'s' if credits != 1 else ''} (${usd_text(credits)})"


def counted(count: int, noun: str) -> str:
    """`1 job`, `3 jobs`, `2 batches`."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number(count)} {noun if count == 1 else plural}"


def local_time(at: float | None) -> str:
    """Unix seconds as local time, `2026-11-22 06:00:00`."""
    import datetime

    if at is None:
        return ""
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006  people read their own time


def utc_time(at: float | None) -> str:
    """Unix seconds as ISO 8601 in UTC, for files."""
    import datetime

    if at is None:
        return ""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
