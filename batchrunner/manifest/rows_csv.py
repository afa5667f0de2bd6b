"""CSV: a header row, then a shot a row. Commas, double quotes, UTF-8 (RFC 4180); line feeds in quotes are text.

Cells are text. What they mean is decided by the column: `takes` is a number, `tags` are separated by `;`,
`matrix` and `exclude` are JSON, a request field has the type that the model's schema gives it. An empty cell is
an absent key.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterator
from typing import Any

from .findings import Report, Stop, did_you_mean, listed, quoted
from .located import LINE_SHIFT, Document, Map, Seq
from .reading import check_text
from .rows_jsonl import json_message, locate, parse_json
from .scalars import BadScalar, resolve

MAX_CELL = 65536
"""Longest cell, in characters."""
MAX_COLUMNS = 200
MAX_BAD_ROWS = 100

_CELL = re.compile(r'"((?:[^"]++|"")*+)"(?=,|\r?\n|\r|\Z)|([^",\r\n][^,\r\n]*+)?(?=,|\r?\n|\r|\Z)')
"""Possessive: what could be given back would be remembered, 60 bytes for each quote in the cell."""
_BREAK = re.compile(r"\r?\n|\r")
Cell = tuple[str, int]
"""Text and mark."""


def read_csv(document: Document, data: bytes, report: Report, columns: Collection[str]) -> None:
    """Fill `document` with the rows of a CSV file; every bad row is reported.

    Args:
        document: to read into.
        data: the file.
        report: where problems go.
        columns: what a column may be: shot keys and the request fields of every model.

    Raises:
        Stop: no header, a quote without its end, or nearly every row is bad.
    """
    check_text(document, data, report)
    document.typed = False
    document.prefix = "rows"
    rows = Seq()
    rows.at = 0
    document.marks.append(0)
    lines = _rows(document, data.decode().removeprefix("\ufeff"), report)
    header = _header(document, next(lines, []), report, columns)
    bad = 0
    for cells in lines:
        if not any(text for text, _ in cells):
            continue
        if len(cells) != len(header):
            line, column = _position(cells[0])
            report.error_at(
                document,
                line,
                column,
                f"the row has {len(cells)} cells, the header has {len(header)}",
                f"rows[{len(rows)}]",
            )
            bad += 1
            if bad >= MAX_BAD_ROWS:
                raise Stop
            continue
        _admit(document, cells[0], 1, report)
        rows.append(_row(document, header, cells, len(rows), report))
    rows.end = len(document.marks)
    document.root = rows


def _admit(document: Document, cell: Cell, count: int, report: Report) -> None:
    problem = document.admit(count)
    if problem:
        report.error_at(document, *_position(cell), problem)
        raise Stop


def _position(cell: Cell) -> tuple[int, int]:
    return (cell[1] >> LINE_SHIFT) + 1, (cell[1] & (1 << LINE_SHIFT) - 1) + 1


def _rows(document: Document, text: str, report: Report) -> Iterator[list[Cell]]:
    at = line = start = 0
    end = len(text)
    while at < end:
        row: list[Cell] = []
        while True:
            mark = line << LINE_SHIFT | (at - start)
            found = _CELL.match(text, at)
            if found is None:
                report.error_at(
                    document,
                    line + 1,
                    at - start + 1,
                    "the quotes of this cell are not closed, or text follows them; a quote in quotes is written twice",
                )
                raise Stop
            quoted_text = found[1]
            cell = quoted_text.replace('""', '"') if quoted_text is not None else (found[2] or "").strip()
            if len(cell) > MAX_CELL:
                report.error_at(document, line + 1, at - start + 1, f"the cell is longer than {MAX_CELL} characters")
                raise Stop
            row.append((cell, mark))
            if quoted_text is not None and ("\n" in quoted_text or "\r" in quoted_text):
                for broken in _BREAK.finditer(text, at, found.end()):
                    line += 1
                    start = broken.end()
            at = found.end()
            if at >= end or text[at] != ",":
                break
            at += 1
        ending = _BREAK.match(text, at)
        if ending:
            at = start = ending.end()
            line += 1
        yield row


def _header(document: Document, cells: list[Cell], report: Report, columns: Collection[str]) -> list[Cell | None]:
    """The columns; None for one that was reported and is left out."""
    if not any(text for text, _ in cells):
        report.error_at(document, 1, 1, f"the first row must name the columns: {listed(columns)}")
        raise Stop
    if len(cells) > MAX_COLUMNS:
        report.error_at(document, 1, 1, f"too many columns: at most {MAX_COLUMNS} are allowed")
        raise Stop
    header: list[Cell | None] = []
    seen: set[str] = set()
    for cell in cells:
        name = cell[0].strip()
        line, column = _position(cell)
        if name not in columns:
            hint = did_you_mean(name, columns)
            if len(cells) == 1 and ";" in name:
                hint = "; columns are separated by commas"
            report.error_at(document, line, column, f"unknown column {quoted(name)}{hint}; allowed: {listed(columns)}")
            header.append(None)
        elif name in seen:
            report.error_at(document, line, column, f"duplicate column {quoted(name)}")
            header.append(None)
        else:
            header.append((name, cell[1]))
        seen.add(name)
    if "id" not in seen:
        report.error_at(document, 1, 1, "the table has no column 'id'; every shot needs one")
        raise Stop
    return header


def _row(document: Document, header: list[Cell | None], cells: list[Cell], index: int, report: Report) -> Map:
    marks = document.marks
    row = Map()
    row.at = len(marks)
    marks.append(cells[0][1])
    for column, cell in zip(header, cells, strict=True):
        if column is None or not cell[0]:
            continue
        name = column[0]
        marks.append(column[1])
        if name in _SPECIAL:
            _admit(document, cell, cell[0].count("[") + cell[0].count("{"), report)
            try:
                value = _SPECIAL[name](cell, marks)
            except ValueError as error:
                line, at = _position(cell)
                report.error_at(document, line, at, f"{name}: {error}", f"rows[{index}].{name}")
                marks.pop()
                continue
        else:
            value = cell[0]
            marks.append(cell[1])
        row[name] = value
    row.end = len(marks)
    return row


def _takes(cell: Cell, marks: array[int]) -> Any:
    marks.append(cell[1])
    try:
        return resolve(cell[0].strip())
    except BadScalar:
        marks.pop()
        raise


def _tags(cell: Cell, marks: array[int]) -> Any:
    return locate([word.strip() for word in cell[0].split(";") if word.strip()], cell[1], marks)


def _json(cell: Cell, marks: array[int]) -> Any:
    text = cell[0].strip()
    try:
        value, end = parse_json(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{json_message(error)}, at character {error.pos + 1}") from None
    if end != len(text):
        raise ValueError("not valid JSON: something follows the value")
    return locate(value, cell[1], marks)


_SPECIAL: dict[str, Any] = {"takes": _takes, "tags": _tags, "matrix": _json, "exclude": _json}
