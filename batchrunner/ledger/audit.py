"""Damage that SQLite does not see. Its pages carry no checksum: a flipped bit in a value passes `quick_check`.

What a wrong payment could come of stands in the ledger twice, on different pages: a task id at its job and at its
attempt, a state at its job and in the history, a sum and what it sums, a row and its indexes, a request and its
fingerprint. Where the two disagree one of them is damaged, and nothing may be sent on the strength of either.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterable

from ..core.keys import fingerprint_of
from ..core.lifecycle import TABLE
from .sql import Connection

_ATTEMPTS = """
SELECT j.key FROM job j LEFT JOIN attempt a ON a.job_id = j.id AND a.number = j.attempt
WHERE (j.attempt > 0) <> (a.job_id IS NOT NULL)
   OR (j.state IN ('running', 'downloading', 'succeeded', 'failed')
       AND coalesce(a.task_id, '') <> coalesce(j.task_id, ''))
   OR (j.state IN ('submitting', 'unconfirmed') AND a.task_id IS NOT NULL)
LIMIT 1
"""

_NUMBERS = """
SELECT coalesce(j.key, 'no job') FROM (SELECT job_id, count(*) AS n, max(number) AS last FROM attempt GROUP BY job_id) a
LEFT JOIN job j ON j.id = a.job_id WHERE j.id IS NULL OR a.n <> j.attempt OR a.last <> j.attempt LIMIT 1
"""

_LIVE = "state IN ('submitting', 'unconfirmed', 'running', 'downloading')"

_HISTORY = """
SELECT j.key FROM job j WHERE {which} AND NOT EXISTS (
  SELECT 1 FROM history h WHERE h.id = (SELECT max(id) FROM history WHERE job_id = j.id)
  AND h.to_state = j.state AND h.attempt = j.attempt)
LIMIT 1
"""

_SUMS = """
SELECT b.name FROM batch b LEFT JOIN (
  SELECT batch_id, sum(CASE money WHEN 'reserved' THEN credits ELSE 0 END) AS reserved,
         sum(CASE money WHEN 'spent' THEN credits ELSE 0 END) AS spent,
         sum(CASE money WHEN 'at_risk' THEN credits ELSE 0 END) AS at_risk
  FROM attempt GROUP BY batch_id) s ON s.batch_id = b.id
WHERE b.reserved <> coalesce(s.reserved, 0) OR b.spent <> coalesce(s.spent, 0) OR b.at_risk <> coalesce(s.at_risk, 0)
LIMIT 1
"""

# Whether a job is known already is asked of this index.
_KNOWN = """
SELECT j.key FROM job j NOT INDEXED WHERE NOT EXISTS (
  SELECT 1 FROM job o INDEXED BY sqlite_autoindex_job_1
  WHERE o.batch_id = j.batch_id AND o.key = j.key AND o.fingerprint = j.fingerprint AND o.id = j.id)
LIMIT 1
"""

# What is due, and what is under way, is asked of these. A count and a sum of row ids tell of any one flipped bit.
_TALLY = "SELECT batch_id, current, state, count(*), sum(id) FROM job {index} WHERE {which} GROUP BY 1, 2, 3"
_INDEXES = (("job_state", "1"), ("job_live", _LIVE), ("job_due", "state = 'pending' AND current = 1"))


_CONTRADICTIONS = (
    ("job {}: its row and its submissions disagree", _ATTEMPTS),
    ("job {}: a submission is missing or one too many", _NUMBERS),
    ("job {}: its row and its history disagree", _HISTORY.format(which=_LIVE)),
    ("batch {}: its credits are not the sum of its submissions", _SUMS),
)
_ENDED = (("job {}: its row and its history disagree", _HISTORY.format(which="TRUE")),)


def find(connection: sqlite3.Connection) -> str | None:
    """What is damaged, in words; None where nothing is, as far as a new run could be led astray by it.

    Takes some 0.2 s for 100,000 jobs, and reads no more than once through what is not history.
    """
    for look in (_schema, _rules, _indexes):
        if (damaged := look(connection)) is not None:
            return damaged
    return _first(connection, (("job {}: its row and its index disagree", _KNOWN), *_CONTRADICTIONS))


def contradiction(connection: Connection) -> str | None:
    """What of `find` is no business of SQLite's files: the rules, and facts that stand twice."""
    return _rules(connection) or _first(connection, _CONTRADICTIONS)


def find_everywhere(connection: Connection) -> str | None:
    """As `find`, and also what has ended, every index, and every request against its fingerprint.

    About 1 s for 100,000 jobs; memory does not grow with them. Works beside a run: it looks at one moment.
    """
    connection.execute("BEGIN")
    try:
        if isinstance(connection, sqlite3.Connection):
            return _find_everywhere(connection)
        return contradiction(connection) or _first(connection, _ENDED) or _requests(connection)
    finally:
        connection.execute("ROLLBACK")


def _find_everywhere(connection: sqlite3.Connection) -> str | None:
    result = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if result != "ok":
        return result
    return find(connection) or _first(connection, _ENDED) or _requests(connection)


def _requests(connection: Connection) -> str | None:
    for key, *facts in connection.execute("SELECT key, provider, model, request, fingerprint FROM job"):
        if not genuine(*facts):
            return f"job {key}: its request is not what was recorded"
    return None


def genuine(provider: str, model: str, request: str, fingerprint: str) -> bool:
    """Whether a request, as the ledger has it, is the one that was recorded."""
    return fingerprint_of(provider, model, request) == fingerprint


def _first(connection: Connection, questions: Iterable[tuple[str, str]]) -> str | None:
    for words, sql in questions:
        row = connection.execute(sql).fetchone()
        if row is not None:
            return words.format(row[0])
    return None


def _indexes(connection: sqlite3.Connection) -> str | None:
    """The answers of the indexes against those of the table itself."""
    table = _tally(connection, "NOT INDEXED", "1")
    for name, which in _INDEXES:
        wanted = {
            row
            for row in table
            if name == "job_state"
            or (name == "job_live" and row[2] in {"submitting", "unconfirmed", "running", "downloading"})
            or (name == "job_due" and row[1:3] == (1, "pending"))
        }
        if _tally(connection, f"INDEXED BY {name}", which) != wanted:
            return f"the index {name} is not that of the jobs"
    return None


def _tally(connection: sqlite3.Connection, index: str, which: str) -> set[tuple[object, ...]]:
    return {tuple(row) for row in connection.execute(_TALLY.format(index=index, which=which))}


def _rules(connection: Connection) -> str | None:
    """The legal moves."""
    moves = {(before.value, after.value) for (before, _), ends in TABLE.items() for after in ends}
    if {tuple(row) for row in connection.execute("SELECT from_state, to_state FROM legal")} != moves:
        return "the table of legal moves is not ours"
    return None


def _schema(connection: sqlite3.Connection) -> str | None:
    """Every table, index and trigger is there as the migrations make it, but for comments and spaces."""
    theirs = _statements(connection)
    wrong = [name for name, sql in _ours().items() if theirs.get(name) != sql]
    return f"its schema is not ours: {wrong[0]}" if wrong else None


@functools.cache
def _ours() -> dict[str, str]:
    from .connection import migrations

    ours = sqlite3.connect(":memory:")
    try:
        for _number, _name, sql in migrations():
            ours.executescript(sql)
        return _statements(ours)
    finally:
        ours.close()


def _statements(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {name: " ".join(re.sub(r"--[^\n]*", "", sql).split()) for name, sql in rows}
