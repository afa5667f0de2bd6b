"""Opening a ledger in PostgreSQL: the settings that the promise rests on, each read back; whose it is; and the lock.

The lock is the session's (`pg_try_advisory_lock`): the server drops it with the session, however that ends. A session
that comes back after its connection was lost ends the one before it first, so that it never waits for itself.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
import zlib
from functools import partial
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors as pg

from ...core.secret import hide
from .. import audit
from ..address import Server
from ..connection import APPLICATION_ID, LATEST
from ..errors import LedgerBusy, LedgerUnusable
from ..sql import TABLES
from .link import SETTLING, Link, words_of
from .session import Named, connect

SHARED = {
    "cluster.sql": "claim",
    "endings.sql": "ending",
    "meters.sql": "meter",
    "doubts.sql": "question",
    "terms.sql": "hand_over",
}
"""What workers share, in order: a file of statements -> a table by which one sees that they were made."""

OLDEST_SERVER = 14
"""PostgreSQL's oldest version that has all we use (`pg_terminate_backend` that waits)."""

Session = psycopg.Connection[Named]

MIGRATE = "`batchrunner ledger migrate --db ADDRESS`, as the role that owns the schema, does it"


def migrations() -> list[tuple[int, str]]:
    """(version, SQL) of every step, in order. The first makes everything up to its version."""
    folder = resources.files("batchrunner.ledger.postgres") / "migrations"
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(n[:4]), (folder / n).read_text("utf-8")) for n in names]


def open_writer(server: Server, *, make: bool = True) -> Link:
    """The one writing connection, which holds the run lock; the ledger is made where there is none, unless told not to.

    Raises:
        LedgerBusy: another runner holds it.
        LedgerUnusable: it can't be used; the message says why and how to mend it.
    """
    link = _link(server, partial(_writing, server, make))
    try:
        damaged: object = audit.contradiction(link)
    except sqlite3.Error as error:
        damaged = error
    if damaged is not None:
        link.close()
        raise LedgerUnusable(f"{server} is not a usable ledger ({damaged}); keep it, and restore a copy")
    return link


def open_peer(server: Server, idle: float) -> Link:
    """A writing connection beside others: it shares the run lock with them, so that none of them meets a run that has
    the ledger to itself. What they write takes turns (`peers`).

    Args:
        server: where the ledger is.
        idle: seconds for which it may leave a transaction lie. Then the server ends it: one whose process is frozen in
            the middle of its turn stops the others no longer than that.

    Raises: as `open_writer`.
    """

    def opened(lost: tuple[int, Any] | None) -> Session:
        session = _writing(server, make=True, lost=lost, shared=True)
        session.execute(f"SET idle_in_transaction_session_timeout = {int(idle * 1000)}")
        return session

    return _link(server, opened)


def open_reader(server: Server) -> Link | None:
    """A read-only connection, beside a run or not; None where there is no ledger yet. Raises LedgerUnusable."""
    version: list[int | None] = []
    link = _link(server, partial(_reading, server, version), patience=0.0)
    if version[-1] is None:
        link.close()
        return None
    return link


def migrate(server: Server) -> tuple[int, int]:
    """Make the ledger, or bring it to this release's schema. Returns the versions before (0 for none) and after.

    Raises: as `open_writer`.
    """
    before = [0]

    def opened(lost: tuple[int, Any] | None) -> Session:
        session = _session(server)
        try:
            _lock(server, session, lost)
            before[0] = _look(server, session) or 0
            _migrate(server, session, before[0])
        except BaseException:
            session.close()
            raise
        return session

    _link(server, opened, patience=0.0).close()
    return before[0], LATEST


def prepare_shared(server: Server) -> bool:
    """Make what workers share, Procrastinate's tables too, in the ledger's schema, where it is not there yet.

    Returns:
        whether it was made.

    Raises:
        LedgerUnusable: there is no ledger, or the role may not.
    """
    try:
        session = _session(server)
    except psycopg.Error as error:
        raise LedgerUnusable(_why(server, error)) from None
    try:
        version = _look(server, session)
        if version is None:
            raise LedgerUnusable(f"there is no ledger at {server} yet; {MIGRATE}, or a run")
        _no_older(server, version)
        with session.transaction():
            session.execute("SELECT pg_advisory_xact_lock($1::int, $2::int)", (APPLICATION_ID + 1, lock_number(server)))
            missing = [name for name in SHARED if not _there(session, SHARED[name])]
            if not _there(session, "procrastinate_jobs"):
                from procrastinate.schema import SchemaManager

                session.execute(SchemaManager.get_schema().encode())
            for name in missing:
                text = (resources.files("batchrunner.ledger.postgres") / name).read_text("utf-8")
                session.execute(text.encode())
    except pg.InsufficientPrivilege:
        raise LedgerUnusable(f"{server} lacks tables for workers, and this role may not make them; {MIGRATE}") from None
    except psycopg.Error as error:
        raise LedgerUnusable(_why(server, error)) from None
    finally:
        session.close()
    return bool(missing)


