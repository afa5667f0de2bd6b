"""What the ledger keeps of the files that tasks gave. A ledger that is older than the table has nothing of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import LedgerUnusable
from .sql import Connection, has_table

if TYPE_CHECKING:  # and imported where they are used: `status` asks for a number only, and for nothing else here
    from ..core.job import Output
    from ..core.media import Kept

_SAVE = (
    "INSERT INTO media (job_id, attempt, number, kind, url, file, sha256, bytes, facts, warnings, checked_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, attempt, number) DO UPDATE SET "
    "kind = excluded.kind, url = excluded.url, file = excluded.file, sha256 = excluded.sha256, "
    "bytes = excluded.bytes, facts = excluded.facts, warnings = excluded.warnings, checked_at = excluded.checked_at"
)
_OF = (
    "SELECT number, kind, url, file, sha256, bytes, facts, warnings FROM media "
    "WHERE job_id = ? AND attempt = ? ORDER BY number"
)
_WARNED = (
    "SELECT count(DISTINCT job.id) FROM media INDEXED BY media_warned JOIN job ON job.id = media.job_id "
    "AND job.attempt = media.attempt WHERE media.warnings <> '[]' AND job.state = 'succeeded' AND job.current = 1 "
    "AND job.batch_id = ?"
)
# Other jobs that may have, or may still get, a file of one of these names (without extension) in the same folder.
_NAMED = (
    "SELECT o.output FROM job j JOIN batch b ON b.id = j.batch_id JOIN batch ob ON ob.output_dir = b.output_dir "
    "JOIN job o ON o.batch_id = ob.id AND o.id <> j.id WHERE j.id = ? AND o.output IN ({marks})"
)


_encode = json.JSONEncoder(ensure_ascii=False).encode


def save(connection: Connection, job_id: int, attempt: int, kept: Iterable[Kept], now: float) -> None:
    """Write what an attempt gave, in the caller's transaction; what was known of the same files is replaced."""
    connection.executemany(_SAVE, [(job_id, attempt, *_values(one), now) for one in kept])


def _values(one: Kept) -> tuple[Any, ...]:
    file = (one.output.path, one.output.sha256, one.output.size) if one.output is not None else (None, None, None)
    return one.number, one.kind, one.url, *file, _encode(one.facts.words()), _encode(one.warnings)


def exists(connection: Connection) -> bool:
    """Whether the ledger is new enough."""
    return has_table(connection, "media")


def reader(connection: Connection) -> Callable[[int, int], list[Kept]]:
    """How to ask for what attempts gave: see `of`."""
    return partial(of, connection) if exists(connection) else lambda _job_id, _attempt: []


def of(connection: Connection, job_id: int, attempt: int) -> list[Kept]:
    """What an attempt gave: its outputs in order, the last frame at the end.

    Raises:
        LedgerUnusable: what stands there makes no sense.
    """
    from ..core.media import LAST_FRAME

    try:
        found = [_kept(*row) for row in connection.execute(_OF, (job_id, attempt))]
    except (ValueError, TypeError, AttributeError) as error:
        raise LedgerUnusable(f"the outputs of job {job_id} in the ledger are damaged ({error})") from None
    return sorted(found, key=lambda one: (one.number == LAST_FRAME, one.number))


def _kept(
    number: int, kind: str, url: str, file: str | None, sha256: str, size: int, facts: str, warnings: str
) -> Kept:
    from ..core.job import Output
    from ..core.media import Facts, Kept

    output = None if file is None else Output(file, sha256, size)
    return Kept(number, kind, url, output, Facts.of(json.loads(facts)), tuple(json.loads(warnings)))


def words(kept: Sequence[Kept], file: Sequence[Any]) -> dict[str, Any]:
    """`media`, `outputs` and `last_frame_url` of a job that has succeeded, as JSON has them.

    Args:
        kept: see `of`.
        file: path, hash and size of the first output by the job itself: what there is of a job whose success is older
            than the table.
    """
    from ..core.media import LAST_FRAME, warnings_of

    if not kept:
        names = ("path", "sha256", "bytes")
        return {
            "outputs": [{**dict(zip(names, file, strict=True)), "kind": None}],
            "media": None,
            "last_frame_url": None,
        }
    return {
        "outputs": [_output(one) for one in kept if one.output is not None],
        "media": {**kept[0].facts.words(), "warnings": warnings_of(kept)},
        "last_frame_url": next((one.url for one in kept if one.number == LAST_FRAME), None),
    }


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has succeeded, and its files; `kept` is empty where its success is older than the table."""

    id: int
    batch: str
    key: str
    model: str
    request: dict[str, Any]
    attempt: int
    output: Output
    kept: tuple[Kept, ...]


def finished(connection: Connection, ids: Sequence[int]) -> list[Finished]:
    """Jobs that have succeeded, by row id, in the order of the ids."""
    from ..core.job import Output

    sql = (
        "SELECT job.id, batch.name, job.key, model, request, attempt, file, sha256, bytes FROM job "
        "JOIN batch ON batch.id = job.batch_id WHERE job.id = ? AND state = 'succeeded'"
    )
    rows = (row for job_id in ids for row in connection.execute(sql, (job_id,)))
    return [
        Finished(
            job_id,
            batch,
            key,
            model,
            json.loads(request),
            attempt,
            Output(*file),
            tuple(of(connection, job_id, attempt)),
        )
        for job_id, batch, key, model, request, attempt, *file in map(tuple, rows)
    ]


NOTHING: dict[str, Any] = {"outputs": [], "media": None, "last_frame_url": None}
"""The same of a job that has not succeeded."""


def _output(one: Kept) -> dict[str, Any]:
    assert one.output is not None  # noqa: S101  the caller has looked
    found: dict[str, Any] = {
        "path": one.output.path,
        "sha256": one.output.sha256,
        "bytes": one.output.size,
        "kind": one.kind,
    }
    from ..core.media import LAST_FRAME

    if one.number == LAST_FRAME:
        found["role"] = "last_frame"
    return {**found, "media": {**one.facts.words(), "warnings": list(one.warnings)}}


def warned(connection: Connection, batch_id: int) -> int:
    """How many current jobs of a batch have succeeded with a warning."""
    if not exists(connection):
        return 0
    return int(connection.execute(_WARNED, (batch_id,)).fetchone()[0])


def taken(job_id: int, names: Sequence[str], connection: Connection) -> set[str]:
    """Of these names, relative to the output folder, the ones that another job has planned. A name without extension
    stands for every file of it."""
    sql = _NAMED.format(marks=", ".join("?" * len(names)))
    return {row[0] for row in connection.execute(sql, (job_id, *names))}
