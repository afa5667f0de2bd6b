"""The socket beside the ledger, over real sockets: whose it is, what it bears, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.words import Cancel
from batchrunner.exits import UsageError
from batchrunner.ledger.files import RunLock
from batchrunner.remote import client, server
from batchrunner.remote.client import NoRun, ask
from batchrunner.remote.place import Peer, place_of, socket_name
from batchrunner.remote.protocol import MAX_LINE, Look, Pause, Request, answer, refusal
from batchrunner.remote.server import Server


class Desk:
    """Answers with what it was asked; `Cancel` with a long list, when it is let."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Peer]] = []
        self.let = asyncio.Event()
        self.came = asyncio.Event()

    async def __call__(self, request: Request, peer: Peer) -> bytes:
        self.asked.append((request, peer))
        self.came.set()
        if isinstance(request, Cancel):
            await self.let.wait()
            return answer(cancelled=["x" * 1000] * 3000)
        return refusal("no") if isinstance(request, Pause) else answer(asked=str(request))


@asynccontextmanager
async def listening(ledger: Path, desk: Desk | None = None) -> AsyncIterator[Desk]:
    desk = desk or Desk()
    opened = Server(ledger, desk)
    assert await opened.open() is None
    try:
        yield desk
    finally:
        await opened.close()


async def asked(ledger: Path, request: Request) -> dict[str, Any]:
    return await asyncio.to_thread(ask, ledger, request)


async def raw(ledger: Path, data: bytes, *, end: bool = True) -> dict[str, Any]:
    """Send these bytes, and read the answer."""
    with place_of(ledger) as where:
        reader, writer = await asyncio.open_unix_connection(where.address)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        found: dict[str, Any] = json.loads(await reader.read())
        return found
    finally:
        writer.close()


async def test_a_question_and_its_answer(tmp_path: Path) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        mode = os.lstat(tmp_path / "batchrunner.db.sock").st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert (await asked(ledger, Look()))["asked"] == "Look()"
        assert desk.asked == [(Look(), Peer(os.getpid(), os.geteuid()))]
        with pytest.raises(UsageError, match=r"^no$"):
            await asked(ledger, Pause())
    assert not list(tmp_path.iterdir())
    with pytest.raises(NoRun):
        await asked(ledger, Look())


@pytest.mark.parametrize("name", ["a.db", "n" * 200 + ".db", "ночь" * 12 + ".db"])
async def test_neither_a_deep_folder_nor_a_long_name_is_too_long(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    async with listening(folder / name):
        assert (folder / socket_name(folder / name)).is_socket()
        assert (await asked(folder / name, Look()))["ok"] is True
        with pytest.raises(NoRun):
            await asked(folder / f"other{name}", Look())
    assert not list(folder.iterdir())


async def test_a_dead_runs_socket_is_replaced(tmp_path: Path) -> None:
    ledger = tmp_path / "batchrunner.db"
    ledger.touch()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{ledger}.sock")
    with pytest.raises(NoRun, match="no run is alive"):
        await asked(ledger, Look())
    async with listening(ledger):
        assert (await asked(ledger, Look()))["ok"] is True


async def test_while_another_command_holds_the_ledger_that_is_said(tmp_path: Path) -> None:
    ledger = tmp_path / "batchrunner.db"
    ledger.touch()
    lock = RunLock(ledger)
    lock.acquire()
    try:
        with pytest.raises(NoRun, match="takes no requests"):
            await asked(ledger, Look())
    finally:
        lock.release()


@pytest.mark.parametrize("what", ["file", "symlink", "folder"])
async def test_what_is_no_socket_is_left_alone(tmp_path: Path, what: str) -> None:
    ledger = tmp_path / "batchrunner.db"
    there = tmp_path / "batchrunner.db.sock"
    elsewhere = tmp_path / "elsewhere"
    match what:
        case "file":
            there.write_text("mine")
        case "symlink":
            there.symlink_to(elsewhere)
        case _:
            there.mkdir()
    desk = Desk()
    why = await Server(ledger, desk).open()
    assert why is not None
    assert "in the way" in why
    with pytest.raises(UsageError, match="in the way"):
        await asked(ledger, Look())
    assert os.path.lexists(there)
    assert not elsewhere.exists()


async def test_another_users_socket_is_neither_replaced_nor_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        with pytest.raises(UsageError, match="another user"):
            await asked(ledger, Look())
        why = await Server(ledger, Desk()).open()
        assert why is not None
        assert "another user" in why
        assert not desk.asked
        monkeypatch.undo()


async def test_another_user_is_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        monkeypatch.setattr(server, "peer_of", lambda _: Peer(1, 4242))
        assert "only the user" in (await raw(ledger, b'{"do": "pause"}\n'))["error"]
        assert not desk.asked


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * (2 * MAX_LINE), "longer than"),
        (b"\0\xff\n", "no JSON"),
        (b"", "no JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "no JSON"),
        (b'{"do": "format"}', "`do` must be"),
    ],
    ids=["huge", "binary", "nothing", "http", "unknown"],
)
async def test_a_mad_caller_is_told_and_the_next_is_served(tmp_path: Path, data: bytes, words: str) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        assert words in (await raw(ledger, data))["error"]
        assert not desk.asked
        assert (await asked(ledger, Look()))["ok"] is True


async def test_who_says_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger):
        assert "no request came" in (await raw(ledger, b'{"do":', end=False))["error"]


async def test_too_many_at_once_are_sent_away_and_the_others_are_not(tmp_path: Path) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        line = b'{"do": "cancel", "names": ["night"]}\n'
        waiting = [asyncio.create_task(raw(ledger, line)) for _ in range(server.MAX_CALLERS)]
        while len(desk.asked) < server.MAX_CALLERS:
            desk.came.clear()
            await desk.came.wait()
        assert "too many" in (await raw(ledger, line))["error"]
        desk.let.set()
        assert all(found["ok"] for found in await asyncio.gather(*waiting))


async def test_who_does_not_take_the_answer_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        with place_of(ledger) as where, socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            await asyncio.get_running_loop().sock_connect(caller, where.address)
            caller.sendall(b'{"do": "cancel", "names": ["night"]}\n')
            await desk.came.wait()
            desk.let.set()
            assert (await asked(ledger, Look()))["ok"] is True


async def test_an_answer_under_way_is_given_when_the_run_ends(tmp_path: Path) -> None:
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        waiting = asyncio.create_task(raw(ledger, b'{"do": "cancel", "names": ["night"]}\n'))
        await desk.came.wait()
        asyncio.get_running_loop().call_later(0.05, desk.let.set)
    assert len((await waiting)["cancelled"]) == 3000


async def test_an_answer_that_never_comes_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LAST_WORDS", 0.05)
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        waiting = asyncio.create_task(asked(ledger, Cancel(("night",))))
        await desk.came.wait()
    with pytest.raises(UsageError, match="before it had answered"):
        await waiting


async def test_a_run_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "patience", lambda _: 0.05)
    ledger = tmp_path / "batchrunner.db"
    async with listening(ledger) as desk:
        with pytest.raises(UsageError, match="did not answer in time"):
            await asked(ledger, Cancel(("night",)))
        desk.let.set()
