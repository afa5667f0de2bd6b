"""What a network and a server may do, through the real command line: state, kind, money, POSTs and exit code.

The cases stand in the tables of `tests/network`; `docs/network.md` is drawn from them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from docs.make_network import PAGE, page
from tests.cli_support import Ended, run_json
from tests.crash.checks import Books
from tests.network import GROUPS
from tests.network.impatient import GATE, PATIENCE
from tests.network.stage import CREDITS, KEY, Part, Stage, manifest
from tests.network.storms import KNOCKS, STORMS, Knock, Storm
from tests.network.table import Case, Group
from tests.raw_server import Peer, RawServer, http

ROOT = Path(__file__).resolve().parents[2]
RUNS = [pytest.param(g, cases, id=f"{g.title}, {n + 1}") for g in GROUPS for n, cases in enumerate(g.runs())]


def _books(folder: Path) -> Books:
    return Books(folder / "batchrunner.db", folder / "copy")


async def _run(
    folder: Path,
    stage: Stage,
    *arguments: str,
    patience: Mapping[str, float] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """`run night.yaml`; whatever comes of it, it is no traceback, and the key stands nowhere."""
    module, more = "batchrunner", dict(environment or {})
    if patience is not None:
        module = "tests.network.impatient"
        more |= {PATIENCE: json.dumps(patience), "PYTHONPATH": str(ROOT)}
    ended = await run_json(
        folder, "run", "night.yaml", *arguments, module=module, environment={**stage.environment, **more}
    )
    assert "Traceback" not in ended.err
    assert KEY not in ended.err + str(ended.events)
    assert not [p for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    return ended


@pytest.mark.parametrize(("group", "cases"), RUNS)
async def test_every_case_ends_as_the_tables_say(tmp_path: Path, group: Group, cases: Sequence[Case]) -> None:
    (tmp_path / "night.yaml").write_text(manifest([case.shot for case in cases], more=group.more))
    async with Stage({case.label: case.part for case in cases}, together=True) as stage:
        ended = await _run(tmp_path, stage, *group.arguments, patience=group.patience)
        books = _books(tmp_path)
        wrong = [w for case in cases for w in _wrong(group, case, books, stage, ended)]
        assert wrong == [], ended.err
        assert ended.code == group.verdict.exit, ended.err
        _check_sums(books)
        if group.hold is not None:
            _check_hold(tmp_path, ended, group.hold)
        if group.again is not None:
            sent = stage.all_posts()
            again = await _run(tmp_path, stage, *group.arguments, patience=group.patience)
            assert again.code == group.again, again.err
            assert stage.all_posts() == sent, "a second run sends nothing again"
        assert stage.strange == []


def _wrong(group: Group, case: Case, books: Books, stage: Stage, ended: Ended) -> list[str]:
    """What differs from the table, in words."""
    job = next(j for j in books.jobs if j["key"] == case.label)
    verdict = group.verdict
    found: dict[str, tuple[Any, Any]] = {
        "state": (job["state"], verdict.state),
        "kind": (job["error_kind"], verdict.kind),
        "money": (tuple(a["money"] for a in books.of(job)), verdict.money),
        "POSTs": (stage.posts(case.label), len(verdict.money)),
        "files": (_files(books, job), 2 if verdict.state == "succeeded" else 0),
    }
    if group.polls is not None:
        found["polls"] = (stage.calls[case.label, "poll"], group.polls)
    wrong = [f"{case.what}: {name} {is_!r}, not {should!r}" for name, (is_, should) in found.items() if is_ != should]
    told = [e["error"]["code"] for e in ended.events if e["event"].endswith("_failed") and e["job"] == case.label]
    if case.seen and str(told[0] if told else None) not in case.seen:
        wrong.append(f"{case.what}: reported {told}, not {case.seen}")
    if job["error_code"] not in case.codes:
        wrong.append(f"{case.what}: code {job['error_code']!r}, not {case.code!r}: {job['error_message']}")
    return wrong


def _files(books: Books, job: dict[str, Any]) -> int:
    """Files of a job, under whatever name: the output and its sidecar."""
    return len([p for p in Path(books.batches[0]["output_dir"]).glob(f"{job['key']}.*") if p.is_file()])


def _check_sums(books: Books) -> None:
    """The batch's sums are those of its submissions, each of which costs the same."""
    (batch,) = books.batches
    money = [a["money"] for a in books.attempts]
    for column in ("spent", "reserved", "at_risk"):
        assert batch[column] == money.count(column) * CREDITS, column


