"""Looking at finished files again: are they still there, are they what came, and is that what was ordered?

A composition root beside `words.py`. What is found is a warning: no job's state changes, and nothing
is fetched or sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from .app import open_ledger
from .catalogue import models
from .core.job import Output
from .core.media import LAST_FRAME, Kept, Ordered, differences, judged, warnings_of
from .core.places import Remote, place_of
from .engine.clock import SystemClock
from .engine.outputs import ordered
from .exits import UsageError
from .ledger import media as kept_media
from .ledger import naming
from .ledger.address import Address
from .ledger.connection import exists
from .ledger.media import Finished
from .providers import decoder, media
from .providers.fetch import FetchError
from .providers.objects import connect


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a job: the warnings that stay with it, and what is wrong with its files on the disk now."""

    batch: str
    job: str
    warnings: Sequence[str]
    disk: Sequence[str]


@dataclass(slots=True)
class Checked:
    """What came of a check.

    Attributes:
        jobs: how many were looked at.
        files: how many files.
        found: the jobs that are not as they should be.
        not_decoded: why files were not decoded although that was asked for, each reason once.
    """

    jobs: int = 0
    files: int = 0
    found: list[Found] = field(default_factory=list)
    not_decoded: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Looked:
    """One job, looked at."""

    job: Finished
    kept: Sequence[Kept]
    disk: Sequence[str]
    not_decoded: frozenset[str]


def check(
    db: Address,
    names: Sequence[str],
    *,
    decode: bool = False,
    wait: float = 0.0,
    tell: Callable[[int, int], None] | None = None,
) -> Checked:
    """Look at the finished files of jobs, and write down what is found.

    Args:
        db: the ledger.
        names: batches, jobs, or globs.
        decode: decode each file to its end, in processes of their own; takes up to 4 s of a core for 5 s
            of 1080p.
        wait: seconds to wait for a run to end.
        tell: called with how many jobs are done, and of how many.

    Raises:
        UsageError: there is no ledger. Unknown: a name means nothing. LedgerBusy: a run holds it.
    """
    if not exists(db):
        raise UsageError(f"no ledger at {db}; name it with --db")
    return asyncio.run(_check(db, names, decode, wait, tell or (lambda _done, _of: None)))


async def _check(
    db: Address, names: Sequence[str], decode: bool, wait: float, tell: Callable[[int, int], None]
) -> Checked:
    ledger = await open_ledger(db, SystemClock(), wait)
    loop, checked = asyncio.get_running_loop(), Checked()
    try:
        named = await ledger.query(lambda c: [naming.find_named(c, name) for name in names])
        ids = list(dict.fromkeys(row["id"] for each in named for row in each.rows if row["state"] == "succeeded"))
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="check") as pool:
            for start in range(0, len(ids), ABREAST):
                some = await ledger.query(partial(kept_media.finished, ids=ids[start : start + ABREAST]))
                for looked in await asyncio.gather(*(loop.run_in_executor(pool, _look, job, decode) for job in some)):
                    _note(checked, looked)
                    if list(looked.kept) != list(looked.job.kept):
                        await ledger.save_media(looked.job.id, looked.job.attempt, looked.kept)
                tell(min(start + ABREAST, len(ids)), len(ids))
    finally:
        await ledger.close()
    return checked


ABREAST = 64
"""Jobs that are looked at between two looks into the ledger."""


def _note(checked: Checked, looked: _Looked) -> None:
    checked.jobs += 1
    checked.files += sum(1 for one in looked.kept if one.output is not None)
    checked.not_decoded |= looked.not_decoded
    warnings = warnings_of(looked.kept)
    if warnings or looked.disk:
        checked.found.append(Found(looked.job.batch, looked.job.key, warnings, looked.disk))


def _look(job: Finished, decode: bool) -> _Looked:
    """One job's files. Blocks."""
    model = models().get(job.model)
    order = ordered(model, job.request)
    before = job.kept or (Kept(1, order.kind, "", job.output),)
    kept, disk, not_decoded = [], [], set()
    for one in before:
        if one.output is None:
            kept.append(one)
            continue
        try:
            again, silent = _file(one, one.output, order, decode)
        except _Changed as changed:
            disk.append(f"{one.output.path}: {changed}")
            kept.append(one)
            continue
        kept.append(again)
        not_decoded |= {silent} if silent else set()
    return _Looked(job, judged(order, kept) if not disk else tuple(kept), disk, frozenset(not_decoded))


class _Changed(Exception):
    """The file is not what it was when it got its name."""


def _file(one: Kept, output: Output, order: Ordered, decode: bool) -> tuple[Kept, str | None]:
    """A file, looked at again; and why it was not decoded although it should be.

    Raises:
        _Changed: it is gone, or another.
    """
    place = place_of(output.path)
    if isinstance(place, Remote):
        with tempfile.TemporaryDirectory(prefix="batchrunner-check-") as folder:
            here = Path(folder, place.name)
            try:
                _bring(place, here)
            except FileNotFoundError:
                raise _Changed("the object is not there any more") from None
            except (OSError, FetchError) as error:
                raise _Changed(f"the object can't be read: {error}") from None
            return _here(here, one, output, order, decode)
    return _here(place, one, output, order, decode)


def _bring(place: Remote, here: Path) -> None:
    """Fetch an object. Raises FileNotFoundError, OSError, Transient."""
    folder, _, name = place.url.rpartition("/")
    connect(Remote(folder)).fetch(name, here)


def _here(path: Path, one: Kept, output: Output, order: Ordered, decode: bool) -> tuple[Kept, str | None]:
    """As `_file`, of a file of this machine."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != output.sha256:
                raise _Changed("the file is not what came: it has been changed since")
        found = media.check(path, one.kind)
        facts, silent = replace(found.facts, frames=one.facts.frames, broken=one.facts.broken), None
        if decode:
            decoded = decoder.decode(path, found.container, one.kind)
            if decoded.told:
                facts = replace(facts, frames=decoded.frames, broken=decoded.broken)
            else:
                silent = decoded.broken
    except FileNotFoundError:
        raise _Changed("the file is not there any more") from None
    except OSError as error:
        raise _Changed(f"the file can't be read: {error.strerror}") from None
    except media.NotMedia as error:
        raise _Changed(str(error)) from None
    # The last frame was not ordered: only whether it can be shown is of interest.
    ours = order if one.number != LAST_FRAME else Ordered(kind=one.kind)
    return replace(one, facts=facts, warnings=differences(ours, facts, one.kind)), silent
