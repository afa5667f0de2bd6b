"""`doctor`: each check, and the exit code that follows."""

from __future__ import annotations

import asyncio
import os
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchrunner.core.job import State
from batchrunner.doctor import Check, Level, exit_code
from batchrunner.doctor.account import clock_check
from batchrunner.doctor.machine import open_files_check, sqlite_check
from batchrunner.engine.spool import Spool, Spooled
from batchrunner.environment import THIS_MACHINE
from batchrunner.ledger.files import RunLock
from tests.cli_support import Ran, call, make_ledger
from tests.support import FakeClock, open_ledger, path_to, spec

SECRET = "rk_live_do_not_show_this"


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("BATCHRUNNER_DB", "REAPI_API_KEY", "REAPI_KEY", "REAPI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "batchrunner.db"


def level(ran: Ran, name: str) -> str:
    found = [c["level"] for c in ran.json["checks"] if c["check"] == name]
    assert found, [c["check"] for c in ran.json["checks"]]
    return str(found[0])


def text(ran: Ran, name: str) -> str:
    return next(str(c["text"]) for c in ran.json["checks"] if c["check"] == name)


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ((3, 36, 0), Level.FAIL),
        ((3, 40, 1), Level.WARN),
        ((3, 44, 6), Level.OK),
        ((3, 50, 7), Level.OK),
        ((3, 51, 2), Level.WARN),
        ((3, 51, 3), Level.OK),
    ],
)
def test_sqlite_versions(version: tuple[int, ...], found: Level) -> None:
    assert sqlite_check(version).level is found


def test_open_files() -> None:
    assert [open_files_check(n).level for n in (None, 1024, 100)] == [Level.OK, Level.OK, Level.WARN]


@pytest.mark.parametrize(
    ("off", "found", "said"),
    [
        (0, Level.OK, "within"),
        (50, Level.OK, "within"),
        (90, Level.WARN, "90 s ahead of"),
        (-90, Level.WARN, "90 s behind"),
    ],
)
def test_the_clock_is_compared(off: int, found: Level, said: str) -> None:
    check = clock_check(formatdate(1_800_000_000, usegmt=True), 1_800_000_000 + off)
    assert check.level is found
    assert said in check.text


@pytest.mark.parametrize("date", [None, "", "yesterday", "Xxx, 99 Foo 2026 99:99:99 GMT"])
def test_a_date_that_says_nothing(date: str | None) -> None:
    assert clock_check(date, 0.0).level is Level.OK


def test_exit_codes() -> None:
    fine, bad = Check("a", Level.WARN, ""), Check("b", Level.FAIL, "")
    refused = Check("c", Level.FAIL, "", refused=True)
    assert [exit_code(c) for c in ([fine], [fine, bad], [bad, refused])] == [0, 1, 6]


def test_without_key_and_ledger_all_is_well(db: Path) -> None:
    ran = call("doctor", "--json")
    assert ran.code == 0
    assert ran.json["ok"] is True
    assert level(ran, "key") == "warn"
    assert "none at" in text(ran, "ledger")
    assert all(set(c) == {"check", "level", "text", "fix"} for c in ran.json["checks"])
    assert list(db.parent.iterdir()) == []
    assert "export REAPI_API_KEY" in call("doctor").out


def test_a_sound_ledger(db: Path) -> None:
    make_ledger(db, [(spec(), ())], output_dir=str(db.parent / "outputs" / "night"))
    ran = call("doctor", "--json")
    assert [level(ran, n) for n in ("ledger", "lock", "output folder")] == ["ok", "ok", "ok"]
    assert "sound, 1 batch" in text(ran, "ledger")
    assert text(ran, "lock") in ("free", "not held, as far as can be seen")
    lock = RunLock(db)
    lock.acquire()
    try:
        held = text(call("doctor", "--json"), "lock")
    finally:
        lock.release()
    assert held in (f"a run is alive (process {os.getpid()})", "not held, as far as can be seen")


