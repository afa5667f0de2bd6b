"""A flipped bit, anywhere in what a ledger consists of, is detected or harmless.

Detected: the run refuses, names the ledger, and has sent nothing. Harmless: the run does what it would have done, and
no state, task id, price or sum of the ledger is another one afterwards. Words for people, times, and what was once
asked of a job that has ended may be damaged unseen; `doctor` sees the last of these.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.engine.spool import Spool, Spooled
from batchrunner.ledger import wal
from tests.cli_support import make_ledger
from tests.support import FakeClock, drive, open_ledger, path_to, spec, with_jobs
from tests.system.player import Ended, Order, Play

SHARDS = 5
FLIPS = 200
"""In each shard: a thousand in all."""

EXACT = (
    "SELECT id, batch_id, key, revision, fingerprint, current, credits, state, attempt, task_id FROM job",
    "SELECT job_id, number, batch_id, iif(money = 'none', 0, credits), money, task_id FROM attempt",
    "SELECT id, name, provider, max_credits, reserved, spent, at_risk FROM batch",
)
Books = list[list[tuple[object, ...]]]


def books_of(db: Path) -> Books:
    """What must stay exact."""
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        return [connection.execute(f"{sql} ORDER BY 1, 2").fetchall() for sql in EXACT]


def resume(play: Play, folder: Path) -> Ended:
    """A run of the ledger alone, with a provider that counts POSTs and knows no task."""
    return play(
        Order(str(folder), environment={"REAPI_API_KEY": "rk_x", "REAPI_BASE_URL": "http://127.0.0.1:9"}, stub=True)
    )


def checkpoint(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("INSERT INTO account VALUES ('reapi', 'a server on this machine', 0)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Sample:
    """A ledger's files, and what a run makes of them where nothing is damaged."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.files = {name: (folder / name).read_bytes() for name in names}
        self.before: Books = []
        self.after: Books = []

    def put(self, folder: Path, name: str = "", place: int = 0, bit: int = 0) -> Path:
        """A copy in a new folder, with one bit flipped."""
        folder.mkdir()
        for each, data in self.files.items():
            copy = bytearray(data)
            if each == name:
                copy[place] ^= 1 << bit
            (folder / each).write_bytes(copy)
        return folder / "night.db"

    def learn(self, play: Play, folder: Path) -> Sample:
        db = self.put(folder)
        self.before = books_of(db)
        ended = resume(play, folder)
        assert (ended.posts, ended.stop) == (0, None), ended
        self.after = books_of(db)
        return self

    def judge(self, ended: Ended, db: Path, told: str) -> str:
        """`detected`, or `harmless`."""
        assert ended.posts == 0, told
        assert "Traceback" not in ended.message, told
        if ended.code == 2:
            assert str(db) in ended.message or "ledger" in ended.message, told
            return "detected"
        after = books_of(db)
        if ended.stop == "ledger":  # found under way: what was recorded until then is true
            for rows, before, expected in zip(after[:2], self.before[:2], self.after[:2], strict=True):
                assert set(rows) <= {*before, *expected}, told
            return "detected"
        assert after == self.after, told
        return "harmless"


