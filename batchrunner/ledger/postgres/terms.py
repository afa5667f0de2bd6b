"""On what terms jobs were left to workers: which of a batch, until when, and how many submissions. The last word on a
job counts. A claim asks in its own transaction, by the database's clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ...core.selection import Selection
from ..selecting import where
from ..sql import Connection
from .meters import NOW

_OF_JOB = """coalesce((SELECT handed.hand_over_id FROM handed WHERE handed.job_id = job.id),
  (SELECT given.hand_over_id FROM given WHERE given.batch_id = job.batch_id))"""

_ALLOWS = """(until_at IS NULL OR until_at > extract(epoch FROM statement_timestamp())::float8)
  AND (submissions IS NULL OR submissions > 0)"""

NARROW = "EXISTS (SELECT 1 FROM hand_over WHERE narrow)"
"""Whether there are any terms to look at, as SQL: mostly there are none."""

OPEN = f"(NOT {NARROW} OR {_OF_JOB} IN (SELECT id FROM hand_over WHERE {_ALLOWS}))"
"""Whether the terms let workers send a `job` that belongs to a batch of `given`."""

_TERMS = f"""
SELECT job.id, hand_over.id, hand_over.until_at IS NULL OR hand_over.until_at > {NOW}, hand_over.submissions
FROM job JOIN hand_over ON hand_over.id = {_OF_JOB} WHERE job.id = ANY(?)
"""

_CLOSED = f"""
SELECT bool_or(until_at IS NOT NULL AND until_at <= {NOW}), bool_or(submissions = 0)
FROM job JOIN hand_over ON hand_over.id = {_OF_JOB}
WHERE job.batch_id = ANY(?) AND job.state = 'pending' AND job.current = 1 AND
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms jobs are left to workers.

    Attributes:
        selection: which of the batches.
        seconds: from now on, after which nothing more is sent; None for as long as it takes.
        submissions: most that are sent, None for any number.
    """

    selection: Selection = field(default_factory=Selection)
    seconds: float | None = None
    submissions: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether they say more than "all of it"."""
        return bool(self.selection) or self.seconds is not None or self.submissions is not None


EVERYTHING = Terms()


class Asking(Protocol):
    """A claim."""

    hand_over: int | None
    """Whose submission it is; None where that does not count them."""

    @property
    def job_id(self) -> int:
        """Of what."""

    def lapse(self) -> None:
        """It is not to be sent any more."""


C = TypeVar("C", bound=Asking)


def leave(connection: Connection, batches: Sequence[int], who: str, terms: Terms) -> None:
    """Leave batches, or the selected jobs of them, to workers."""
    chosen = json.dumps({"only": terms.selection.only, "tags": terms.selection.tags}) if terms.selection else "{}"
    row = connection.execute(
        f"INSERT INTO hand_over (at, who, selection, narrow, until_at, submissions) "
        f"VALUES ({NOW}, ?, ?, ?::int::boolean, {NOW} + ?::float8, ?::bigint) RETURNING id",
        (who, chosen, terms.narrow, terms.seconds, terms.submissions),
    ).fetchone()
    made = int(row[0])
    for batch in batches:
        connection.execute(
            f"INSERT INTO given (batch_id, at, who, hand_over_id) VALUES (?, {NOW}, ?, ?) ON CONFLICT (batch_id) "
            "DO UPDATE SET hand_over_id = coalesce(excluded.hand_over_id, given.hand_over_id)",
            (batch, who, None if terms.selection else made),
        )
    if terms.selection:
        condition, values = where(terms.selection)
        connection.execute(
            f"INSERT INTO handed (job_id, hand_over_id) SELECT job.id, ?::bigint FROM job WHERE batch_id = ANY(?) "
            f"AND current = 1 AND {condition} "
            "ON CONFLICT (job_id) DO UPDATE SET hand_over_id = excluded.hand_over_id",
            (made, list(batches), *values),
        )
    else:
        connection.execute(
            "UPDATE handed SET hand_over_id = ? FROM job WHERE job.id = handed.job_id AND job.batch_id = ANY(?)",
            (made, list(batches)),
        )
    connection.execute(
        "UPDATE hand_over SET narrow = false WHERE narrow AND NOT EXISTS (SELECT 1 FROM given WHERE hand_over_id = "
        "hand_over.id) AND NOT EXISTS (SELECT 1 FROM handed WHERE hand_over_id = hand_over.id)"
    )


def allowed(connection: Connection, claims: Sequence[C]) -> list[C]:
    """Those of the claims that the terms let be sent now; the others lapse."""
    rows = connection.execute(_TERMS, ([claim.job_id for claim in claims],)).fetchall()
    found = {job: (made, in_time, left) for job, made, in_time, left in rows}
    used: Counter[int] = Counter()
    kept = []
    for claim in claims:
        made, in_time, left = found.get(claim.job_id, (0, False, None))
        if not in_time or (left is not None and used[made] >= left):
            claim.lapse()
            continue
        used[made] += 1
        claim.hand_over = None if left is None else made
        kept.append(claim)
    return kept


def count(connection: Connection, hand_overs: Iterable[int | None]) -> None:
    """Submissions of these are made."""
    for made, number in Counter(one for one in hand_overs if one is not None).items():
        connection.execute("UPDATE hand_over SET submissions = submissions - ? WHERE id = ?", (number, made))


def give_back(connection: Connection, job_id: int, attempt: int) -> None:
    """A submission was not made, or not taken up: it does not count."""
    connection.execute(
        "UPDATE hand_over SET submissions = submissions + 1 "
        "WHERE id = (SELECT hand_over_id FROM claim WHERE job_id = ? AND attempt = ?)",
        (job_id, attempt),
    )


def closed(connection: Connection, batches: Sequence[int], selection: Selection) -> tuple[bool, bool]:
    """Of the selected pending jobs of batches: whether some are left because the time is up, and because as many were
    submitted as should be."""
    condition, values = where(selection)
    row = connection.execute(f"{_CLOSED} {condition}", (list(batches), *values)).fetchone()
    return bool(row[0]), bool(row[1])


def selection_of(connection: Connection, batch: int) -> Selection:
    """Which jobs of a batch were left to workers: the last word, where it was never all of them."""
    row = connection.execute(
        "SELECT hand_over.selection FROM given, hand_over WHERE given.batch_id = ? AND given.hand_over_id IS NULL "
        "AND hand_over.id = (SELECT max(handed.hand_over_id) FROM handed JOIN job ON job.id = handed.job_id "
        "WHERE job.batch_id = given.batch_id)",
        (batch,),
    ).fetchone()
    said = json.loads(row[0]) if row is not None else {}
    return Selection(tuple(said.get("only", ())), tuple(said.get("tags", ())))
