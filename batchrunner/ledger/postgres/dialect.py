"""The ledger's statements in PostgreSQL's words.

The queries are written so that both databases read them alike (`ledger/sql.py`). What is left are the marks of
parameters, SQLite's hints about indexes, its empty lists, its types, and one column of its type ANY. All statements are
constants of ours, so this is no parser: it knows texts in quotes, and nothing else of SQL.
"""

from __future__ import annotations

import functools
import re
from functools import partial

_WORDS = re.compile(
    r"""(?P<text>'[^']*')
    | (?P<hint>\s(?:NOT\ INDEXED|INDEXED\ BY\ \w+))
    | (?P<begin>^BEGIN\ IMMEDIATE$)
    | \bjson_group_array\((?P<each>[^()]*)\)
    | (?P<none>\bIN\ \(\))
    | (?P<any>\berror_code\ =\ \?)
    | (?P<mark>\?(?P<number>\d*))""",
    re.VERBOSE,
)


@functools.lru_cache(maxsize=512)
def translate(sql: str) -> str:
    """A statement of the ledger for PostgreSQL, its parameters as `$1`, `$2`, ..."""
    last = 0

    def word(found: re.Match[str]) -> str:
        nonlocal last
        if found["text"]:
            return found[0]
        if found["hint"]:
            return ""
        if found["each"]:
            return f"coalesce(json_agg({found['each']})::text, '[]')"
        if found["none"]:
            return "IN (NULL)"
        if found["begin"]:
            return "BEGIN"
        last = int(found["number"]) if found["number"] else last + 1
        return f"error_code = any_value(${last})" if found["any"] else f"${last}"

    if sql.lstrip().startswith("CREATE TEMP TABLE"):
        # As the columns that it is compared with are: an index of another collation would be of no use.
        sql = sql.replace(" TEXT", ' TEXT COLLATE "C"').replace(" INTEGER", " BIGINT")
    return _WORDS.sub(word, sql)


_PARAMETER = re.compile(r"\$(\d+)")


@functools.lru_cache(maxsize=256)
def together(statements: tuple[tuple[str, int], ...]) -> str:
    """Statements, each with the number of its parameters, as one that gives what the last of them gives. PostgreSQL
    carries out all of them, whatever the last one finds; none sees what another has changed."""
    parts: list[str] = []
    before = 0
    for sql, count in statements:
        parts.append(_PARAMETER.sub(partial(_moved, before), translate(sql)))
        before += count
    *others, last = parts
    also = ", ".join(f"also_{number} AS ({part})" for number, part in enumerate(others))
    return f"WITH {also} {last}" if also else last


def _moved(by: int, found: re.Match[str]) -> str:
    return f"${int(found[1]) + by}"
