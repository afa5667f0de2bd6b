"""The clock and the dice, as arguments. The one module that reads them.

An event loop and `random` are imported where they are used: `status` wants only to know what time it is.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that the ledger remembers, one that never jumps."""

    def wall(self) -> float:
        """Unix seconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks; `monotonic` is the event loop's own, so that a loop on virtual time is a virtual clock."""

    def __init__(self) -> None:
        import asyncio

        self._asyncio = asyncio

    def wall(self) -> float:
        return wall()

    def monotonic(self) -> float:
        return self._asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await self._asyncio.sleep(seconds)


class Dice:
    """Uniform random numbers in [0, 1)."""

    def __init__(self, seed: int | None = None) -> None:
        import random

        self._random = random.Random(seed)  # noqa: S311  jitter, not cryptography

    def __call__(self) -> float:
        return self._random.random()


def wall() -> float:
    """Unix seconds, for those who run no event loop."""
    return time.time()


def pause(seconds: float) -> None:
    """Wait in the calling thread; KeyboardInterrupt ends it."""
    time.sleep(seconds)


def local_now() -> datetime.datetime:
    """Now, in the machine's own time zone."""
    return datetime.datetime.now().astimezone()


def iso(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the millisecond; None stays None."""
    if at is None:
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
