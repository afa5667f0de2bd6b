"""What several writers of one ledger ask of PostgreSQL: whose turn it is, the account's rate, claims and who is alive.

Every transaction that writes waits for its turn (`turn`), whatever host it comes from. So what holds of one writer
holds of all together: what a transaction has read stays true until its end. A turn takes a commit, and takes many
transitions with it (`writer.commit_group`).

Clocks of hosts differ, and one that was frozen is late. Rate, holds and signs of life go by the database's clock alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.selection import Selection
from ..address import Server
from ..connection import APPLICATION_ID
from ..needs import UNMET
from ..rows import JOB_COLUMNS
from ..selecting import where
from ..sql import Connection, Row
from ..transitions import Change
from . import doubts, meters, terms
from .meters import CATCHING_UP, FLYING, FULL, Bounds
from .meters import NOW as NOW
from .opening import open_reader
from .terms import EVERYTHING, Terms

LATELY = 30.0
"""Seconds within which a worker has given a sign of life, for those who only want to know whether there is one."""

_FLIGHT = f"(SELECT count(*) FROM job WHERE {FLYING} AND provider = ?1)"

_ACCOUNT = f"""
SELECT now.at, greatest(rate.due_at, now.at), account.hold_until, {_FLIGHT}, {terms.NARROW}
FROM rate JOIN account ON account.provider = rate.provider, (SELECT {NOW} AS at) AS now WHERE rate.provider = ?1
"""

_CLAIM = """
INSERT INTO claim (job_id, attempt, worker_id, hand_over_id) VALUES (?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, worker_id = excluded.worker_id, hand_over_id = excluded.hand_over_id
"""

_MONEY = "batch.max_credits - batch.reserved - batch.spent - batch.at_risk"

AFFORDABLE = f"(batch.max_credits IS NULL OR coalesce(job.credits, 0) <= {_MONEY})"
"""Whether the money of its `batch` reaches for a `job`, as SQL."""

_BEAT = f"UPDATE worker SET beat_at = {NOW} WHERE id = ? AND ended_at IS NULL"

_DEAD = f"""
SELECT job.id FROM job LEFT JOIN claim ON claim.job_id = job.id AND claim.attempt = job.attempt
LEFT JOIN worker ON worker.id = claim.worker_id
WHERE job.state IN ('submitting', 'unconfirmed', 'running', 'downloading') AND job.state = 'submitting'
  AND (worker.id IS NULL OR worker.ended_at IS NOT NULL OR worker.beat_at < {NOW} - ?)
"""

_UNFINISHED = f"""(job.current = 1 AND job.state = 'pending' AND NOT {UNMET} AND {terms.OPEN}
  OR job.state IN ('running', 'downloading'))"""

_UNCARRIED = (
    f"FROM job WHERE job.batch_id IN (SELECT batch_id FROM given) AND {_UNFINISHED} AND NOT {doubts.CARRIED}",
    doubts.UNCARRIED,
)
"""What no job of the engine carries: unfinished jobs, and questions."""

# Through Procrastinate's own function, in the order of the manifests.
_DEFER = """
SELECT count(*) FROM (SELECT unnest(procrastinate_defer_jobs_v1(array_agg(ROW(
  job.provider || CASE WHEN job.state = 'downloading' THEN '.download' ELSE '.submit' END, 'batchrunner.carry', 0, NULL,
  'job ' || job.id, jsonb_build_object('job_id', job.id), NULL)::procrastinate_job_to_defer_v1
  ORDER BY job.batch_id, job.position))) {}) AS deferred
"""

# What was recorded just now is unknown to the planner: it would compare every job with every other.
_BY_HASH = "SELECT set_config('enable_nestloop', 'off', true)"


def anybody(server: Server) -> bool:
    """Whether a worker is alive on a ledger. Raises LedgerUnusable."""
    link = open_reader(server)
    if link is None:
        return False
    try:
        return there(link) and bool(alive(link, LATELY))
    finally:
        link.close()


def there(connection: Connection) -> bool:
    """Whether a ledger has what workers share."""
    row = connection.execute("SELECT to_regclass('claim'), to_regclass('procrastinate_jobs')").fetchone()
    return row[0] is not None and row[1] is not None


def turn(connection: Connection, number: int) -> None:
    """Wait for one's turn to write; it ends with the transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(?::int, ?::int)", (APPLICATION_ID + 1, number))


# --- Who is alive ----------------------------------------------------------------------------------------


def join(connection: Connection, providers: Sequence[str], host: str, pid: int, part: str) -> int:
    """A worker begins; returns its id. `providers`: whose jobs it does."""
    row = connection.execute(
        "INSERT INTO worker (provider, host, pid, part, started_at, beat_at) "
        f"VALUES (?, ?, ?, ?, {NOW}, {NOW}) RETURNING id",
        (" ".join(providers), host, pid, part),
    ).fetchone()
    return int(row[0])


def accounts(connection: Connection) -> set[str]:
    """The providers that the ledger has an account with."""
    return {row[0] for row in connection.execute("SELECT provider FROM account").fetchall()}


def rated(connection: Connection, provider: str, *, lookup: bool = False) -> None:
    """An account has a rate that all workers share. `lookup`: what became of a submission can be asked there."""
    doubts.askable(connection, [provider] if lookup else [])
    connection.execute("INSERT INTO rate (provider) VALUES (?) ON CONFLICT DO NOTHING", (provider,))


def leave(connection: Connection, worker: int, stop: str | None, code: int) -> None:
    """A worker has ended: nothing of its is on the wire any more."""
    connection.execute(
        f"UPDATE worker SET ended_at = {NOW}, stop = ?, exit_code = ? WHERE id = ?", (stop, code, worker)
    )


@dataclass(frozen=True, slots=True)
class Alive:
    """A worker that is alive; `provider`: the names of those whose jobs it does, with spaces between."""

    id: int
    provider: str
    host: str
    pid: int
    part: str
    progress: str

    def serves(self, provider: str) -> bool:
        """Whether it does the jobs of a provider."""
        return provider in self.provider.split()


def alive(connection: Connection, within: float) -> list[Alive]:
    """Workers that gave a sign of life within so many seconds."""
    rows = connection.execute(
        "SELECT id, provider, host, pid, part, progress FROM worker "
        f"WHERE ended_at IS NULL AND beat_at >= {NOW} - ? ORDER BY id",
        (within,),
    ).fetchall()
    return [Alive(*row) for row in rows]


def sweeps(connection: Connection, worker: int, within: float, every: float) -> bool:
    """Whether it is a worker's turn to sweep: in each stretch of `every` seconds of the database's clock it is another
    one's of those who gave a sign of life within so many seconds. So what a sweep costs does not grow with them."""
    ids = [one.id for one in alive(connection, within)]
    at = connection.execute(f"SELECT {NOW}").fetchone()[0]
    return worker not in ids or ids[int(at / every) % len(ids)] == worker


def dead_claims(connection: Connection, within: float) -> list[int]:
    """Jobs whose submission nobody waits for any more: its worker has given no sign of life for so many seconds."""
    return [row[0] for row in connection.execute(_DEAD, (within,)).fetchall()]


# --- Submissions -----------------------------------------------------------------------------------------


def at_work(connection: Connection) -> dict[int, set[str]]:
    """The batches that workers have something to do of, or will have, and the providers of that."""
    rows = connection.execute(
        "SELECT batch_id, array_agg(DISTINCT provider) FROM job WHERE batch_id IN (SELECT batch_id FROM given) "
        f"AND (state = 'pending' AND current = 1 AND {terms.OPEN} OR state IN ('submitting', 'running')) "
        "GROUP BY batch_id",
    ).fetchall()
    return {row[0]: set(row[1]) for row in rows}


@dataclass(slots=True)
class Claim:
    """A claim of a job and of its account, in a transaction that has asked for places: all of it, or nothing.

    Attributes:
        change: the intent.
        worker: whose.
        bounds: of all workers together.
        wait: for how many seconds nobody may send; None where it has its places. Set by `places`.
        bounded: the model whose own bounds say so; empty where the account's do.
        hand_over: whose submission it is, where that counts them.
        lapsed: the job is not left to workers any more.
    """

    change: Change
    worker: int
    bounds: Bounds
    wait: float | None = None
    bounded: str = ""
    hand_over: int | None = None
    lapsed: bool = False

    @property
    def job_id(self) -> int:
        """Of the job."""
        return self.change.job.id

    @property
    def model(self) -> str:
        """Of the job."""
        return self.change.job.model

    def refuse(self, wait: float, model: str = "") -> None:
        """Nobody may send it for so many seconds."""
        self.wait, self.bounded = wait, model

    def lapse(self) -> None:
        """It is not to be sent any more."""
        self.wait, self.lapsed = 0.0, True

    def __call__(self, connection: Connection) -> float | None:
        """Write the intent. Returns `wait`.

        Raises:
            BudgetExhausted, Conflict: see `Change`. Nothing of it stays when the transaction is undone.
        """
        if self.wait is None:
            whose = _CLAIM, (self.job_id, self.change.after.attempt, self.worker, self.hand_over)
            self.change(connection, [whose])
        return self.wait


def places(connection: Connection, claims: Sequence[Claim], before: int = 0) -> int:
    """Take places in the account's rate and in flight for as many of the claims of an account as may be sent now;
    returns how many. `before`: places that were taken by other accounts' in the same transaction."""
    for claim in claims:
        claim.lapsed = False
    provider, bounds = claims[0].change.job.provider, claims[0].bounds
    at, due_at, hold_until, flight, narrow = connection.execute(_ACCOUNT, (provider,)).fetchone()
    claims = terms.allowed(connection, claims) if narrow else claims
    claims = meters.with_room(connection, claims, bounds, before)
    if not claims:
        return 0
    early = at + CATCHING_UP - due_at
    by_rate = int(early * bounds.submits) + 1 if early >= 0.0 and hold_until <= at else 0
    free = bounds.in_flight - flight
    given: int = max(0, min(len(claims), by_rate, free))
    due_at += given / bounds.submits
    if given:
        connection.execute("UPDATE rate SET due_at = ? WHERE provider = ?", (due_at, provider))
        connection.execute(_BEAT, (claims[0].worker,))
        meters.take(connection, (claim.model for claim in claims[:given]), bounds)
        terms.count(connection, (claim.hand_over for claim in claims[:given]))
    wait = max(hold_until - at, due_at - CATCHING_UP - at, FULL if free <= given else 0.001)
    for number, claim in enumerate(claims):
        claim.refuse(wait)
        if number < given:
            claim.wait = None
    return given


def stands(connection: Connection, job_id: int, attempt: int, worker: int) -> bool:
    """Whether a submission is still its worker's, who is alive."""
    connection.execute(_BEAT, (worker,))
    row = connection.execute(
        "SELECT 1 FROM job JOIN claim ON claim.job_id = job.id AND claim.attempt = job.attempt "
        "WHERE job.id = ? AND job.attempt = ? AND job.state = 'submitting' AND claim.worker_id = ?",
        (job_id, attempt, worker),
    ).fetchone()
    return row is not None


def give_back(connection: Connection, provider: str, model: str, bounds: Bounds) -> None:
    """A submission's places in the rates were not used."""
    meters.give_back(connection, model, bounds)
    connection.execute("UPDATE rate SET due_at = due_at - ? WHERE provider = ?", (1.0 / bounds.submits, provider))


# --- What there is to do ---------------------------------------------------------------------------------


def give(connection: Connection, batches: Sequence[int], who: str, how: Terms = EVERYTHING) -> int:
    """Leave batches to workers; returns how many jobs were deferred."""
    terms.leave(connection, batches, who, how)
    return defer(connection)


def defer(connection: Connection) -> int:
    """Defer every unfinished job that no job of the engine carries, and those whose service is to be asked; returns how
    many."""
    connection.execute(_BY_HASH)
    return sum(int(connection.execute(_DEFER.format(of)).fetchone()[0]) for of in _UNCARRIED)


def uncarried(connection: Connection) -> bool:
    """Whether there is anything to `defer`; outside of a turn, as it takes long."""
    connection.execute("BEGIN")
    try:
        connection.execute(_BY_HASH)
        some = (connection.execute(f"SELECT 1 {of} LIMIT 1").fetchone() for of in _UNCARRIED)
        return any(row is not None for row in some)
    finally:
        connection.execute("ROLLBACK")


def unfinished(connection: Connection, providers: Sequence[str]) -> bool:
    """Whether workers could still do something for a job of these providers."""
    row = connection.execute(
        f"SELECT 1 FROM job WHERE provider = ANY(?) AND batch_id IN (SELECT batch_id FROM given) "
        f"AND (job.state = 'submitting' OR {_UNFINISHED} OR {doubts.OPEN}) LIMIT 1",
        (list(providers),),
    ).fetchone()
    return row is not None


def due(
    connection: Connection,
    ids: Sequence[int],
    now: float,
    longest: float,
    limit: int,
    without: Sequence[str] = (),
    provider: str | None = None,
) -> list[Row]:
    """Of these jobs, those that may be sent now, in the manifests' order: `without` those of some models, and of one
    provider where it is named."""
    return connection.execute(
        f"SELECT {JOB_COLUMNS}, fingerprint FROM job WHERE id = ANY(?) AND state = 'pending' AND current = 1 "
        f"AND NOT {UNMET} AND {terms.OPEN} AND NOT (not_before > ? AND not_before <= ?) AND model <> ALL(?) "
        "AND provider = coalesce(?, provider) ORDER BY batch_id, position LIMIT ?",
        (list(ids), now, now + longest, list(without), provider, limit),
    ).fetchall()


def of_models(connection: Connection, ids: Sequence[int], models: Sequence[str]) -> list[tuple[int, str]]:
    """Of these jobs, those of some models, and of which: in the manifests' order."""
    rows = connection.execute(
        "SELECT id, model FROM job WHERE id = ANY(?) AND model = ANY(?) ORDER BY batch_id, position",
        (list(ids), list(models)),
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def next_due(connection: Connection, ids: Sequence[int], now: float, longest: float) -> float | None:
    """When the next of these jobs that is held back may be sent."""
    row = connection.execute(
        "SELECT min(not_before) FROM job WHERE id = ANY(?) AND state = 'pending' AND current = 1 "
        f"AND NOT {UNMET} AND {terms.OPEN} AND not_before > ? AND not_before <= ?",
        (list(ids), now, now + longest),
    ).fetchone()
    found: float | None = row[0]
    return found


def not_due(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Of these jobs, those that are not to be sent any more, or wait for another."""
    rows = connection.execute(
        f"SELECT id FROM job WHERE id = ANY(?) AND (state <> 'pending' OR current = 0 OR {UNMET} OR NOT {terms.OPEN})",
        (list(ids),),
    ).fetchall()
    return [row[0] for row in rows]


def able(
    connection: Connection, batches: Sequence[int], selection: Selection, providers: Sequence[str] | None = None
) -> bool:
    """Whether a selected pending job of the batches could be sent, as far as what it needs, the money and the terms go;
    of these providers, where they are named."""
    condition, values = where(selection)
    sql = (
        "SELECT 1 FROM job JOIN batch ON batch.id = job.batch_id WHERE batch.id = ANY(?) AND job.state = 'pending' "
        f"AND job.current = 1 AND NOT {UNMET} AND {AFFORDABLE} AND {terms.OPEN} AND {condition} "
        "AND job.provider = ANY(coalesce(?::text[], ARRAY[job.provider])) LIMIT 1"
    )
    return connection.execute(sql, (list(batches), *values, providers)).fetchone() is not None


def short_of_money(connection: Connection, batches: Sequence[int]) -> bool:
    """Whether a pending job of the batches costs more than is left."""
    sql = (
        "SELECT 1 FROM job JOIN batch ON batch.id = job.batch_id WHERE batch.id = ANY(?) AND job.state = 'pending' "
        f"AND job.current = 1 AND job.credits > {_MONEY} LIMIT 1"
    )
    return connection.execute(sql, (list(batches),)).fetchone() is not None


def several(connection: Connection, ids: Sequence[int]) -> list[Row]:
    """Jobs and their schedules."""
    return connection.execute(
        f"SELECT {JOB_COLUMNS}, next_poll_at, polls, updated_at FROM job WHERE id = ANY(?)", (list(ids),)
    ).fetchall()
