"""The look at a ledger beside the reading of a manifest: what it finds holds only while nobody writes."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.core.job import State
from batchrunner.ledger import audit
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.early import EarlyLook
from batchrunner.ledger.errors import LedgerUnusable
from batchrunner.ledger.files import RunLock
from tests.cli_support import MANIFEST, call, make_ledger
from tests.support import path_to, spec


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "batchrunner.db"
    make_ledger(path, [(spec(), path_to(State.SUCCEEDED))])
    return path


def write(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


def test_a_ledger_that_is_whole(ledger: Path) -> None:
    with EarlyLook(ledger) as look:
        assert look.sound()
        assert not [t for t in threading.enumerate() if t.name == "early look"]


def test_what_it_found_is_not_looked_for_again(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = real(*arguments, **options)  # type: ignore[call-overload]
        connection.set_trace_callback(asked.append)
        return connection  # type: ignore[no-any-return]

    real = sqlite3.connect
    with EarlyLook(ledger) as look:
        assert look.sound()
        monkeypatch.setattr(sqlite3, "connect", connect)
        open_writer(ledger, lambda: True).close()
    assert asked
    assert not [sql for sql in asked if "quick_check" in sql or "FROM attempt" in sql]
    open_writer(ledger).close()
    assert [sql for sql in asked if "quick_check" in sql]
    assert [sql for sql in asked if "FROM attempt" in sql]


def test_a_commit_meanwhile_makes_it_worthless(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody writes, the same look says that all is well."""

    def find(connection: sqlite3.Connection) -> None:
        write(ledger, "INSERT INTO latency (model, took) VALUES ('m', 1)")

    monkeypatch.setattr(audit, "find", find)
    with EarlyLook(ledger) as look:
        assert not look.sound()


def test_a_lie_that_sqlite_would_not_see(ledger: Path) -> None:
    write(ledger, "UPDATE batch SET spent = spent + 1")
    with EarlyLook(ledger) as look:
        assert not look.sound()
    with pytest.raises(LedgerUnusable, match="credits"), EarlyLook(ledger) as look:
        open_writer(ledger, look.sound)


def test_damage_is_told_by_whoever_opens_it(ledger: Path) -> None:
    whole = bytearray(ledger.read_bytes())
    for page in range(1, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    ledger.write_bytes(whole)
    with pytest.raises(LedgerUnusable, match="keep it, and restore a copy"), EarlyLook(ledger) as look:
        open_writer(ledger, look.sound)


@pytest.mark.parametrize("content", [None, b"", b"no ledger" * 1000])
def test_nothing_is_known_where_there_is_no_ledger(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "l.db"
    if content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with EarlyLook(path) as look:
        assert not look.sound()
    assert sorted(tmp_path.iterdir()) == before


def test_a_ledger_that_another_runner_holds_is_not_looked_at(ledger: Path) -> None:
    lock = RunLock(ledger)
    lock.acquire()
    try:
        with EarlyLook(ledger) as look:
            assert look._thread is None
            assert not look.sound()
    finally:
        lock.release()


def test_a_look_that_nobody_needs_is_broken_off(ledger: Path) -> None:
    with EarlyLook(ledger) as look:
        thread = look._thread
    assert thread is not None
    assert not thread.is_alive()
    assert not look.sound()


def test_a_manifest_with_an_error_leaves_no_trace(tmp_path: Path, ledger: Path) -> None:
    """Nor does it hold anybody up: no lock, no new file."""
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("prompt", "prmpt"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert call("run", tmp_path / "m.yaml", "--db", ledger).code == 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if not p.name.endswith(("-wal", "-shm"))} == before
