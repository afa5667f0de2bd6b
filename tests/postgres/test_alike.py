"""The schema in PostgreSQL is the schema in SQLite: tables, columns, rules and versions."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.ledger.connection import LATEST, open_writer
from batchrunner.ledger.connection import migrations as in_files
from batchrunner.ledger.errors import LedgerUnusable
from batchrunner.ledger.postgres import opening
from batchrunner.ledger.sql import TABLES
from tests.postgres.server import Postgres

TYPES = {"INTEGER": "bigint", "REAL": "double precision", "TEXT": "text", "ANY": "jsonb"}

OF_ITS_OWN = {"job_never_emptied", "attempt_never_emptied", "history_never_emptied"}
"""Rules about TRUNCATE, which SQLite does not have."""


def test_the_tables_are_the_same(postgres: Postgres, tmp_path: Path) -> None:
    """Columns in the same order, each with its type and whether it may be empty."""
    with closing(open_writer(tmp_path / "l.db")) as file:
        names = {r[0] for r in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert names == set(TABLES)
        wanted = {
            name: [(c[1], TYPES[c[2]], bool(c[3] or c[5])) for c in file.execute(f"PRAGMA table_xinfo({name})") if c[1]]
            for name in TABLES
        }
        indexes = {
            (r[0], r[1])
            for r in file.execute("SELECT tbl_name, name FROM sqlite_schema WHERE type = 'index' AND sql <> ''")
        }
    server = postgres.ledger()
    opening.open_writer(server).close()
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for table, column, kind, empty in postgres.ask(
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = %s ORDER BY table_name, ordinal_position",
        server.schema,
    ):
        found.setdefault(table, []).append((column, kind, empty == "NO"))
    assert [c for c, *_ in found.pop("ledger")] == ["one", "application", "version", "identity"]
    assert {t: sorted(c) for t, c in found.items()} == {t: sorted(c) for t, c in wanted.items()}
    collations = postgres.ask(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = %s AND data_type = 'text'",
        server.schema,
    )
    assert collations == [("C",)], "text is compared by its bytes"
    theirs = postgres.ask("SELECT tablename, indexname FROM pg_indexes WHERE schemaname = %s", server.schema)
    assert indexes <= set(theirs)


def test_the_rules_are_the_same() -> None:
    """By name; what they refuse, the suite of the ledger tries on both."""
    file = {name for _, _, sql in in_files() for name in re.findall(r"CREATE TRIGGER (\w+)", sql)}
    server = {name for _, sql in opening.migrations() for name in re.findall(r"CREATE TRIGGER (\w+)", sql)}
    assert server - file == OF_ITS_OWN
    assert file <= server


def test_the_versions_are_the_same() -> None:
    """A migration of the one needs its twin in the other."""
    file = [number for number, _, _ in in_files()]
    server = [number for number, _ in opening.migrations()]
    first = server[0]
    assert server == [number for number in file if number >= first]
    assert server[-1] == LATEST


def test_every_step_leads_from_the_first_schema_to_the_newest(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = postgres.ledger()
    steps = opening.migrations()
    oldest = steps[0][0]
    with monkeypatch.context() as before:
        before.setattr(opening, "migrations", lambda: steps[:1])
        before.setattr(opening, "LATEST", oldest)
        assert opening.migrate(server) == (0, oldest)
    with pytest.raises(LedgerUnusable, match=rf"older batchrunner \(schema {oldest}, this one needs {LATEST}\)"):
        opening.open_writer(server)
    with pytest.raises(LedgerUnusable, match="batchrunner ledger migrate"):
        opening.open_reader(server)
    assert opening.migrate(server) == (oldest, LATEST)
    assert opening.migrate(server) == (LATEST, LATEST)
    opening.open_writer(server).close()


_PATTERNS = r"""
* ? a* *a a?c ** [abc] [^abc] [a-c]x [!a] []] [^]] []-a] [a a[ [z-a] [a-c-e] [-a] [a-] [^-a] [\\] [+--] [[-a] [^[]
a.c a+ (a) a|b a$ ^a {2} a\\ [.] *-1 s[1-3]* ü* [ü] [à-ü] [[] [*] % _ a]c [a^] [^^]
"""
_SUBJECTS = r"""
a b abc aXc a.c A ] - [ ax cx x ! z ü üa a+ aa ,
(a) a|b a$ ^a {2} a\\ \\ . dog-1 s2-1 s4-1 * % _ ^ a[ a]c d e
"""


def test_a_pattern_means_the_same(postgres: Postgres) -> None:
    """`glob` of the schema against SQLite's own."""
    server = postgres.ledger()
    opening.migrate(server)
    subjects = (*_SUBJECTS.split(), "", "a\nb", "a b")
    pairs = [(pattern, subject) for pattern in (*_PATTERNS.split(), "") for subject in subjects]
    with closing(sqlite3.connect(":memory:")) as file:
        wanted = [bool(file.execute("SELECT glob(?, ?)", pair).fetchone()[0]) for pair in pairs]
    rows = postgres.ask(
        f"SELECT {server.schema}.glob(p, s) FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (p, s, n) "
        "ORDER BY n",
        [p for p, _ in pairs],
        [s for _, s in pairs],
    )
    found = [row[0] for row in rows]
    assert [(p, f, w) for p, f, w in zip(pairs, found, wanted, strict=True) if f != w] == []
