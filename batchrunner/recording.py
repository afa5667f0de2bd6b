"""What a run is about, in the ledger: manifests, whole or first in part; or batches that are there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from .core.notice import kept
from .core.places import Place, Remote
from .core.selection import Selection
from .engine.feed import Feed
from .engine.ports import Crash, Settings
from .exits import UsageError
from .ledger import naming
from .ledger.record import BatchSpec
from .ledger.store import Ledger

if TYPE_CHECKING:
    from .manifest import Manifest


def names_of(manifests: Sequence[Manifest]) -> list[str]:
    """The batches of manifests.

    Raises:
        UsageError: two of them name one batch.
    """
    names = [m.batch for m in manifests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two manifests name the batch {name}; give each a name of its own")
    return names


async def record(
    ledger: Ledger,
    manifests: list[Manifest],
    max_credits: int | None,
    selection: Selection,
    settings: Settings,
    crash: Crash,
) -> Feed | None:
    """Record manifests. The list is emptied.

    The last one, if it is a large new batch, only in part: what comes back has the rest. No check needs it. All of the
    manifest was found valid; no other batch writes into its folder, and in the folder is nothing that could be in the
    way; what is to be selected of a batch is looked for in the whole of it.

    Raises:
        OutputClash: see `record.record`.
    """
    feed = None
    for manifest in manifests:
        spec = batch_spec(manifest, max_credits)
        large = len(manifest.jobs) > settings.first_part
        if large and manifest is manifests[-1] and not selection and untouched(manifest.output_dir):
            feed = await _begin(ledger, spec, manifest, settings, crash)
        if feed is None:
            await ledger.record(spec, manifest.jobs)
            crash("start.recorded")
    manifests.clear()
    return feed


async def _begin(ledger: Ledger, spec: BatchSpec, manifest: Manifest, settings: Settings, crash: Crash) -> Feed | None:
    """Record the first part of a new batch; None, and nothing is recorded, where it is no new one."""
    jobs = iter(manifest.jobs)
    first = list(islice(jobs, settings.first_part))
    left = len(manifest.jobs) - len(first)
    batch_id = await ledger.begin(spec, first, left)
    if batch_id is None:
        return None
    crash("start.begun")
    return Feed(ledger, crash, batch_id, jobs, position=len(first), left=left, part=settings.part)


def untouched(folder: Place) -> bool:
    """Whether an output folder is empty or not there, so that no output can meet a file. Of object storage that is not
    asked here."""
    if isinstance(folder, Remote):
        return False
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except FileNotFoundError:
        return True
    except OSError:
        return False


async def to_resume(ledger: Ledger, names: Sequence[str], max_credits: int | None) -> list[str]:
    """The batches of a ledger that are meant, by name; all of them where none is named.

    Raises:
        UsageError: there is no such batch.
    """
    if not names:
        return list(await ledger.query(naming.batch_names))
    for name in names:
        try:
            await ledger.query(partial(naming.find_batch, name=name))
        except naming.Unknown as unknown:
            raise UsageError(str(unknown)) from None
    if max_credits is not None:
        await ledger.cap(names, max_credits)
    return list(names)


def batch_spec(manifest: Manifest, max_credits: int | None) -> BatchSpec:
    """What the ledger records of a manifest. The smaller of the manifest's budget and `--max-credits` is the cap."""
    caps = [c for c in (manifest.max_credits, max_credits) if c is not None]
    return BatchSpec(
        name=manifest.batch,
        provider=manifest.provider,
        manifest=str(manifest.file),
        profile=manifest.profile,
        output_dir=str(manifest.output_dir),
        max_credits=min(caps) if caps else None,
        submits_per_minute=manifest.submits_per_minute,
        in_flight=manifest.in_flight,
        retry=manifest.retry,
        notify=kept(manifest.notify),
        limits=manifest.limits.packed(),
    )
