"""The simulator's account outlives its process, however that ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batchrunner.simulator import Simulator, SimulatorSettings, parse_faults

BODY = {"model": "kling-3-0-turbo", "prompt": "a corgi"}
AUTH = {"Authorization": "Bearer rk_test_secret"}

SERVE = """
import asyncio, sys
from pathlib import Path
from batchrunner.simulator import Simulator, SimulatorSettings

async def main():
    settings = SimulatorSettings(state=Path(sys.argv[1]), clips="tiny")
    print(await Simulator(settings).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def ask(method: str, url: str, **options: Any) -> Any:
    async with aiohttp.ClientSession(headers=AUTH) as http, http.request(method, url, **options) as response:
        assert response.status == 200
        return await response.json()


def settings(path: Path, **changes: Any) -> SimulatorSettings:
    return replace(SimulatorSettings(state=path, median_seconds=10, sigma=0, clips="tiny"), **changes)


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    path = tmp_path / "new folder" / "simulator.db"
    async with Simulator(settings(path, faults=parse_faults(["fail=next:1"])), clock=lambda: now) as first:
        failing, good = [
            (await ask("POST", first.url + "/api/v1/videos/generations", json=BODY))["id"] for _ in range(2)
        ]
        before = first.account()
    now += 10  # time went on while it was down
    async with Simulator(settings(path, balance=5), clock=lambda: now) as second:
        assert second.url == first.url, "the same port, so that recorded URLs stay right"
        assert (await ask("GET", f"{second.url}/api/v1/tasks/{failing}"))["status"] == "failed"
        done = await ask("GET", f"{second.url}/api/v1/tasks/{good}")
        third = await ask("POST", second.url + "/api/v1/videos/generations", json=BODY)
        after = second.account()
    assert done["status"] == "completed"
    assert third["id"] not in {failing, good}
    assert after["balance"] == before["balance"] + 630 - 630
    assert (after["accepted"], after["posts"], after["refunded"]) == (3, 3, 630)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for file in path.parent.iterdir():
        assert b"rk_test_secret" not in file.read_bytes()


async def test_a_signed_url_outlives_the_process(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    async with Simulator(settings(tmp_path / "s.db"), clock=lambda: now) as first:
        task = await ask("POST", first.url + "/api/v1/videos/generations", json=BODY)
        now += 10
        url = (await ask("GET", f"{first.url}/api/v1/tasks/{task['id']}"))["output"]["video_urls"][0]
    second = Simulator(settings(tmp_path / "s.db"), clock=lambda: now)
    async with second, aiohttp.ClientSession() as http, http.get(url) as response:
        assert response.status == 200


async def test_another_port_where_the_last_one_is_taken(tmp_path: Path) -> None:
    async with Simulator(settings(tmp_path / "s.db")) as first:
        pass
    port = int(first.url.rpartition(":")[2])
    other = Simulator(settings(tmp_path / "other.db"))
    assert await other.start(port=port) == first.url
    try:
        async with Simulator(settings(tmp_path / "s.db")) as second:
            assert second.url != first.url
    finally:
        await other.stop()


async def test_two_accounts_never_share_an_id(tmp_path: Path) -> None:
    ids = set()
    for name in ("a.db", "b.db"):
        async with Simulator(settings(tmp_path / name)) as simulator:
            ids.add((await ask("POST", simulator.url + "/api/v1/videos/generations", json=BODY))["id"])
    assert len(ids) == 2


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    answered: list[str] = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            for _ in range(20):
                answered.append((await ask("POST", url + "/api/v1/videos/generations", json=BODY))["id"])
            process.send_signal(signal.SIGKILL)
    async with Simulator(settings(path)) as simulator:
        account = simulator.account()
    assert [task["id"] for task in account["tasks"]] == answered
    assert (account["posts"], account["charged"], account["balance"]) == (60, 60 * 630, 1_000_000 - 60 * 630)


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 40, None])
async def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ledger.db"
    if content is None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE jobs (id)")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"ledger\.db is not a (simulator's state|state file)"):
        await Simulator(settings(path)).start()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["ledger.db"]


async def test_no_statement_of_the_hot_path_reads_a_whole_table(tmp_path: Path) -> None:
    async with Simulator(settings(tmp_path / "s.db")):
        pass
    connection = sqlite3.connect(tmp_path / "s.db")
    try:
        for statement in (
            "UPDATE tasks SET polls = polls + 1 WHERE id = 'x' AND user = 'y' RETURNING number",
            "SELECT count(*) FROM tasks WHERE user = 'y' AND due_at > 5",
            "SELECT 1 FROM tasks WHERE error_code IS NOT NULL AND refunded = 0 AND due_at <= 5 LIMIT 1",
            "UPDATE tasks SET downloads = downloads + 1 WHERE number = 5 RETURNING downloads",
            "SELECT coalesce(max(number), 0) + 1 FROM tasks",
        ):
            plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement)]
            assert plan
            assert all("SEARCH" in step for step in plan), plan
    finally:
        connection.close()