def _check_hold(folder: Path, ended: Ended, seconds: float) -> None:
    """A 429 holds every call for so long, and the ledger tells the next run."""
    (held,) = ended.told("hold")
    assert held["seconds"] == seconds
    with contextlib.closing(sqlite3.connect(folder / "copy" / "copy.db")) as ledger:
        (until,) = ledger.execute("SELECT hold_until FROM account").fetchone()
    assert until == pytest.approx(held["ts"] + seconds, abs=5.0)


# --- A whole run ------------------------------------------------------------------------------------------

MONEY = {
    "succeeded": "spent",
    "unconfirmed": "at_risk",
    "failed": "none",
    "running": "reserved",
    "pending": "none",
}
"""What the last submission of a job has done to the account, by the job's state."""


@pytest.mark.parametrize("storm", STORMS, ids=[storm.what for storm in STORMS])
async def test_a_storm(tmp_path: Path, storm: Storm) -> None:
    (tmp_path / "night.yaml").write_text(manifest(storm.shots, in_flight=storm.in_flight))
    parts = dict(zip(storm.labels, storm.parts, strict=True))
    async with Stage(parts, together=False) as stage:
        async with _door(storm.door, stage) as url:
            there = {"REAPI_BASE_URL": url}
            ended = await _run(tmp_path, stage, *storm.arguments, patience=storm.patience, environment=there)
        books = _books(tmp_path)
        assert books.states() == storm.states, ended.err
        assert ended.code == storm.exit, ended.err
        assert ended.events[-1]["stop"] == storm.stop
        if storm.code is not None:
            assert {j["error_code"] for j in books.jobs if j["error_kind"]} == {storm.code}
        assert sum(stage.all_posts().values()) == storm.posts
        assert stage.strange == []
        _check_sums(books)
        for job in books.jobs:
            attempts = books.of(job)
            assert stage.posts(job["key"]) <= len(attempts)
            assert {a["money"] for a in attempts[:-1]} <= {"none"}
            assert [a["money"] for a in attempts[-1:]] in ([MONEY[job["state"]]], []), job["key"]
            assert _files(books, job) == (2 if job["state"] == "succeeded" else 0)


@contextlib.asynccontextmanager
async def _door(door: str, stage: Stage) -> AsyncIterator[str]:
    """Where the command line is sent."""
    if door == "closed":
        with socket.socket() as bound:  # and not listening: the port is nobody else's, and refuses
            bound.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    elif door == "tls":

        async def no_tls(peer: Peer) -> None:
            await peer.reader.read(1)
            await peer.send(http(400, "<html>The plain HTTP request was sent to HTTPS port</html>"))

        async with RawServer(no_tls) as server:
            yield server.url.replace("http:", "https:")
    else:
        yield stage.environment["REAPI_BASE_URL"]


@pytest.mark.parametrize("knock", KNOCKS, ids=[knock.what for knock in KNOCKS])
async def test_a_request_that_is_not_read_to_its_end(tmp_path: Path, knock: Knock) -> None:
    (tmp_path / "night.yaml").write_text(manifest(["clip"]))
    gate = tmp_path / "gate"

    async def first(peer: Peer) -> None:
        if knock.read < 0:
            head = await peer.head()
            assert head is not None
            await peer.reader.readexactly(int(head.headers["content-length"]) - 1)
        else:
            await peer.reader.readexactly(knock.read)
        if knock.end == "speak":
            await peer.send(http(200, {"id": "task_that_nobody_asked_for"}))
        elif knock.end == "reset":
            peer.reset()
        else:
            peer.writer.close()
        if knock.end != "speak":
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()
        gate.touch()
        if knock.end == "speak":
            await peer.until_gone()

    gated: dict[str, Any] = {"patience": {}, "environment": {GATE: str(gate)}} if knock.read == 0 else {}
    async with Stage({"clip-1": Part()}, together=False, first=first) as stage:
        for _ in range(2):
            ended = await _run(tmp_path, stage, **gated)
            books = _books(tmp_path)
            (job,) = books.jobs
            assert (job["state"], ended.code) == (knock.state, knock.exit), ended.err
            *before, last = (a["money"] for a in books.attempts)
            assert last == knock.money
            assert set(before) <= {"none"}  # where the connection was seen to be dead even before the intent: none
            assert stage.posts("clip-1") == (1 if knock.state == "succeeded" else 0)
            assert stage.connections == 1 or knock.state == "succeeded", "nothing else is sent"
            assert stage.strange == []
            _check_sums(books)


def test_the_table_of_the_documentation_is_that_of_the_tests() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m docs.make_network"
