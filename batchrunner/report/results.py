"""Jobs as files for spreadsheets and scripts, in the shape of `jobs --json`. Nothing is kept: a batch of any size
streams."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.figures import utc_time

CSV_COLUMNS = (
    "job",
    "batch",
    "shot",
    "take",
    "matrix",
    "tags",
    "model",
    "prompt",
    "request",
    "state",
    "task_id",
    "attempts",
    "credits",
    "error_kind",
    "error_code",
    "error_message",
    "request_id",
    "output",
    "sha256",
    "bytes",
    "duration_s",
    "width",
    "height",
    "codec",
    "media_warnings",
    "current",
    "revision",
    "created_at",
    "updated_at",
    "verdict",
    "promoted_from",
)

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that make a spreadsheet run a cell, or read on to the one that does."""


def csv_text(jobs: Iterable[dict[str, Any]]) -> Iterator[str]:
    """RFC 4180 with a header line, in pieces."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)

    def taken() -> str:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text

    writer.writerow(CSV_COLUMNS)
    yield taken()
    for job in jobs:
        flat = _flat(job)
        writer.writerow([cell(flat[name]) for name in CSV_COLUMNS])
        yield taken()


def json_array_text(values: Iterable[Any]) -> Iterator[str]:
    """A JSON array, an element a line, in pieces."""
    before = "["
    for value in values:
        yield f"{before}\n{_line(value)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def jsonl_text(values: Iterable[Any]) -> Iterator[str]:
    """An element a line."""
    for value in values:
        yield f"{_line(value)}\n"


FORMATS = {"csv": csv_text, "json": json_array_text, "jsonl": jsonl_text}
"""Format -> what writes it."""

BEGINNINGS = (b"job,batch,", b'[\n{"job": ', b"[]\n", b'{"job": ')
"""How a file that was written here begins; one of no jobs may be empty."""


def encoded(pieces: Iterable[str]) -> Iterator[bytes]:
    """UTF-8. A lone surrogate becomes `\\udc80`, which is how JSON spells it."""
    for piece in pieces:
        yield piece.encode("utf-8", "backslashreplace")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    error, media = job["error"] or {}, job["media"] or {}
    return {
        **job,
        "matrix": _compact(job["matrix"]) if job["matrix"] else "",
        "tags": " ".join(job["tags"]),
        "prompt": job["request"].get("prompt", ""),
        "request": _compact(job["request"]),
        "error_kind": error.get("kind"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "request_id": error.get("request_id"),
        **{name: media.get(name) for name in ("duration_s", "width", "height", "codec")},
        "media_warnings": "; ".join(media.get("warnings", ())),
        "current": "true" if job["current"] else "false",
        "created_at": utc_time(job["created_at"]),
        "updated_at": utc_time(job["updated_at"]),
        "promoted_from": (job["promoted_from"] or {}).get("job"),
    }


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet runs as a formula: text that begins with one of `FORMULA` gets an apostrophe
    before it (owasp.org, CSV Injection)."""
    if isinstance(value, str) and value[:1] in FORMULA:
        return "'" + value
    return value