@pytest.fixture(scope="module")
def resting(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A ledger in which nothing is pending: a POST from it is wrong, whatever a flipped bit says."""
    folder = tmp_path_factory.mktemp("sample")
    jobs: list[tuple[object, tuple[e.Event, ...]]] = []
    for number in range(6):
        for state in State:
            if state is not State.PENDING:
                name = f"{state.value}-{number}"
                jobs.append((spec(name), path_to(state, f"task_{name}")))
    for number in range(3):
        again = (*path_to(State.FAILED), e.Retried("me", "again"), *path_to(State.RUNNING, f"task_again-{number}"))
        jobs.append((spec(f"again-{number}"), again))
    make_ledger(folder / "night.db", jobs, output_dir=str(folder / "out"), max_credits=1_000_000)  # type: ignore[arg-type]
    checkpoint(folder / "night.db")
    return Sample(folder, ("night.db",)).learn(play, folder / "whole")


@pytest.fixture(scope="module")
def killed(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """What `kill -9` leaves: the database knows of nothing that was sent, the log of everything."""
    folder = tmp_path_factory.mktemp("killed")
    db, names = folder / "night.db", ("night.db", "night.db-wal", "night.db-shm")
    specs = [spec(f"{state.value}-{n}") for n in range(4) for state in State if state is not State.PENDING]
    make_ledger(db, [(one, ()) for one in specs], output_dir=str(folder / "out"))
    checkpoint(db)

    async def live() -> Sample:
        async with open_ledger(db, FakeClock()) as ledger:
            for job in await with_jobs(ledger, specs, output_dir=str(folder / "out")):
                await drive(ledger, job, *path_to(State(job.key.split("-")[0]), f"task_{job.key}"))
            return Sample(folder, names)

    return asyncio.run(live()).learn(play, folder / "whole")


def flips(seed: str, count: int, size: int, first: int = 0) -> Iterator[tuple[int, int]]:
    dice = random.Random(seed)
    for _ in range(count):
        yield dice.randrange(first, size), dice.randrange(8)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_in_the_database(
    play: Play, resting: Sample, tmp_path: Path, shard: int, record_property: Callable[[str, object], None]
) -> None:
    counted: Counter[str] = Counter()
    for turn, (place, bit) in enumerate(flips(f"flips {shard}", FLIPS, len(resting.files["night.db"]))):
        folder = tmp_path / str(turn)
        db = resting.put(folder, "night.db", place, bit)
        ended = resume(play, folder)
        counted[resting.judge(ended, db, f"byte {place}, bit {bit}: {ended}")] += 1
        shutil.rmtree(folder)
    for word, count in counted.items():
        record_property(word, count)
    print(dict(counted))
    assert counted["detected"] > FLIPS // 50


@pytest.mark.slow
def test_in_the_log_of_a_dead_run(play: Play, killed: Sample, tmp_path: Path) -> None:
    """All of it was committed, and SQLite would drop it without a word: every flip must be seen."""
    for turn, (place, bit) in enumerate(flips("log", 300, len(killed.files["night.db-wal"]))):
        folder = tmp_path / str(turn)
        db = killed.put(folder, "night.db-wal", place, bit)
        assert wal.find(db) is not None, f"byte {place}, bit {bit}"
        if turn % 6 == 0:
            ended = resume(play, folder)
            told = f"byte {place}, bit {bit}: {ended}"
            assert killed.judge(ended, db, told) == "detected", told
            assert "night.db-wal" in ended.message, told
            assert (folder / "night.db-wal").stat().st_size == len(killed.files["night.db-wal"]), "it is kept"
        shutil.rmtree(folder)


def commits(log: bytes) -> list[int]:
    """Where each commit of a log ends."""
    page = struct.unpack_from(">I", log, 8)[0]
    ends = range(32 + 24 + page, len(log) + 1, 24 + page)
    return [end for end in ends if struct.unpack_from(">I", log, end - page - 20)[0]]


def test_in_a_log_whose_index_is_lost(killed: Sample, tmp_path: Path) -> None:
    """After a power cut: another commit behind the next one tells of it. The last two may be what the cut has torn."""
    log = killed.files["night.db-wal"]
    ends = commits(log)
    assert len(ends) > 10
    for turn, (place, bit) in enumerate(flips("lost", 100, ends[-3])):
        db = killed.put(tmp_path / str(turn), "night.db-wal", place, bit)
        Path(f"{db}-shm").unlink()
        assert wal.find(db) is not None, f"byte {place}, bit {bit}"


def test_a_log_that_a_power_cut_has_torn_is_no_damage(killed: Sample, tmp_path: Path) -> None:
    """Cut off anywhere, or the last commit there in part only."""
    log = killed.files["night.db-wal"]
    ends = commits(log)
    torn = [log[:place] for place, _ in flips("torn", 60, len(log))]
    dice = random.Random("torn in part")
    for number in range(1, len(ends)):
        start, end = ends[number - 1], ends[number]
        lost = dice.randrange(start, end) & ~511
        torn.append(log[:lost] + bytes(min(512, end - lost)) + log[lost + 512 : end])
    for turn, data in enumerate(torn):
        db = killed.put(tmp_path / str(turn))
        Path(f"{db}-wal").write_bytes(data)
        Path(f"{db}-shm").unlink()
        assert wal.find(db) is None, turn


def test_a_log_that_was_cut_short_is_damage_while_its_index_is_there(killed: Sample, tmp_path: Path) -> None:
    db = killed.put(tmp_path / "short")
    log = killed.files["night.db-wal"]
    Path(f"{db}-wal").write_bytes(log[: commits(log)[-2]])

    assert wal.find(db) is not None


def test_in_the_index_of_the_log(play: Play, killed: Sample, tmp_path: Path) -> None:
    """SQLite makes it anew, and a damaged one is no witness."""
    for turn, (place, bit) in enumerate(flips("index", 60, 136)):
        folder = tmp_path / str(turn)
        db = killed.put(folder, "night.db-shm", place, bit)
        ended = resume(play, folder)
        told = f"byte {place}, bit {bit}: {ended}"
        assert killed.judge(ended, db, told) == "harmless", told
        shutil.rmtree(folder)


# --- The spool ---------------------------------------------------------------------------------------------

WAITING = 3


@pytest.fixture(scope="module")
def spooled(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Three ids that the ledger could not take."""
    folder = tmp_path_factory.mktemp("spooled")
    db = folder / "night.db"
    make_ledger(db, [(spec(f"s{n}"), (e.Claimed(),)) for n in range(WAITING)], output_dir=str(folder / "out"))
    checkpoint(db)
    spool = Spool(db)
    for number in range(WAITING):
        spool.append(Spooled(number + 1, 1, f"task_of_s{number}"))
    spool.close()
    return Sample(folder, ("night.db", "night.db.spool")).learn(play, folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["records", "anywhere"])
def test_in_the_spool(play: Play, spooled: Sample, tmp_path: Path, where: str) -> None:
    """Each id is recorded, or its job is in doubt and shows what is left of the note. Never another id, or a POST."""
    data = spooled.files["night.db.spool"]
    size = len(data.rstrip(b"\0")) if where == "records" else len(data)
    counted: Counter[str] = Counter()
    for turn, (place, bit) in enumerate(flips(f"spool {where}", 150, size)):
        folder = tmp_path / str(turn)
        db = spooled.put(folder, "night.db.spool", place, bit)
        ended = resume(play, folder)
        told = f"byte {place}, bit {bit}: {ended}"
        assert ended.posts == 0, told
        with closing(sqlite3.connect(db)) as connection:
            rows = connection.execute(
                "SELECT j.key, j.state, j.error_message, a.task_id FROM job j JOIN attempt a ON a.job_id = j.id"
            ).fetchall()
        doubtful = [row for row in rows if row[1] == "unconfirmed"]
        for key, _, message, task_id in rows:
            assert task_id in {None, f"task_of_{key.split('-')[0]}"}, told
            assert (task_id is None) == (message is not None and "stopped between" in message), told
        assert len(doubtful) == sum(row[3] is None for row in rows) <= 1, told
        assert ended.code == (3 if doubtful else 1), told
        for _, _, message, _ in doubtful:
            assert "a damaged note says: " in message, told
            counted["in doubt"] += 1
        counted["all known"] += not doubtful
        assert (folder / "night.db.spool").read_bytes().strip(b"\0") == b"", "all of it is in the ledger"
        shutil.rmtree(folder)
    print(dict(counted))
    if where == "records":
        assert counted["in doubt"] > 100
