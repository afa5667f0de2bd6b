"""The script that people write: asyncio and aiohttp, remembers nothing. The yardstick of the benchmarks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import aiohttp
import uvloop
import yaml


async def one(session: aiohttp.ClientSession, base: str, request: dict[str, object], target: Path) -> None:
    async with session.post(f"{base}/api/v1/videos/generations", json=request) as answer:
        task = (await answer.json())["id"]
    while True:
        await asyncio.sleep(1.0)
        async with session.get(f"{base}/api/v1/tasks/{task}") as answer:
            body = await answer.json()
        if body["status"] == "completed":
            break
    async with session.get(body["output"]["video_urls"][0]) as answer:
        data = await answer.read()
    hashlib.sha256(data).hexdigest()
    target.write_bytes(data)


async def main(manifest: Path, folder: Path, in_flight: int) -> None:
    loaded = yaml.load(manifest.read_text(), Loader=yaml.CSafeLoader)
    base = os.environ["REAPI_BASE_URL"]
    slots = asyncio.Semaphore(in_flight)
    folder.mkdir(parents=True, exist_ok=True)
    headers = {"Authorization": f"Bearer {os.environ['REAPI_API_KEY']}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=64)) as session:

        async def bounded(shot: dict[str, object]) -> None:
            async with slots:
                request = {**loaded["defaults"], "prompt": shot["prompt"]}
                await one(session, base, request, folder / f"{shot['id']}.mp4")

        await asyncio.gather(*(bounded(shot) for shot in loaded["shots"]))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
