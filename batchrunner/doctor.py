"""What `doctor` looks at: everything outside the manifest that a night rests on. A composition root beside `app.py`."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, plugins
from .core.events import Refused
from .core.places import Remote, is_url
from .core.pricing import usd_text
from .engine import spool
from .engine.clock import wall
from .engine.ports import Settings
from .environment import THIS_MACHINE, access, connect, has_key, kind_of
from .exits import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, UsageError
from .ledger import audit, queries
from .ledger.address import Address, Server
from .ledger.connection import MIN_SQLITE, beside, holder, open_reader
from .ledger.errors import LedgerUnusable
from .ledger.files import NETWORK_FILESYSTEMS, filesystem_type, runner
from .ledger.sql import Connection
from .providers.base import Balance, Unavailable
from .providers.fetch import Transient
from .providers.objects import StoreUnusable
from .providers.objects import connect as connect_store

if TYPE_CHECKING:
    from .providers.base import Access, Provider, ProviderKind

PACKAGES = ("aiohttp", "aiosqlite", "av", "click", "jsonschema", "jsonschema-rs", "orjson", "pillow", "PyYAML", "rich")
"""What has to be installed; uvloop is only faster."""

MIN_OPEN_FILES = 256
"""Below this many open files a run with the default limits can run out."""

ROOM = 1 << 30
"""Free bytes below which a night may not fit."""

SKEW = 60.0
"""Seconds that the clock may be off before it is worth a word."""

FOLDERS = 20
"""Output folders that are looked at, newest batch first."""

ASK_SECONDS = 15.0
"""How long to wait for the server's time."""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was looked at, what was found, and how to mend it."""

    name: str
    level: Level
    text: str
    fix: str = ""
    refused: bool = False
    """The provider refused the credentials, or can't be reached: exit code 6."""


def exit_code(checks: list[Check]) -> int:
    """0 where nothing failed; warnings don't count."""
    if any(c.refused for c in checks):
        return EXIT_REFUSED
    return EXIT_FAILED if any(c.level is Level.FAIL for c in checks) else EXIT_OK


def examine(db: Address, *, offline: bool) -> Iterator[Check]:
    """Every check, as it is made.

    Args:
        db: path of the ledger, there or not.
        offline: ask the provider, and object storage, nothing.
    """
    yield from machine()
    yield from ledger(db, offline=offline)
    yield from account(db, offline=offline)


# --- The machine -----------------------------------------------------------------------------------------


def machine() -> Iterator[Check]:
    """Python, packages, SQLite, YAML, open files."""
    yield Check("python", Level.OK, f"{platform.python_version()}, batchrunner {__version__}, {platform.platform()}")
    yield _packages()
    yield sqlite_check(sqlite3.sqlite_version_info)
    yield _yaml()
    yield open_files_check(_open_files())