@pytest.mark.parametrize(
    ("command", "found", "said"),
    [
        ("./publish.sh --to 'my frames'", Level.OK, "./publish.sh (BATCHRUNNER_UPLOAD; it is not run here)"),
        ("sh", Level.OK, "/sh (BATCHRUNNER_UPLOAD"),
        ("./plain.sh", Level.FAIL, "./plain.sh is not executable"),
        ("./nowhere.sh", Level.FAIL, "./nowhere.sh does not exist in /"),
        ("no-such-program-anywhere", Level.FAIL, "is not found on the PATH"),
        (".", Level.FAIL, "is not found on the PATH"),
        ("./", Level.FAIL, "is a folder"),
        ("'", Level.FAIL, "BATCHRUNNER_UPLOAD is no command line"),
    ],
)
def test_the_upload_command_is_looked_at_and_not_run(
    command: str, found: Level, said: str, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, mode in (("publish.sh", 0o755), ("plain.sh", 0o644)):
        path = db.with_name(name)
        path.write_text("#!/bin/sh\ntouch was-run\n")
        path.chmod(mode)
    monkeypatch.setenv("BATCHRUNNER_UPLOAD", command)
    ran = call("doctor", "--offline", "--json")
    assert (ran.code, level(ran, "upload")) == (int(found is Level.FAIL), found)
    assert said in text(ran, "upload")
    assert not db.with_name("was-run").exists()


def test_others_can_read_it(db: Path) -> None:
    make_ledger(db, [(spec(), ())])
    db.chmod(0o644)
    assert level(call("doctor", "--json"), "ledger") == "warn"


def test_a_file_that_is_no_ledger_fails(db: Path) -> None:
    db.write_bytes(b"no database at all, and long enough to tell" * 99)
    ran = call("doctor", "--json")
    assert (ran.code, level(ran, "ledger")) == (1, "fail")


def test_a_damaged_ledger_fails(db: Path) -> None:
    make_ledger(db, [(spec(f"s{n}"), path_to(State.RUNNING, f"task_{n}")) for n in range(200)])
    data = bytearray(db.read_bytes())
    for page in range(20, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    db.write_bytes(data)
    ran = call("doctor", "--json")
    assert (ran.code, level(ran, "ledger")) == (1, "fail")


def test_ids_in_the_spool_are_told(db: Path) -> None:
    make_ledger(db, [(spec(), path_to(State.SUBMITTING))])
    spool = Spool(db)
    spool.append(Spooled(1, 1, "task_1"))
    spool.close()
    assert level(call("doctor", "--json"), "spool") == "warn"


def test_a_folder_that_is_not_there_fails(db: Path) -> None:
    ran = call("doctor", "--json", "--db", db.parent / "no" / "x.db")
    assert (ran.code, level(ran, "ledger folder")) == (1, "fail")


def test_a_full_disk(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, found in ((1 << 40, "ok"), (1 << 29, "warn"), (1 << 20, "fail")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, n=free: SimpleNamespace(free=n))
        ran = call("doctor", "--json")
        assert level(ran, "ledger folder") == found
        assert ran.code == (found == "fail")


def test_a_network_filesystem_fails(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrunner.doctor.ledger.filesystem_type", lambda _: "nfs4")
    ran = call("doctor", "--json")
    assert (ran.code, level(ran, "filesystem")) == (1, "fail")


@pytest.mark.parametrize("name", ["REAPI_API_KEY", "REAPI_KEY"])
def test_the_key_is_never_shown(name: str, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("REAPI_BASE_URL", "http://127.0.0.1:9")
    for arguments in (["--json"], []):
        ran = call("doctor", *arguments)
        assert ran.code == 6
        assert SECRET not in ran.out + ran.err
        assert f"set in {name}" in ran.out
    offline = call("doctor", "--json", "--offline")
    assert offline.code == 0
    assert "balance" not in [c["check"] for c in offline.json["checks"]]


@pytest.mark.parametrize(
    ("key", "base"),
    [("two words", None), ("rk_a", "http://example.com"), ("rk_a", "nonsense"), (None, "http://example.com")],
)
def test_a_key_or_server_that_can_not_be_used_fails(
    key: str | None, base: str | None, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("REAPI_API_KEY", key)
    if base is not None:
        monkeypatch.setenv("REAPI_BASE_URL", base)
    ran = call("doctor", "--json")
    assert ran.code == 1
    assert "fail" in [c["level"] for c in ran.json["checks"] if c["check"] in ("server", "key and server")]


def test_a_ledger_of_another_server_fails(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bind() -> None:
        async with open_ledger(db, FakeClock()) as ledger:
            await ledger.bind_origin("reapi", THIS_MACHINE)

    asyncio.run(bind())
    monkeypatch.setenv("REAPI_API_KEY", SECRET)
    ran = call("doctor", "--json", "--offline")
    assert (ran.code, level(ran, "server")) == (1, "fail")
    monkeypatch.setenv("REAPI_BASE_URL", "http://localhost:8000")
    assert level(call("doctor", "--json", "--offline"), "server") == "ok"
