"""The simulator in a process of its own, with tasks that take no time and clips of a few hundred bytes."""

from __future__ import annotations

import asyncio

import uvloop

from batchrunner.simulator import Simulator, SimulatorSettings


async def main() -> None:
    settings = SimulatorSettings(median_seconds=0.01, sigma=0.1, balance=10**12, clips="tiny")
    print(await Simulator(settings).start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
