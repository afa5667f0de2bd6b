"""The last resort for a received task id: no intact record is lost, no torn one is read."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.engine.spool import SIZE, Spool, Spooled, read

ONE, TWO, THREE = Spooled(1, 1, "task_1"), Spooled(2, 3, "task-2.x"), Spooled(99, 1, "t" * 128)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "batchrunner.db"


@pytest.fixture
def spool(ledger: Path) -> Iterator[Spool]:
    made = Spool(ledger)
    yield made
    made.close()


def reopened(ledger: Path) -> list[Spooled]:
    """What the next run finds."""
    again = Spool(ledger)
    again.close()
    return again.found


def path_of(ledger: Path) -> Path:
    return ledger.with_name("batchrunner.db.spool")


def test_preallocated_beside_the_ledger(spool: Spool, ledger: Path) -> None:
    assert spool.path == path_of(ledger)
    assert spool.path.read_bytes() == b"\0" * SIZE
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert spool.path.stat().st_blocks * 512 >= SIZE  # written, not a hole
    assert spool.found == []


def test_round_trip(spool: Spool, ledger: Path) -> None:
    for record in (ONE, TWO, THREE):
        spool.append(record)
        assert reopened(ledger)[-1] == record
    assert reopened(ledger) == [ONE, TWO, THREE]
    assert path_of(ledger).stat().st_size == SIZE


def test_a_record_is_durable_when_append_returns(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write comes after the last sync, neither when a record is added nor when they are forgotten."""
    calls: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        return call

    for name in ("pwrite", "fsync", "fdatasync"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    spool.append(ONE)
    assert calls[0] == "pwrite"
    assert calls[-1] in {"fsync", "fdatasync"}
    calls.clear()
    spool.clear()
    assert calls[0] == "pwrite"
    assert calls[-1] in {"fsync", "fdatasync"}


def test_the_next_run_adds_to_what_is_there(spool: Spool, ledger: Path) -> None:
    spool.append(ONE)
    second = Spool(ledger)
    assert second.found == [ONE]
    second.append(TWO)
    second.close()
    assert reopened(ledger) == [ONE, TWO]


def test_clear(spool: Spool, ledger: Path) -> None:
    spool.clear()
    spool.append(ONE)
    spool.clear()
    assert path_of(ledger).read_bytes() == b"\0" * SIZE
    spool.append(TWO)
    assert reopened(ledger) == [TWO]


def test_clear_after_finding(ledger: Path, spool: Spool) -> None:
    spool.append(ONE)
    second = Spool(ledger)
    second.clear()
    assert second.found == []
    second.close()
    assert reopened(ledger) == []


def test_torn_at_every_byte(ledger: Path, spool: Spool) -> None:
    """A crash while a record is written leaves a part of it; the next run's record must not be read as its tail."""
    spool.append(ONE)
    end = len(path_of(ledger).read_bytes().rstrip(b"\0"))
    spool.append(TWO)
    whole = path_of(ledger).read_bytes()
    full = len(whole.rstrip(b"\0"))
    for cut in range(end, full + 1):
        path_of(ledger).write_bytes(whole[:cut] + b"\0" * (SIZE - cut))
        after = Spool(ledger)
        # without its last newline the record is whole all the same
        assert after.found == ([ONE, TWO] if cut >= full - 1 else [ONE])
        after.append(THREE)
        after.close()
        assert reopened(ledger)[-1] == THREE, cut
        assert reopened(ledger)[0] == ONE


def test_a_torn_first_record(ledger: Path) -> None:
    path_of(ledger).write_bytes(b'0badf00d [1, 1, "tas' + b"\0" * (SIZE - 20))
    first = Spool(ledger)
    assert first.found == []
    first.append(ONE)
    first.close()
    assert reopened(ledger) == [ONE]


def test_a_flipped_bit(ledger: Path, spool: Spool) -> None:
    spool.append(ONE)
    spool.append(TWO)
    whole = path_of(ledger).read_bytes()
    end = len(whole.rstrip(b"\0"))
    for position in range(end):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        found = read(bytes(damaged))
        assert set(found) <= {ONE, TWO}, position
        assert len(found) >= 1, position


def test_more_than_fits_in_what_was_preallocated(ledger: Path, spool: Spool) -> None:
    records = [Spooled(n, 1, f"task_{n}_" + "x" * 100) for n in range(700)]
    for record in records:
        spool.append(record)
    assert path_of(ledger).stat().st_size > SIZE
    assert reopened(ledger) == records


def test_a_shorter_file_is_filled_up(ledger: Path) -> None:
    path_of(ledger).write_bytes(b"garbage\n")
    assert reopened(ledger) == []
    assert path_of(ledger).stat().st_size == SIZE


def test_a_symlink_is_refused(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    path_of(ledger).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        Spool(ledger)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_disk_that_takes_only_a_part(ledger: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is not a durable record."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:5], offset))
    with pytest.raises(OSError, match="No space left") as raised:
        spool.append(ONE)
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    spool.append(TWO)
    assert reopened(ledger) == [TWO]


def test_a_disk_without_room_for_the_spool(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 100)
    with pytest.raises(OSError, match="No space left"):
        Spool(ledger)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def line(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


@pytest.mark.parametrize(
    "value", [5, None, "x", [], [1, 2], [1, 2, 3, 4], {}, ["a", 1, "t"], [1, None, "t"], [[1], 1, "t"]]
)
def test_a_line_of_another_shape(value: object) -> None:
    assert read(line(value) + line([7, 1, "t"])) == [Spooled(7, 1, "t")]


@given(st.binary(max_size=400))
def test_garbage(data: bytes) -> None:
    assert read(data) == []


records = st.builds(
    Spooled, st.integers(1, 2**40), st.integers(1, 99), st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
)


@given(st.lists(records, max_size=6), st.binary(max_size=30))
def test_intact_records_before_garbage_are_found(found: list[Spooled], garbage: bytes) -> None:
    data = b"".join(b"\n" + line([r.job_id, r.attempt, r.task_id]) for r in found)
    assert read(data + garbage + b"\0" * 50) == found