def _there(session: Session, table: str) -> bool:
    row = session.execute("SELECT to_regclass($1)", (table,)).fetchone()
    return row is not None and row[0] is not None


def identity(link: Link) -> str:
    """The ledger's own name, whatever its address: what stands beside it on this machine is named after it."""
    return str(link.execute("SELECT identity::text FROM ledger").fetchone()[0])


def holder(link: Link, server: Server) -> str | None:
    """Who holds the run lock, in words; None where nobody does."""
    row = link.execute(
        "SELECT a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = ? AND l.objid::bigint = ? "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (APPLICATION_ID, lock_number(server) & 0xFFFFFFFF),
    ).fetchone()
    return None if row is None else row[0] or "another session"


# --- Sessions --------------------------------------------------------------------------------------------


def _link(server: Server, opener: Any, **more: Any) -> Link:
    try:
        return Link(opener, server.secrets, **more)
    except psycopg.Error as error:
        raise LedgerUnusable(_why(server, error)) from None
    except sqlite3.Error as error:
        raise LedgerUnusable(f"{server} can't be used: {error}") from None


def _why(server: Server, error: psycopg.Error) -> str:
    words = hide(words_of(error), server.secrets)
    if isinstance(error, pg.InsufficientPrivilege):
        return f"{server}: this role may not use the ledger ({words}); docs/cluster.md lists the rights it needs"
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return f"{server} takes no writes ({words}); name the primary"
    if isinstance(error, psycopg.ProgrammingError) and error.diag.sqlstate is None:
        return f"{server}: the address can't be used ({words})"
    return f"can't use PostgreSQL at {server} ({words}); is it running, and do name, role and password fit?"


def _session(server: Server, *, read_only: bool = False) -> Session:
    """A session with the settings that the ledger needs. Raises psycopg.Error, LedgerUnusable."""
    session = connect(server.url, application_name=f"batchrunner {socket.gethostname()} {os.getpid()}")
    try:
        _prepare(server, session, read_only=read_only)
    except BaseException:
        session.close()
        raise
    return session


def _prepare(server: Server, session: Session, *, read_only: bool) -> None:
    if session.info.server_version < OLDEST_SERVER * 10000:
        raise LedgerUnusable(
            f"PostgreSQL {session.info.server_version // 10000} at {server} is too old; "
            f"{OLDEST_SERVER} or newer is needed"
        )
    session.execute(
        f'SET search_path = "{server.schema}", pg_temp; SET statement_timeout = 0; SET lock_timeout = 0; '
        "SET idle_in_transaction_session_timeout = 0; SET standard_conforming_strings = on; "
        f"SET default_transaction_isolation = '{'repeatable read' if read_only else 'read committed'}'; "
        f"SET default_transaction_read_only = {'on' if read_only else 'off'}"
    )
    for name, wanted in (("server_encoding", "UTF8"), ("client_encoding", "UTF8")):
        if (found := _setting(session, name)) != wanted:
            raise LedgerUnusable(f"{server} has {name} {found}; the ledger needs a database in {wanted}")
    if read_only:
        return
    if session.execute("SELECT pg_is_in_recovery()").fetchone()[0]:  # type: ignore[index]
        raise LedgerUnusable(f"{server} is a read-only replica; a run needs the primary (reading works here)")
    for name in ("fsync", "full_page_writes"):
        if _setting(session, name) != "on":
            raise LedgerUnusable(f"PostgreSQL at {server} runs with {name} off: it would forget what was paid for")
    # A client that is gone without a word is noticed within a minute, and its lock let go.
    session.execute(
        "SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
        "SET tcp_user_timeout = 50000"
    )
    if _setting(session, "synchronous_commit") in ("off", "local"):
        session.execute("SET synchronous_commit = on")
    if (found := _setting(session, "synchronous_commit")) in ("off", "local"):
        raise LedgerUnusable(f"PostgreSQL at {server} refused synchronous_commit = on (it says {found})")


def _setting(session: Session, name: str) -> str:
    return str(session.execute("SELECT current_setting($1)", (name,)).fetchone()[0])  # type: ignore[index]


def _reading(server: Server, version: list[int | None], _lost: tuple[int, Any] | None) -> Session:
    session = _session(server, read_only=True)
    try:
        version.append(_look(server, session))
        _no_older(server, version[-1])
    except BaseException:
        session.close()
        raise
    return session


def _writing(server: Server, make: bool, lost: tuple[int, Any] | None, *, shared: bool = False) -> Session:
    session = _session(server)
    try:
        _lock(server, session, lost, shared=shared)
        version = _look(server, session)
        _no_older(server, version)
        if version is None:
            if not make or lost is not None:
                raise LedgerUnusable(f"no ledger at {server}")  # noqa: TRY301  the session is closed on the way
            _migrate(server, session, 0)
        _check_rules(server, session)
        _check_rights(server, session)
    except BaseException:
        session.close()
        raise
    return session


