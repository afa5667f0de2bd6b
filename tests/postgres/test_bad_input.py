"""A database that can't be a ledger: one clear error, exit code 2, nothing sent, and never a password."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrunner.cli import errors
from batchrunner.ledger.address import Server, parse
from batchrunner.ledger.connection import LATEST
from batchrunner.ledger.copying import copy
from batchrunner.ledger.postgres import opening
from tests.cli_support import MANIFEST, Ran, call, make_ledger
from tests.postgres.server import Postgres, running
from tests.support import FakeClock, open_ledger, spec

CANARY = "s3cr3t/canary:with@signs"
WRITTEN = "s3cr3t%2Fcanary%3Awith%40signs"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is tried in a folder of its own, and at a provider where nobody listens: a POST would be an error."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("PG", "BATCHRUNNER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REAPI_API_KEY", "rk_0123456789abcdef")
    monkeypatch.setenv("REAPI_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "night.yaml").write_text(MANIFEST)
    return tmp_path


def refused(address: object, *words: str) -> Ran:
    """A run, and a look, are refused with one line; what they say holds these words."""
    for verb in (("run", "night.yaml"), ("status",)):
        ran = call(*verb, "--db", str(address))
        assert ran.code == 2, ran
        assert ran.out == ""
        (line,) = [line for line in ran.err.splitlines() if line and not line.startswith(("Usage", "Try"))]
        assert line.lower().startswith("error: "), ran.err
        for word in words:
            assert word in line, (verb, line)
        assert "s3cr3t" not in line
    return ran


def written(server: Server) -> str:
    return f"{server.url}?schema={server.schema}"


def test_nobody_listens(postgres: Postgres) -> None:
    refused("postgresql://127.0.0.1:9/night", "can't use PostgreSQL at postgresql://127.0.0.1:9/night", "refused")


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused(f"postgresql://x@127.0.0.1:{port}/night?connect_timeout=2", "timeout expired")


def test_no_such_database_and_no_such_role(postgres: Postgres) -> None:
    refused(f"postgresql://owner@127.0.0.1:{postgres.port}/nowhere", 'database "nowhere" does not exist')
    refused(f"postgresql://nobody@127.0.0.1:{postgres.port}/postgres", 'role "nobody" does not exist')


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://host/db", "a ledger is a file, or a database such as postgresql://host/name"),
        ("postgresql://u:p/w@host/db", "%2F"),
        ("postgresql://u:p#w@host/db", "%23"),
        ("postgresql://host/db?schema=Two Words", "schema= takes a name"),
        ("postgresql://host/db?shcema=x", "can't be used"),
        ("postgresql://host:port/db", "can't"),
    ],
)
def test_an_address_that_is_none(address: str, says: str) -> None:
    for verb in (("run", "night.yaml"), ("status",)):
        ran = call(*verb, "--db", address)
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err
        assert "p/w" not in ran.err
        assert "p#w" not in ran.err


def test_a_schema_of_another_program(postgres: Postgres) -> None:
    server = postgres.ledger()
    postgres.ask(f"CREATE SCHEMA {server.schema}; CREATE TABLE {server.schema}.users (id int)")
    refused(written(server), f"the schema {server.schema}", "belongs to another program", "?schema=NAME")
    postgres.ask(f"CREATE TABLE {server.schema}.ledger AS SELECT 1::bigint AS application, 1::bigint AS version")
    refused(written(server), "is not a batchrunner ledger")


def test_a_newer_and_an_older_schema(postgres: Postgres) -> None:
    server = postgres.ledger()
    opening.open_writer(server).close()
    postgres.ask(f"UPDATE {server.schema}.ledger SET version = {LATEST + 1}")
    refused(
        written(server), f"written by a newer batchrunner (schema {LATEST + 1}, this one knows {LATEST}); upgrade it"
    )
    postgres.ask(f"UPDATE {server.schema}.ledger SET version = {LATEST - 1}")
    refused(written(server), "written by an older batchrunner", "batchrunner ledger migrate")


def test_a_rule_that_was_put_aside(postgres: Postgres) -> None:
    server = postgres.ledger()
    opening.open_writer(server).close()
    postgres.ask(f"ALTER TABLE {server.schema}.attempt DISABLE TRIGGER attempt_within_budget")
    ran = call("run", "night.yaml", "--db", written(server))
    assert (ran.code, ran.out) == (2, "")
    assert "rule attempt_within_budget is missing or disabled" in ran.err


def test_books_that_contradict_themselves(postgres: Postgres) -> None:
    server = postgres.ledger()
    make_ledger(server, [(spec(), ())])
    postgres.ask(f"UPDATE {server.schema}.batch SET spent = 7")
    ran = call("run", "night.yaml", "--db", written(server))
    assert (ran.code, ran.out) == (2, "")
    assert "its credits are not the sum of its submissions" in ran.err
    checks = {c["check"]: c for c in call("doctor", "--offline", "--json", "--db", written(server)).json["checks"]}
    assert "is damaged: batch night" in checks["ledger"]["text"]


@pytest.fixture
def guarded(postgres: Postgres) -> Iterator[str]:
    """A role with a password and no rights; its URL without database."""
    postgres.ask(f"CREATE ROLE guarded LOGIN PASSWORD '{CANARY}'")
    try:
        yield f"postgresql://guarded:{WRITTEN}@127.0.0.1:{postgres.port}"
    finally:
        postgres.ask("DROP OWNED BY guarded; DROP ROLE guarded")


def test_a_password_is_shown_nowhere(postgres: Postgres, guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(guarded.replace("s3cr3t", "s3cr3tX") + "/postgres", "password authentication failed")
    refused(f"{guarded}/nowhere", "does not exist")
    server = postgres.ledger()
    ran = call("run", "night.yaml", "--db", f"{guarded}/postgres?schema={server.schema}")
    assert (ran.code, ran.out) == (2, "")
    assert "this role may not make one" in ran.err
    assert "s3cr3t" not in ran.err
    monkeypatch.setenv("PGPASSWORD", CANARY)
    found = parse(f"{guarded.replace(':' + WRITTEN, '')}/postgres")
    assert CANARY in found.secrets
    for form in (str(found), repr(found), f"{found}", repr([parse(f"{guarded}/x?password={WRITTEN}&sslmode=prefer")])):
        assert "s3cr3t" not in form


def test_a_traceback_has_no_password(
    postgres: Postgres, guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"a bug that quotes {guarded}/postgres and {CANARY}")

    monkeypatch.setattr(opening, "open_reader", broken)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ran = call("status", "--db", f"{guarded}/postgres")
    assert ran.code == 70
    log = next((tmp_path / "state").rglob("*.log")).read_text()
    assert "a bug that quotes" in log
    assert "s3cr3t" not in log + ran.err + ran.out


def test_a_role_with_the_rights_of_the_manual(postgres: Postgres, guarded: str, tmp_path: Path) -> None:
    """docs/cluster.md's statements are enough for a night, and for no more."""
    server = postgres.ledger()
    opening.migrate(server)
    url = f"{guarded}/postgres?schema={server.schema}"
    ran = call("status", "--db", url)
    assert ran.code == 2
    assert "may not use the ledger" in ran.err
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    grants = text.split("```sql\n-- the role that runs\n")[1].split("```")[0]
    postgres.ask(grants.replace("batchrunner", server.schema).replace("studio", "guarded"))

    ran = call("run", "night.yaml", "--simulate", "--db", url, "--quiet")
    assert ran.code == 0, ran.err
    assert call("status", "night", "--json", "--db", url).json["states"]["succeeded"] == 3
    ran = call("ledger", "copy", url, str(tmp_path / "copy.db"))
    assert ran.code == 0, ran.err
    postgres.ask(f"REVOKE UPDATE ON {server.schema}.job FROM guarded")
    ran = call("run", "night.yaml", "--simulate", "--db", url)
    assert ran.code == 2
    assert "this role may not UPDATE in job" in ran.err


