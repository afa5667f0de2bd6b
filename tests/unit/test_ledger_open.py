"""Opening the ledger: what it insists on, and what it refuses."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from batchrunner.ledger import connection as opening
from batchrunner.ledger import files
from batchrunner.ledger.connection import APPLICATION_ID, BUSY_TIMEOUT_MS, LATEST, open_reader, open_writer
from batchrunner.ledger.errors import LedgerBusy, LedgerUnusable
from batchrunner.ledger.files import RunLock, check_file, create_private, filesystem_type
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.writer import ThreadDatabase
from tests.support import FakeClock, open_ledger, spec, with_jobs


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchrunner.db"


@pytest.fixture
def ledger(path: Path) -> Path:
    open_writer(path).close()
    return path


# --- What it insists on ----------------------------------------------------------------------------------


def test_what_a_dead_runner_did_not_live_to_sync_is_durable_before_anything_is_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    with closing(open_writer(path)) as living:
        living.execute("PRAGMA wal_autocheckpoint = 0")
        for name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(path.with_name(name), left / name)
    log = left / f"{path.name}-wal"
    before, synced = log.read_bytes(), []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), log.stat()):
            synced.append(log.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    open_writer(left / path.name).close()

    assert before
    assert synced == [before]


async def test_the_settings_that_the_promise_rests_on(path: Path) -> None:
    """Read back on the very connection that writes, in its own thread."""
    names = (
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "busy_timeout",
        "trusted_schema",
        "application_id",
        "user_version",
    )
    async with open_ledger(path, FakeClock()) as ledger:
        found = await ledger.query(lambda c: {name: c.execute(f"PRAGMA {name}").fetchone()[0] for name in names})
        isolation = await ledger.query(lambda c: c.isolation_level)
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": BUSY_TIMEOUT_MS,
        "trusted_schema": 0,
        "application_id": APPLICATION_ID,
        "user_version": LATEST,
    }
    assert isolation is None


def test_created_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(open_writer(path)) as connection:
            connection.execute("INSERT INTO latency (model, took) VALUES ('m', 1)")
            for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                assert stat.S_IMODE(name.stat().st_mode) == 0o600, name
    finally:
        os.umask(before)


def test_a_refused_setting_is_an_error(path: Path) -> None:
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(LedgerUnusable, match="SQLite refused journal_mode = wal \\(it says memory\\)"),
    ):
        opening._pragma(connection, "journal_mode", "wal")


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MIN_SQLITE", (99, 0, 0))
    with pytest.raises(LedgerUnusable, match="is too old"):
        open_writer(path)
    assert not path.exists()


def test_opening_twice_changes_nothing(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        before = list(connection.iterdump())
    open_writer(ledger).close()
    with closing(sqlite3.connect(ledger)) as connection:
        assert list(connection.iterdump()) == before


@pytest.mark.parametrize("name", ["a b.db", "ü犬.db", "what?.db", "50%23.db", "#1.db", "a'b.db"])
def test_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    open_writer(path).close()
    reader = open_reader(path)
    assert reader is not None
    reader.close()
    assert {p.name for p in tmp_path.iterdir()} <= {name, f"{name}-wal", f"{name}-shm"}


# --- What it refuses -------------------------------------------------------------------------------------

OPENERS = [open_writer, open_reader]


@pytest.mark.parametrize("opener", OPENERS)
def test_a_symlink(tmp_path: Path, ledger: Path, opener: object) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(ledger)
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="is a symbolic link"):
        opener(link)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_dangling_symlink(tmp_path: Path, opener: object) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "elsewhere.db")
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="is a symbolic link"):
        opener(link)
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("opener", OPENERS)
def test_a_directory(tmp_path: Path, opener: object) -> None:
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="is not a file"):
        opener(tmp_path)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_path_below_a_file(tmp_path: Path, opener: object) -> None:
    (tmp_path / "file").write_text("x")
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="Not a directory"):
        opener(tmp_path / "file" / "l.db")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match=r"can't create .*No such file or directory"):
        open_writer(tmp_path / "nowhere" / "l.db")
    assert open_reader(tmp_path / "nowhere" / "l.db") is None


@pytest.mark.parametrize("opener", OPENERS)
def test_another_users_file(ledger: Path, monkeypatch: pytest.MonkeyPatch, opener: object) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match=f"belongs to another user \\(uid {uid}\\)"):
        opener(ledger)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_network_filesystem(ledger: Path, monkeypatch: pytest.MonkeyPatch, opener: object) -> None:
    monkeypatch.setattr(files, "filesystem_type", lambda _: "nfs4")
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="network filesystem \\(nfs4\\)"):
        opener(ledger)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_database_of_another_program(path: Path, opener: object) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
        other.execute("INSERT INTO theirs VALUES (1)")
        other.commit()
    before = path.read_bytes()
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match="is a database of another program"):
        opener(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("opener", OPENERS)
def test_a_newer_ledger(ledger: Path, opener: object) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    before = ledger.read_bytes()
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match=f"newer batchrunner \\(schema {LATEST + 1}, this one knows {LATEST}\\)"):
        opener(ledger)
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("garbage", [b"not a database at all\n" * 500, b"SQLite format 3\0", b"\0" * 5000])
def test_garbage(path: Path, garbage: bytes, opener: object) -> None:
    path.write_bytes(garbage)
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match=r"batchrunner\.db"):
        opener(path)
    assert path.read_bytes() == garbage


@pytest.mark.parametrize("size", [15, 50, 99, 100, 512, 4095])
def test_a_ledger_cut_short_in_its_first_page(ledger: Path, size: int) -> None:
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:size])
    with pytest.raises(LedgerUnusable, match="not a usable ledger"):
        open_writer(ledger)
    with pytest.raises(LedgerUnusable, match="not a usable ledger"):
        open_reader(ledger)


@pytest.mark.parametrize("pages", [1, 3, 10])
def test_a_ledger_cut_short_later(ledger: Path, pages: int) -> None:
    whole = ledger.read_bytes()
    assert len(whole) > 11 * 4096
    ledger.write_bytes(whole[: pages * 4096])
    with pytest.raises(LedgerUnusable, match="keep it, and restore a copy"):
        open_writer(ledger)


def test_damage_inside_is_found_at_the_start(ledger: Path) -> None:
    whole = bytearray(ledger.read_bytes())
    for page in range(1, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    ledger.write_bytes(whole)
    with pytest.raises(LedgerUnusable, match="keep it, and restore a copy"):
        open_writer(ledger)


def test_a_quick_check_that_finds_something(ledger: Path) -> None:
    """A row that breaks a CHECK: readable for SQLite, a lie for us."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute("INSERT INTO latency (model, took) VALUES ('m', -1)")
        connection.commit()
    with pytest.raises(LedgerUnusable, match="CHECK constraint failed"):
        open_writer(ledger)


