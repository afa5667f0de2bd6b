"""What is left to workers: recorded and deferred in one transaction, so that nothing is ever recorded for nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..core.job import JobSpec
from ..ledger import needs, promotions, queries
from ..ledger.postgres import doubts, peers
from ..ledger.postgres.terms import EVERYTHING, Terms
from ..ledger.record import BatchSpec, record
from ..ledger.sql import Connection, Row
from ..night import selects_nothing

SITES = 1000
"""Rows that are read together."""

Promotion = Callable[[Connection], promotions.Promoted]


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody leaves to workers.

    Attributes:
        names: the batches.
        who: somebody.
        check: looks at the ledger before anything is written, and raises what is wrong.
        fits: looks at the models of what is unfinished afterwards, and raises what is wrong.
        batches: manifests to record.
        promotion: what to promote.
        terms: on which jobs of the batches are left to workers.
        askable: providers that can be asked what became of a submission.
        consent: the jobs in doubt may be sent again, once such a provider has said that it knows nothing of them.
    """

    names: Sequence[str]
    who: str
    check: Callable[[Connection], None]
    fits: Callable[[Sequence[str]], None]
    batches: Sequence[tuple[BatchSpec, list[JobSpec]]] = ()
    promotion: Promotion | None = None
    terms: Terms = EVERYTHING
    askable: Sequence[str] = ()
    consent: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What was left to workers: row ids of the batches, and how many jobs were deferred."""

    batches: list[int] = field(default_factory=list)
    deferred: int = 0


class Rehearsed(Exception):
    """Nothing was written; what would be sent stands in `rows`, as `queries.unsent_outputs` gives it."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__("nothing was written")
        self.rows = rows


def give(asked: Asked, now: float, connection: Connection) -> Given:
    """Record it, and leave it to the workers, inside the caller's transaction.

    Raises:
        OutputClash: see `record.record`. What `check` and `fits` raise. UsageError: no job is selected.
    """
    ids = _written(asked, now, connection)
    if asked.terms.selection and not any(queries.selected_states(connection, ids, asked.terms.selection)):
        raise selects_nothing(asked.terms.selection, asked.names)
    if needs.any_in(connection, ids):
        needs.forget(connection, ids)
    doubts.askable(connection, asked.askable)
    doubts.ask_again(connection, ids, asked.terms.selection, asked.who if asked.consent else None)
    return Given(ids, peers.give(connection, ids, asked.who, asked.terms))


def rehearse(asked: Asked, now: float, connection: Connection) -> None:
    """Find out what would be sent. Raises as `give`, and always `Rehearsed`, so that nothing is written."""
    ids = _written(asked, now, connection)
    rows: list[Row] = []
    ask = partial(queries.unsent_outputs, connection, ids, asked.terms.selection, limit=SITES)
    while more := ask(after=rows[-1] if rows else None):
        rows += more
    raise Rehearsed(rows)


def _written(asked: Asked, now: float, connection: Connection) -> list[int]:
    """Write what is to be recorded; row ids of the batches."""
    asked.check(connection)
    for batch, jobs in asked.batches:
        record(connection, batch, jobs, now)
    if asked.promotion is not None:
        promotions.promote(connection, asked.promotion(connection), now)
    rows = connection.execute("SELECT id FROM batch WHERE name = ANY(?) ORDER BY id", (list(asked.names),)).fetchall()
    ids = [row[0] for row in rows]
    asked.fits(queries.unfinished_models(connection, batches=ids) if ids else [])
    return ids
