"""The script that people write: asyncio and aiohttp, remembers nothing. The yardstick of the benchmarks.

It leaves out what a night needs: it submits twice whatever was interrupted, knows no limit, budget, retry or 429,
checks neither the manifest nor the files, overwrites what is there, syncs nothing to the disk, sends the key to the
file server, and one error ends it. It is as fast as such a script can be: libyaml, 64 connections that stay open, and
it polls at once, without a pause.

    python -m benchmarks.peers.naive MANIFEST FOLDER IN_FLIGHT [asyncio|uvloop]
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

PAUSE = 1.0
"""Seconds between two polls of a task that is not done yet."""


def read(manifest: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every shot's id and request."""
    with manifest.open() as file:
        loaded = yaml.load(file, Loader=yaml.CSafeLoader)
    return [(shot["id"], {**loaded["defaults"], "prompt": shot["prompt"]}) for shot in loaded["shots"]]


@asynccontextmanager
async def connected() -> AsyncIterator[Calls]:
    headers = {"Authorization": f"Bearer {os.environ['REAPI_API_KEY']}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=64)) as session:
        yield Calls(session, os.environ["REAPI_BASE_URL"])


class Calls:
    """The three calls of a job."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def submit(self, request: dict[str, Any]) -> str:
        async with self._session.post(f"{self._base}/api/v1/videos/generations", json=request) as answer:
            task: str = (await answer.json())["id"]
            return task

    async def wait_for(self, task: str) -> str:
        """Poll until it is done; the output's URL."""
        while True:
            async with self._session.get(f"{self._base}/api/v1/tasks/{task}") as answer:
                body = await answer.json()
            if body["status"] == "completed":
                url: str = body["output"]["video_urls"][0]
                return url
            await asyncio.sleep(PAUSE)

    async def fetch(self, url: str, target: Path) -> None:
        async with self._session.get(url) as answer:
            target.write_bytes(await answer.read())


async def main(manifest: Path, folder: Path, in_flight: int) -> None:
    shots = read(manifest)
    slots = asyncio.Semaphore(in_flight)
    folder.mkdir(parents=True, exist_ok=True)
    async with connected() as calls:

        async def one(shot: str, request: dict[str, Any]) -> None:
            async with slots:
                url = await calls.wait_for(await calls.submit(request))
                await calls.fetch(url, folder / f"{shot}.mp4")

        await asyncio.gather(*(one(shot, request) for shot, request in shots))


if __name__ == "__main__":
    work = main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    if sys.argv[4:] == ["asyncio"]:
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)