def _packages() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for name in (*PACKAGES, "uvloop"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing and missing != ["uvloop"]:
        return Check("packages", Level.FAIL, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    fix = "pip install uvloop (optional: it is faster)" if missing else ""
    return Check("packages", Level.OK, ", ".join(found), fix)


def sqlite_check(version: tuple[int, ...]) -> Check:
    """Whether that SQLite can hold the ledger.

    3.7.0 to 3.51.2, but not 3.50.7 and 3.44.6, can corrupt a WAL when two connections write or checkpoint at once
    (FAILURES.md, SQLite; sqlite.org/wal.html, "the WAL-reset bug").
    """
    text = ".".join(map(str, version))
    if version < MIN_SQLITE:
        return Check("sqlite", Level.FAIL, f"{text} is too old", "use a Python with SQLite 3.37 or newer")
    if version <= (3, 51, 2) and version not in ((3, 50, 7), (3, 44, 6)):
        return Check(
            "sqlite",
            Level.WARN,
            f"{text} has a rare WAL bug that needs two writers at once; batchrunner has one, so that it is not met",
            "never write to the ledger with another program; SQLite 3.51.3 and newer are free of it",
        )
    return Check("sqlite", Level.OK, text)


def _yaml() -> Check:
    import yaml

    if yaml.__with_libyaml__:
        return Check("yaml", Level.OK, f"PyYAML {yaml.__version__} with libyaml")
    return Check(
        "yaml",
        Level.WARN,
        f"PyYAML {yaml.__version__} without libyaml: large manifests load several times slower",
        "install a PyYAML wheel, or libyaml-dev before building it",
    )


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def open_files_check(limit: int | None) -> Check:
    """Whether so many open files are enough; None for no limit."""
    if limit is None:
        return Check("open files", Level.OK, "no limit")
    if limit < MIN_OPEN_FILES:
        return Check("open files", Level.WARN, f"the limit is {limit}", "ulimit -n 1024 before the run")
    return Check("open files", Level.OK, f"the limit is {limit}")


# --- Ledger and disk -------------------------------------------------------------------------------------


def ledger(db: Address, *, offline: bool = False) -> Iterator[Check]:
    """The ledger, its folder, its lock, its spool, and the folders of its batches."""
    yield from _database(db, offline) if isinstance(db, Server) else _file(db, offline)


def _database(db: Server, offline: bool) -> Iterator[Check]:
    """A ledger in PostgreSQL."""
    try:
        connection = open_reader(db)
    except LedgerUnusable as unusable:
        yield Check("ledger", Level.FAIL, str(unusable), "docs/cluster.md says what a ledger in PostgreSQL needs")
        return
    if connection is None:
        yield Check("ledger", Level.OK, f"none at {db} yet; the first run makes it")
        return
    try:
        damaged = audit.find_everywhere(connection)
        if damaged is not None:
            yield Check("ledger", Level.FAIL, f"{db} is damaged: {damaged}", "keep it, and restore a copy")
            return
        batches = len(queries.batch_names(connection))
        yield Check("ledger", Level.OK, f"{db}: sound, {batches} batch{'es' if batches != 1 else ''}")
        who = holder(db)
        yield Check("lock", Level.OK, "free" if who is None else f"a run is alive ({who})")
        there = beside(db)
        if there is not None:
            yield _folder(there)
            yield from _spool(there)
        yield from _outputs(connection, offline)
    finally:
        connection.close()


def _file(db: Path, offline: bool) -> Iterator[Check]:
    yield _folder(db)
    kind = filesystem_type(db.parent)
    if kind in NETWORK_FILESYSTEMS:
        fix = "put the ledger on a local disk with --db or BATCHRUNNER_DB"
        yield Check("filesystem", Level.FAIL, f"{db.parent} is on {kind}, where commits can be lost", fix)
    elif kind:
        yield Check("filesystem", Level.OK, kind)
    try:
        connection = open_reader(db)
    except LedgerUnusable as unusable:
        yield Check("ledger", Level.FAIL, str(unusable), "keep the file; restore a copy or choose another --db")
        return
    if connection is None:
        yield Check("ledger", Level.OK, f"none at {db} yet; the first run makes it")
        return
    try:
        yield _contents(db, connection)
        yield _lock(db)
        yield from _spool(db)
        yield from _outputs(connection, offline)
    finally:
        connection.close()


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


def _contents(db: Path, connection: Connection) -> Check:
    damaged = audit.find_everywhere(connection)
    if damaged is not None:
        fix = "keep the file and restore a copy; `batchrunner export` may still read it"
        return Check("ledger", Level.FAIL, f"{db} is damaged: {damaged}", fix)
    batches = len(queries.batch_names(connection))
    text = f"{db}: sound, {batches} batch{'es' if batches != 1 else ''}"
    if os.stat(db).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Check("ledger", Level.WARN, f"{text}; others on this machine can open it", f"chmod 600 {db}")
    return Check("ledger", Level.OK, text)


def _lock(db: Path) -> Check:
    """Who holds the lock."""
    holder = runner(db)
    if holder is None:
        return Check("lock", Level.OK, "free")
    told = f"a run is alive (process {holder})" if holder else "not held, as far as can be seen"
    return Check("lock", Level.OK, told)


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


# --- The account -----------------------------------------------------------------------------------------


def account(db: Address, *, offline: bool) -> Iterator[Check]:
    """Of each provider: key, server, balance and clock. Without any key, that a paid run needs one."""
    with_key = False
    for name in plugins.names():
        try:
            kind = kind_of(name)
        except UsageError as error:
            yield Check(f"provider {name}", Level.WARN, str(error), "mend or remove its package")
            continue
        if has_key(kind):
            with_key = True
            yield from _account(db, kind, offline=offline)
        elif os.environ.get(kind.base_variable) is not None:
            yield from _base_alone(kind)
    if not with_key:
        fix = "export REAPI_API_KEY=... before a paid run; --simulate needs none"
        yield Check("key", Level.WARN, "no API key is set", fix)


def _account(db: Address, kind: ProviderKind, *, offline: bool) -> Iterator[Check]:
    name = next(variable for variable in kind.keys if os.environ.get(variable))
    try:
        how = access(kind)
        provider = connect(kind, how, wall)
    except UsageError as error:
        yield Check("key and server", Level.FAIL, str(error), f"set {name} and {kind.base_variable} right")
        return
    yield Check("key", Level.OK, f"set in {name}")
    yield _server(db, kind, provider)
    if not offline and kind.capabilities.balance:
        yield from asyncio.run(_ask(kind, how))


def _base_alone(kind: ProviderKind) -> Iterator[Check]:
    from .providers.base import Access

    try:
        origin = connect(kind, Access(os.environ[kind.base_variable], "no-key-is-needed-here")).origin
    except UsageError as error:
        yield Check("server", Level.FAIL, str(error), f"set {kind.base_variable} right, or unset it")
    else:
        yield Check("server", Level.OK, origin)


def _server(db: Address, kind: ProviderKind, provider: Provider) -> Check:
    """Whether the server is the one that the ledger belongs to."""
    origin = provider.origin
    mine = THIS_MACHINE if provider.loopback else origin
    with suppress(LedgerUnusable):
        connection = open_reader(db)
        if connection is not None:
            try:
                bound = queries.bound_origin(connection, kind.name)
            finally:
                connection.close()
            if bound is not None and bound != mine:
                fix = f"set {kind.base_variable} back, or use another --db"
                return Check("server", Level.FAIL, f"{origin}, but the ledger belongs to {bound}", fix)
    return Check("server", Level.OK, origin)


async def _ask(kind: ProviderKind, how: Access) -> list[Check]:
    provider = connect(kind, how, wall)
    try:
        answer = await provider.balance()
    finally:
        await provider.aclose()
    checks = [_balance(answer, kind)]
    if not checks[0].refused or isinstance(answer, Refused):
        checks.append(clock_check(await _server_date(provider.origin, how), wall()))
    return checks


def _balance(answer: object, kind: ProviderKind) -> Check:
    if isinstance(answer, Balance):
        text = f"{answer.credits:,} credits (${usd_text(answer.credits)})"
        if answer.credits <= 0:
            return Check("balance", Level.WARN, text, "top the account up before a run")
        return Check("balance", Level.OK, text)
    problem = getattr(answer, "problem", None)
    said = problem.message if problem is not None else "no answer"
    if isinstance(answer, Refused):
        fix = "make a new key in the provider's settings, and export it"
        return Check("balance", Level.FAIL, f"the key was refused: {said}", fix, refused=True)
    if isinstance(answer, Unavailable):
        fix = f"check the network, a proxy or firewall, and {kind.base_variable}"
        return Check("balance", Level.FAIL, f"can't be asked: {said}", fix, refused=True)
    return Check("balance", Level.WARN, f"not now: {said}", "try again in a minute")


async def _server_date(origin: str, how: Access) -> str | None:
    """The Date header of an answer that needs no key; None where there is none."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(
                origin,
                allow_redirects=False,
                headers={"User-Agent": how.user_agent},
            ) as response,
        ):
            return response.headers.get("Date")
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def clock_check(date: str | None, now: float) -> Check:
    """This machine's clock against a Date header.

    Args:
        date: the header; None where there was none.
        now: unix seconds.
    """
    from email.utils import parsedate_to_datetime

    parse: Callable[[str], Any] = parsedate_to_datetime
    try:
        there = None if date is None else parse(date).timestamp()
    except ValueError:
        there = None
    if there is None:
        return Check("clock", Level.OK, "not compared: the server says no time")
    off = now - there
    if abs(off) > SKEW:
        text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the server's"
        return Check("clock", Level.WARN, text, "turn on NTP (timedatectl set-ntp true)")
    return Check("clock", Level.OK, f"within {SKEW:.0f} s of the server's")
