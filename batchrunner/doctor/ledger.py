"""The ledger: its folder, its lock, its spool, and the output folders of its batches."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..core.places import Remote, is_url
from ..engine import spool
from ..engine.ports import Settings
from ..ledger import audit, naming, queries
from ..ledger.address import Address, Server
from ..ledger.connection import beside, holder, open_reader
from ..ledger.errors import LedgerUnusable
from ..ledger.files import NETWORK_FILESYSTEMS, filesystem_type, runner
from ..ledger.sql import Connection
from ..providers.fetch import Transient
from ..providers.objects import StoreUnusable
from ..providers.objects import connect as connect_store
from .check import Check, Level

ROOM = 1 << 30
"""Free bytes below which a night may not fit."""

FOLDERS = 20
"""Output folders that are looked at, newest batch first."""


def checks(db: Address, *, offline: bool = False) -> Iterator[Check]:
    """The ledger, its folder, its lock, its spool, and the folders of its batches."""
    if isinstance(db, Server):
        unusable, damaged = "docs/cluster.md says what a ledger in PostgreSQL needs", "keep it, and restore a copy"
    else:
        unusable = "keep the file; restore a copy or choose another --db"
        damaged = "keep the file and restore a copy; `batchrunner export` may still read it"
        yield _folder(db)
        yield from _filesystem(db)
    try:
        connection = open_reader(db)
    except LedgerUnusable as error:
        yield Check("ledger", Level.FAIL, str(error), unusable)
        return
    if connection is None:
        yield Check("ledger", Level.OK, f"none at {db} yet; the first run makes it")
        return
    try:
        found = audit.find_everywhere(connection)
        if found is not None:
            yield Check("ledger", Level.FAIL, f"{db} is damaged: {found}", damaged)
            if isinstance(db, Server):
                return
        else:
            yield _contents(db, connection)
        yield _lock(db)
        yield from _beside(db)
        yield from _outputs(connection, offline)
    finally:
        connection.close()


def _filesystem(db: Path) -> Iterator[Check]:
    kind = filesystem_type(db.parent)
    if kind in NETWORK_FILESYSTEMS:
        fix = "put the ledger on a local disk with --db or BATCHRUNNER_DB"
        yield Check("filesystem", Level.FAIL, f"{db.parent} is on {kind}, where commits can be lost", fix)
    elif kind:
        yield Check("filesystem", Level.OK, kind)


def _folder(db: Path) -> Check:
    name, folder = "ledger folder", db.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "make it, or name another place with --db"
        return Check(name, Level.FAIL, f"can't write in {folder}: {error.strerror}", fix)
    return _room(name, folder)


def _room(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{folder}: {free / (1 << 30):.1f} GiB free"
    if free < Settings().min_free_bytes:
        return Check(name, Level.FAIL, text + "; a run submits nothing", "make room")
    if free < ROOM:
        return Check(name, Level.WARN, text, "make room before a long night")
    return Check(name, Level.OK, text)


def _contents(db: Address, connection: Connection) -> Check:
    batches = len(naming.batch_names(connection))
    text = f"{db}: sound, {batches} batch{'es' if batches != 1 else ''}"
    if isinstance(db, Path) and os.stat(db).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Check("ledger", Level.WARN, f"{text}; others on this machine can open it", f"chmod 600 {db}")
    return Check("ledger", Level.OK, text)


def _lock(db: Address) -> Check:
    """Who holds the lock."""
    if isinstance(db, Server):
        who = holder(db)
        return Check("lock", Level.OK, "free" if who is None else f"a run is alive ({who})")
    process = runner(db)
    if process is None:
        return Check("lock", Level.OK, "free")
    return Check(
        "lock", Level.OK, f"a run is alive (process {process})" if process else "not held, as far as can be seen"
    )


def _beside(db: Address) -> Iterator[Check]:
    """What a run keeps on this machine beside the ledger: a spool; of a ledger elsewhere, its folder too."""
    if isinstance(db, Path):
        yield from _spool(db)
    elif (there := beside(db)) is not None:
        yield _folder(there)
        yield from _spool(there)


def _spool(db: Path) -> Iterator[Check]:
    with suppress(OSError):
        data = Path(f"{db}.spool").read_bytes()
        waiting = len(spool.read(data))
        if waiting:
            text = f"{waiting} received task ids wait beside the ledger for a disk that writes again"
            yield Check("spool", Level.WARN, text, "make room, then `batchrunner resume`: it records them first")
        damaged = spool.damaged(data)
        if damaged:
            text = f"{len(damaged)} damaged notes of received task ids lie beside the ledger: {damaged[0][:100]}"
            fix = "`batchrunner resume`, then look at what is unconfirmed: it shows them"
            yield Check("spool", Level.WARN, text, fix)


def _outputs(connection: Connection, offline: bool) -> Iterator[Check]:
    for folder in queries.output_folders(connection, FOLDERS):
        if is_url(folder):
            if not offline:
                yield _objects(Remote(folder))
            continue
        there = Path(folder)
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Check("output folder", Level.FAIL, f"can't write in {folder}", "mend its permissions, or output.dir")
        else:
            yield _room("output folder", there)


def _objects(place: Remote) -> Check:
    try:
        connect_store(place).prove()
    except (StoreUnusable, Transient) as error:
        return Check("object storage", Level.FAIL, str(error), "docs/object-storage.md says what it takes")
    return Check("object storage", Level.OK, f"{place} may be written to")
