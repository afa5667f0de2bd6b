"""`deploy/roles.sql` and `rights.sql`: each role can do its work, over TLS that checks the server, and nothing more.

And what `docs/cluster-workers.md` tells to watch with is asked here, by the role that only looks."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from batchrunner.ledger.address import Server
from tests.cli_support import call
from tests.crash.command_line import PATIENCE
from tests.double import Double
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres

pytest.importorskip("procrastinate")

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("owner", "runner", "worker", "onlooker")
PAGE = (ROOT / "docs/cluster-workers.md").read_text("utf-8")


@pytest.fixture
def night(postgres: Postgres) -> Iterator[str]:
    """A database with the four roles; its name."""
    postgres.ask("CREATE DATABASE night")
    try:
        with psycopg.connect(_url(postgres, "owner", whole=True), autocommit=True) as superuser:
            for _ in range(2):  # a second time changes nothing
                superuser.execute((ROOT / "deploy/roles.sql").read_bytes())
        yield "night"
    finally:
        postgres.ask("DROP DATABASE night WITH (FORCE)")
        postgres.ask(f"DROP ROLE {', '.join(f'batchrunner_{role}' for role in ROLES)}")


def test_each_role_does_its_work_over_tls_and_no_more(
    double: Double, postgres: Postgres, night: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    safe = f"sslmode=verify-full&sslrootcert={authority}"
    monkeypatch.delenv("BATCHRUNNER_DB", raising=False)

    with encrypted(postgres, authority):
        assert call("ledger", "migrate", "--db", f"{_url(postgres, 'worker')}?{safe}").code == 2, "not the owner"
        made = call("ledger", "migrate", "--db", f"{_url(postgres, 'owner')}?{safe}")
        assert made.code == 0, made.err
        early = call("worker", "--db", f"{_url(postgres, 'worker')}?{safe}")
        assert (early.code, "may not" in early.err) == (2, True), "before it was given its rights"
        for _ in range(2):
            with psycopg.connect(_url(postgres, "owner")) as owner:
                owner.execute((ROOT / "deploy/rights.sql").read_bytes())

        as_worker = Server(f"{_url(postgres, 'worker')}?{safe}")
        of_runner = (
            {"BATCHRUNNER_DB": "postgresql://"}
            | {
                f"PG{name}": value
                for name, value in (("HOST", "127.0.0.1"), ("PORT", str(postgres.port)), ("DATABASE", night))
            }
            | {"PGUSER": "batchrunner_runner", "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(authority)}
        )
        with fleet(
            tmp_path, double, postgres, jobs=4, prune=5.0, delay=1.0, where=as_worker, environment=of_runner
        ) as fleet_:
            fleet_.environment = {}
            fleet_.worker()
            looker = ("--db", f"{_url(postgres, 'onlooker')}?{safe}")
            fleet_.until(lambda: call("status", "--json", *looker).json.get("workers", []) != [])
            encrypted_ones = postgres.ask(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                "WHERE usename = 'batchrunner_worker'"
            )
            watched = watch(postgres)
            assert fleet_.ended(0) == 0, fleet_.said()

        assert encrypted_ones == [(True,)]
        assert watched["workers"][0][1] == fleet_.processes[0].pid
        assert call("status", "night", "--json", *looker).json["states"]["succeeded"] == 4
        assert call("cancel", "night", *looker).code == 2, "it only looks"

        other = tmp_path / "other.pem"
        certificate(other, tmp_path / "unused")
        wrong = call("status", "--db", f"{_url(postgres, 'onlooker')}?sslmode=verify-full&sslrootcert={other}")
        name = call("status", "--db", f"{_url(postgres, 'onlooker')}?{safe}".replace("127.0.0.1", "localhost"))
    plain = call("status", *looker)
    assert (wrong.code, "certificate verify failed" in wrong.err) == (2, True), wrong.err
    assert (name.code, "does not match host name" in name.err) == (2, True), name.err
    assert (plain.code, "server does not support SSL" in plain.err) == (2, True), plain.err
    refused(postgres)


def refused(postgres: Postgres) -> None:
    """What no role may, and what only some may."""
    job, lawbook = "UPDATE batchrunner.job SET credits = 0", "INSERT INTO batchrunner.legal DEFAULT VALUES"
    forbidden = {
        "onlooker": [job, "SELECT nextval('batchrunner.job_id_seq')", "CREATE TABLE batchrunner.mine ()"],
        "runner": [
            lawbook,
            "DELETE FROM batchrunner.job",
            "DROP TABLE batchrunner.claim",
            "CREATE TABLE public.mine ()",
        ],
        "worker": [lawbook, "DELETE FROM batchrunner.history", "ALTER TABLE batchrunner.job DISABLE TRIGGER ALL"],
    }
    for role, statements in forbidden.items():
        for sql in statements:
            with (
                psycopg.connect(_url(postgres, role), options="-c default_transaction_read_only=off") as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute(sql.encode())


def watch(postgres: Postgres) -> dict[str, list[tuple[object, ...]]]:
    """What the page says to watch with, asked as the onlooker: title of each query -> its rows."""
    part = PAGE.partition("## What to watch")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sql\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert blocks
    found = {}
    with psycopg.connect(_url(postgres, "onlooker"), autocommit=True) as connection:
        for block in blocks:
            for statement in filter(None, map(str.strip, block.split(";\n"))):
                title = re.match(r"-- (\w+)", statement)
                assert title is not None, statement
                found[title[1]] = connection.execute(statement.encode()).fetchall()
    return found


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not on this machine")
def test_passwords_come_from_files(postgres: Postgres, night: str, tmp_path: Path) -> None:
    for role in ROLES:
        (tmp_path / role).write_text(f"it's {role} $HOME\n")
    done = subprocess.run(
        [
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            ROOT / "deploy/passwords.sql",
            _url(postgres, "owner", whole=True),
        ],
        env={**os.environ, "SECRETS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    kept = postgres.ask(
        "SELECT rolname, left(rolpassword, 14) FROM pg_authid WHERE rolname LIKE 'batchrunner_%' ORDER BY 1"
    )
    assert kept == [(f"batchrunner_{role}", "SCRAM-SHA-256$") for role in sorted(ROLES)]


def _url(postgres: Postgres, role: str, *, whole: bool = False) -> str:
    return f"postgresql://{'owner' if whole else f'batchrunner_{role}'}@127.0.0.1:{postgres.port}/night"


# --- TLS -------------------------------------------------------------------------------------------------


@contextmanager
def encrypted(postgres: Postgres, authority: Path) -> Iterator[None]:
    """The server speaks TLS, with a certificate for 127.0.0.1 by an authority of its own."""
    chain, key = postgres.folder.parent / "server.pem", postgres.folder.parent / "server.key"
    certificate(chain, key)
    shutil.copy(chain, authority)
    owner = postgres.folder.stat()
    os.chmod(key, 0o600)
    os.chown(key, owner.st_uid, owner.st_gid)
    for name, value in (("ssl_cert_file", str(chain)), ("ssl_key_file", str(key)), ("ssl", "on")):
        postgres.ask(f"ALTER SYSTEM SET {name} = '{value}'")
    _reload(postgres, "on")
    try:
        yield
    finally:
        postgres.ask("ALTER SYSTEM RESET ALL")
        _reload(postgres, "off")


def _reload(postgres: Postgres, wanted: str) -> None:
    postgres.ask("SELECT pg_reload_conf()")
    end = time.monotonic() + PATIENCE
    while postgres.ask("SHOW ssl") != [(wanted,)]:
        assert time.monotonic() < end, (postgres.folder.parent / "log").read_text()
        time.sleep(0.05)


def certificate(chain: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that speaks for itself, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "batchrunner tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