async def test_a_disk_of_the_server_that_is_full(postgres: Postgres) -> None:
    """What PostgreSQL says then is said here; nothing of the transition stays, and later it goes on."""
    from batchrunner.core import events as e
    from batchrunner.ledger.errors import WriteFailed
    from tests.support import with_jobs

    server = postgres.ledger()
    async with open_ledger(server, FakeClock()) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        postgres.ask(
            f"CREATE FUNCTION {server.schema}.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: No space left on device'; "
            f"END $$; CREATE TRIGGER full_disk BEFORE INSERT ON {server.schema}.history "
            f"EXECUTE FUNCTION {server.schema}.full_disk()"
        )
        with pytest.raises(WriteFailed, match="No space left on device"):
            await ledger.advance(job, e.Claimed())
        assert (await ledger.jobs([job.id]))[0] == job
        postgres.ask(f"DROP TRIGGER full_disk ON {server.schema}.history")
        await ledger.advance(job, e.Claimed())


@pytest.mark.parametrize("kind", ["a replica", "without fsync"])
def test_a_server_that_may_not_be_written_to(kind: str) -> None:
    more = {"fsync": "off"} if kind == "without fsync" else {}
    with running(more, standby=kind == "a replica") as server:
        ran = call("run", "night.yaml", "--db", server.url)
        assert (ran.code, ran.out) == (2, "")
        assert ("read-only replica" if kind == "a replica" else "fsync off") in ran.err
        assert call("status", "--db", server.url).code == 0, "and reading works"