def test_a_ledger_that_lost_its_version(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA user_version = 0")
    with pytest.raises(LedgerUnusable, match="already exists"):
        open_writer(ledger)


@pytest.mark.parametrize("opener", OPENERS)
def test_what_sqlite_cannot_open(ledger: Path, monkeypatch: pytest.MonkeyPatch, opener: object) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert callable(opener)
    with pytest.raises(LedgerUnusable, match=r"can't open .*unable to open database file"):
        opener(ledger)


async def test_a_refusal_lets_the_lock_go_and_leaves_no_thread(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    for _ in range(2):
        with pytest.raises(LedgerUnusable):
            await Ledger.open(path, FakeClock().wall)
    path.unlink()
    async with open_ledger(path, FakeClock()):
        pass


async def test_the_thread_database_says_what_its_opener_said(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    threads = set(threading.enumerate())
    with pytest.raises(LedgerUnusable, match="not a usable ledger"):
        await ThreadDatabase.open(partial(open_writer, path))
    assert set(threading.enumerate()) <= threads  # none that could still speak to a closed loop


# --- Reading ---------------------------------------------------------------------------------------------


def test_no_ledger_yet(path: Path) -> None:
    assert open_reader(path) is None
    path.touch()
    assert open_reader(path) is None
    assert path.stat().st_size == 0


def test_a_ledger_before_its_first_migration(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    assert path.stat().st_size > 0
    assert open_reader(path) is None
    open_writer(path).close()


def test_a_reader_cannot_write(ledger: Path) -> None:
    reader = open_reader(ledger)
    assert reader is not None
    with closing(reader), pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
        reader.execute("INSERT INTO latency (model, took) VALUES ('m', 1)")


async def test_readers_beside_a_writer(path: Path) -> None:
    """Each read sees what was committed, and is not held up by an open transaction."""
    clock = FakeClock()
    async with open_ledger(path, clock) as ledger:
        await with_jobs(ledger, [spec()])
        reader = open_reader(path)
        assert reader is not None
        with closing(reader):
            assert reader.execute("SELECT count(*) FROM job").fetchone()[0] == 1
            await ledger.query(lambda c: c.execute("BEGIN IMMEDIATE").fetchall())
            await ledger.query(lambda c: c.execute("UPDATE batch SET in_flight = 7").fetchall())
            assert reader.execute("SELECT in_flight FROM batch").fetchone()[0] == 20
            await ledger.query(lambda c: c.execute("COMMIT").fetchall())
            assert reader.execute("SELECT in_flight FROM batch").fetchone()[0] == 7


# --- The lock --------------------------------------------------------------------------------------------


async def test_one_runner_at_a_time(path: Path) -> None:
    clock = FakeClock()
    async with open_ledger(path, clock):
        with pytest.raises(
            LedgerBusy, match=f"another batchrunner \\(process {os.getpid()}\\) holds .*batchrunner.db;"
        ):
            await Ledger.open(path, clock.wall)
    async with open_ledger(path, clock):
        pass


def test_the_lock_file(path: Path) -> None:
    lock = RunLock(path)
    lock.acquire()
    assert lock.path == path.with_name("batchrunner.db.lock")
    assert lock.path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    lock.release()
    lock.release()
    assert lock.path.exists()  # removing it would let two runners lock two files of one name


def test_a_shorter_pid_replaces_a_longer_one(path: Path) -> None:
    lock = RunLock(path)
    lock.path.write_text("99999999999\n")
    lock.acquire()
    assert lock.path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_holder_that_did_not_say_who_it_is(path: Path) -> None:
    first, second = RunLock(path), RunLock(path)
    first.acquire()
    first.path.write_bytes(b"\xff\xfe\x1b[31m")
    with pytest.raises(LedgerBusy, match=r"^another batchrunner holds "):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_that_is_a_symlink(path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    RunLock(path).path.symlink_to(tmp_path / "precious")
    with pytest.raises(LedgerUnusable, match=r"can't open .*lock"):
        RunLock(path).acquire()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_filesystem_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LedgerUnusable, match=r"can't lock .*Operation not supported"):
        RunLock(path).acquire()


# --- Files -----------------------------------------------------------------------------------------------

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//nas/media /mnt/with\\040space cifs rw 0 0
tmpfs /tmp tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc", "ext4"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/homely", "ext4"),
        ("/home/local/x", "xfs"),
        ("/mnt/with space/x", "cifs"),
    ],
)
def test_filesystem_type(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert filesystem_type(Path(path), str(mounts)) == kind


def test_filesystem_type_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert filesystem_type(tmp_path, str(tmp_path / "none")) == ""
    assert filesystem_type(tmp_path) != ""


def test_create_private_keeps_what_is_there(path: Path) -> None:
    path.write_text("x")
    create_private(path)
    assert path.read_text() == "x"
    assert check_file(path) is True
