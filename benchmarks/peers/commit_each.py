"""The naive script with a memory, done plainly: aiosqlite, and a commit for every transition of every job.

python -m benchmarks.peers.commit_each MANIFEST FOLDER IN_FLIGHT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiosqlite
import uvloop

from .naive import connected, read


async def main(manifest: Path, folder: Path, in_flight: int) -> None:
    shots = read(manifest)
    slots = asyncio.Semaphore(in_flight)
    folder.mkdir(parents=True, exist_ok=True)
    async with connected() as calls, aiosqlite.connect(folder / "jobs.db") as db:
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute("CREATE TABLE job (id TEXT PRIMARY KEY, state TEXT NOT NULL, task TEXT, url TEXT)")
        await db.executemany("INSERT INTO job (id, state) VALUES (?, 'pending')", [(shot,) for shot, _ in shots])
        await db.commit()

        turn = asyncio.Lock()  # or one job's commit would be in the middle of another's transition

        async def move(shot: str, state: str, task: str | None = None, url: str | None = None) -> None:
            async with turn:
                await db.execute(
                    "UPDATE job SET state = ?, task = coalesce(?, task), url = coalesce(?, url) WHERE id = ?",
                    (state, task, url, shot),
                )
                await db.commit()

        async def one(shot: str, request: dict[str, Any]) -> None:
            async with slots:
                await move(shot, "submitting")
                task = await calls.submit(request)
                await move(shot, "running", task)
                url = await calls.wait_for(task)
                await move(shot, "downloading", task, url)
                await calls.fetch(url, folder / f"{shot}.mp4")
                await move(shot, "succeeded")

        await asyncio.gather(*(one(shot, request) for shot, request in shots))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