# --- The lock --------------------------------------------------------------------------------------------


def lock_number(server: Server) -> int:
    """A signed int4 of the schema's name; the other half of the key is `APPLICATION_ID`."""
    number = zlib.crc32(server.schema.encode())
    return number - (1 << 32) if number >= 1 << 31 else number


def _lock(server: Server, session: Session, lost: tuple[int, Any] | None, *, shared: bool = False) -> None:
    if lost is not None:
        session.execute(
            "SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2",
            (*lost, int(SETTLING * 1000)),
        )
    sql = f"SELECT pg_try_advisory_lock{'_shared' if shared else ''}($1::int, $2::int)"
    for pause in (0.05, 0.1, 0.2, 0.4, 0.0):  # a process that was killed just now: the server is about to notice
        if session.execute(sql, (APPLICATION_ID, lock_number(server))).fetchone()[0]:  # type: ignore[index]
            return
        threading.Event().wait(pause)
    row = session.execute(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = $1 AND l.objid::bigint = $2",
        (APPLICATION_ID, lock_number(server) & 0xFFFFFFFF),
    ).fetchone()
    who = f" ({row[0]})" if row is not None and row[0] else ""
    raise LedgerBusy(f"another batchrunner{who} holds {server}; wait for it with --wait-lock 10m")


# --- Whose it is -----------------------------------------------------------------------------------------


def _no_older(server: Server, version: int | None) -> None:
    if version is not None and version < LATEST:
        raise LedgerUnusable(
            f"{server} was written by an older batchrunner (schema {version}, this one needs {LATEST}); {MIGRATE}"
        )


def _look(server: Server, session: Session) -> int | None:
    """The version of the ledger's schema; None where there is no ledger.

    Raises:
        LedgerUnusable: the schema is another program's, or a newer one's.
    """
    there = session.execute(
        "SELECT count(c.oid), coalesce(max(CASE WHEN c.relname = 'ledger' THEN 1 ELSE 0 END), 0) FROM pg_namespace n "
        "LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = $1",
        (server.schema,),
    ).fetchone()
    assert there is not None  # noqa: S101  an aggregate has one row
    if not there[0]:
        return None
    if not there[1]:
        raise LedgerUnusable(
            f"the schema {server.schema} at {server} belongs to another program; name another with ?schema=NAME"
        )
    row = session.execute(f'SELECT application, version FROM "{server.schema}".ledger').fetchone()
    if row is None or row[0] != APPLICATION_ID:
        raise LedgerUnusable(f"the schema {server.schema} at {server} is not a batchrunner ledger; name another one")
    version = int(row[1])
    if version > LATEST:
        raise LedgerUnusable(
            f"{server} was written by a newer batchrunner (schema {version}, this one knows {LATEST}); upgrade it"
        )
    return version


def _migrate(server: Server, session: Session, version: int) -> None:
    """Every step that is missing, with its record, in one transaction."""
    with session.transaction():
        if not version:
            try:
                with session.transaction():
                    session.execute(f'CREATE SCHEMA IF NOT EXISTS "{server.schema}"')
            except pg.InsufficientPrivilege:
                known = session.execute("SELECT to_regnamespace($1)", (server.schema,)).fetchone()
                if known is None or known[0] is None:
                    raise LedgerUnusable(
                        f"there is no ledger at {server} yet, and this role may not make one; {MIGRATE}"
                    ) from None
        for number, sql in migrations():
            if number > version:
                session.execute(sql.encode())
                session.execute("UPDATE ledger SET version = $1", (number,))


def _check_rules(server: Server, session: Session) -> None:
    """Every rule of the schema is there and in force: a database can be restored in part, and its triggers disabled."""
    wanted = {name for _, sql in migrations() for name in re.findall(r"CREATE TRIGGER (\w+)", sql)}
    rows = session.execute(
        "SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE n.nspname = $1 AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')",
        (server.schema,),
    ).fetchall()
    missing = sorted(wanted - {row[0] for row in rows})
    if missing:
        raise LedgerUnusable(f"{server}: the ledger's rule {missing[0]} is missing or disabled; restore a copy")


_ONLY_READ = ("legal",)


def _check_rights(server: Server, session: Session) -> None:
    """What a run will write, it may: better known now than with a POST in flight."""
    for table in TABLES:
        for right in ("SELECT",) if table in _ONLY_READ else ("SELECT", "INSERT", "UPDATE"):
            row = session.execute("SELECT has_table_privilege($1, $2)", (table, right)).fetchone()
            if row is None or not row[0]:
                raise LedgerUnusable(
                    f"{server}: this role may not {right} in {table}; docs/cluster.md lists the rights that a run needs"
                )