# --- Copies ----------------------------------------------------------------------------------------------


def test_what_is_copied_onto_what(postgres: Postgres, tmp_path: Path) -> None:
    server = postgres.ledger()
    make_ledger(server, [(spec(), ())])
    for source, target, says in (
        (written(server), written(server), "onto itself"),
        ("nothing.db", written(server), "no ledger at"),
        (written(postgres.ledger()), "new.db", "no ledger at"),
        ("postgresql://127.0.0.1:9/x", "new.db", "refused"),
    ):
        ran = call("ledger", "copy", source, target)
        assert (ran.code, ran.out) == (2, ""), ran
        assert says in ran.err
    assert call("ledger", "copy", written(server), "one.db").code == 0
    ran = call("ledger", "copy", written(server), "one.db")
    assert ran.code == 2
    assert "has a ledger with something in it" in ran.err


async def test_a_run_is_alive(postgres: Postgres, tmp_path: Path) -> None:
    server = postgres.ledger()
    async with open_ledger(server, FakeClock()):
        ran = call("ledger", "copy", written(server), "one.db")
    assert ran.code == 5
    assert not [p for p in tmp_path.glob("one.db*") if p.stat().st_size]


def test_ids_in_the_spool_are_not_left_behind(postgres: Postgres, tmp_path: Path) -> None:
    from batchrunner.ledger.errors import LedgerUnusable

    server = postgres.ledger()
    make_ledger(server, [(spec(), ())])
    with pytest.raises(LedgerUnusable, match="task ids wait beside"):
        copy(server, tmp_path / "x.db", lambda _spool: True)


def test_without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra says what is missing."""
    import sys

    for name in [n for n in sys.modules if n.partition(".")[0] == "psycopg" or ".ledger.postgres." in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with contextlib.suppress(AttributeError):
        import batchrunner.ledger.postgres as package

        monkeypatch.delattr(package, "opening")
    ran = call("status", "--db", "postgresql://127.0.0.1:9/x")
    assert ran.code == 2
    assert "pip install 'batchrunner[cluster]'" in ran.err
    assert errors is not None
