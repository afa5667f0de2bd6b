# mypy: disable-error-code="import-not-found, untyped-decorator"
"""Durable execution: DBOS on SQLite as it comes, a workflow a job, a step a call.

python -m benchmarks.peers.on_dbos MANIFEST FOLDER IN_FLIGHT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from dbos import DBOS

from .naive import Calls, connected, read

_calls: Calls


@DBOS.step()
async def submit(request: dict[str, Any]) -> str:
    return await _calls.submit(request)


@DBOS.step()
async def wait_for(task: str) -> str:
    return await _calls.wait_for(task)


@DBOS.step()
async def fetch(url: str, target: str) -> None:
    await _calls.fetch(url, Path(target))


@DBOS.workflow()
async def generate(request: dict[str, Any], target: str) -> None:
    await fetch(await wait_for(await submit(request)), target)


async def main(manifest: Path, folder: Path, in_flight: int) -> None:
    global _calls
    slots = asyncio.Semaphore(in_flight)
    async with connected() as calls:
        _calls = calls

        async def one(shot: str, request: dict[str, Any]) -> None:
            async with slots:
                handle = await DBOS.start_workflow_async(generate, request, str(folder / f"{shot}.mp4"))
                await handle.get_result()

        await asyncio.gather(*(one(shot, request) for shot, request in read(manifest)))


if __name__ == "__main__":
    where = Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    DBOS(
        config={
            "name": "jobs",
            "system_database_url": f"sqlite:///{where / 'jobs.sqlite'}",
            "log_level": "WARNING",
            "enable_otlp": False,
        }
    )
    DBOS.launch()
    try:
        asyncio.run(main(Path(sys.argv[1]), where, int(sys.argv[3])))
    finally:
        DBOS.destroy()
