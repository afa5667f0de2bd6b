"""JSONL: a shot a line, strict JSON."""

from __future__ import annotations

import codecs
import io
import json
import re
from array import array
from typing import Any

from .findings import Report, Stop, quoted
from .located import LINE_SHIFT, MAX_DEPTH, MAX_KEYS, TOO_DEEP, Document, Map, Seq
from .reading import check_text
from .scalars import MAX_INT, finite, text_problem

MAX_LINE = 1 << 20
"""Longest line, in bytes."""
MAX_BAD_LINES = 100
_SPACE = re.compile(r"[ \t\r]*")


class _Refused(ValueError):
    """A value that strict JSON, or we, refuse."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise _Refused(f"too many keys: at most {MAX_KEYS} are allowed in one object")
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise _Refused(f"duplicate key {quoted(twice)}")
    return result


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MAX_INT:
        raise _Refused("an integer must fit in 64 bits; put it in quotes if text is meant")
    return int(digits)


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=finite, parse_constant=_constant)


def locate(value: Any, mark: int, marks: array[int]) -> Any:
    """A plain JSON value as a located tree of which every node stands at `mark`."""
    if isinstance(value, dict):
        result = Map()
        result.at = len(marks)
        marks.append(mark)
        for key, item in value.items():
            marks.append(mark)
            result[key] = locate(item, mark, marks)
        result.end = len(marks)
        return result
    if isinstance(value, list):
        sequence = Seq()
        sequence.at = len(marks)
        marks.append(mark)
        sequence.extend([locate(item, mark, marks) for item in value])
        sequence.end = len(marks)
        return sequence
    marks.append(mark)
    return value


def parse_json(text: str, at: int = 0) -> tuple[Any, int]:
    """One JSON value of `text` from `at`, and where it ends.

    Raises:
        ValueError: what is wrong; `json.JSONDecodeError` where it has a position of its own.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise _Refused(TOO_DEEP) from None
    _check(value, 2)
    return value, end


def json_message(error: json.JSONDecodeError) -> str:
    """What is wrong, without the position."""
    return f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:].removesuffix(' starting at').removesuffix(' at')}"


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        problem = text_problem(value)
        if problem:
            raise _Refused(problem)
    elif isinstance(value, (dict, list)):
        if depth > MAX_DEPTH:
            raise _Refused(TOO_DEEP)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, depth + 1)
        for key in value if isinstance(value, dict) else ():
            _check(key, depth)


def read_jsonl(document: Document, data: bytes, report: Report) -> None:
    """Fill `document` with the objects of a JSONL file; every bad line is reported.

    Raises:
        Stop: it is no text at all, or nearly every line is bad.
    """
    check_text(document, data, report)
    marks = document.marks
    document.prefix = "rows"
    rows = Seq()
    rows.at = 0
    marks.append(0)
    bad = 0
    for number, line in enumerate(io.BytesIO(data)):
        raw = line.rstrip(b"\n") if number else line.rstrip(b"\n").removeprefix(codecs.BOM_UTF8)
        if not raw.strip():
            continue
        problem = document.admit(raw.count(b"{") + raw.count(b"["))
        if problem:
            report.error_at(document, number + 1, 1, problem)
            raise Stop
        start = len(marks)
        try:
            rows.append(_row(raw, number, marks))
        except _At as error:
            del marks[start:]
            report.error_at(document, number + 1, error.column + 1, error.message, f"rows[{len(rows)}]")
            bad += 1
            if bad >= MAX_BAD_LINES:
                raise Stop from None
    rows.end = len(marks)
    document.root = rows


class _At(ValueError):
    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


def _row(raw: bytes, number: int, marks: array[int]) -> Map:
    if len(raw) > MAX_LINE:
        raise _At(0, f"the line is too long: at most {MAX_LINE >> 20} MiB are allowed")
    line = raw.decode()
    at = _skip(line, 0)
    if line[at : at + 1] != "{":
        raise _At(at, "a line must be one JSON object: {...}")
    row = Map()
    row.at = len(marks)
    base = number << LINE_SHIFT
    marks.append(base | at)
    at = _skip(line, at + 1)
    while line[at : at + 1] != "}":
        if row:
            if line[at : at + 1] != ",":
                raise _At(at, "not valid JSON: ',' or '}' is expected here")
            at = _skip(line, at + 1)
        key_at = at
        if line[at : at + 1] != '"':
            raise _At(at, "not valid JSON: a key in double quotes is expected here")
        key, at = _value(line, at)
        at = _skip(line, at)
        if line[at : at + 1] != ":":
            raise _At(at, "not valid JSON: ':' is expected here")
        value_at = _skip(line, at + 1)
        value, at = _value(line, value_at)
        if key in row:
            raise _At(key_at, f"duplicate key {quoted(key)}")
        if len(row) >= MAX_KEYS:
            raise _At(key_at, f"too many keys: at most {MAX_KEYS} are allowed in one object")
        marks.append(base | key_at)
        row[key] = locate(value, base | value_at, marks)
        at = _skip(line, at)
    if _skip(line, at + 1) != len(line):
        raise _At(_skip(line, at + 1), "not valid JSON: nothing may follow the object on its line")
    row.end = len(marks)
    return row


def _skip(line: str, at: int) -> int:
    found = _SPACE.match(line, at)
    return found.end() if found else at


def _value(line: str, at: int) -> tuple[Any, int]:
    try:
        return parse_json(line, at)
    except json.JSONDecodeError as error:
        raise _At(error.pos, json_message(error)) from None
    except ValueError as error:
        raise _At(at, str(error)) from None
