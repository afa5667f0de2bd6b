"""What a run and a worker begin alike: the event loop, and the wait for a ledger that is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from .engine.clock import Clock
from .ledger.errors import LedgerBusy

T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it to its end in an event loop of its own: uvloop's where that is installed. Raises what it raises."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    return uvloop.run(main())


async def once_free(opened: Callable[[], Awaitable[T]], clock: Clock, wait: float) -> T:
    """The ledger that `opened` opens, tried again every second for `wait` seconds while another holds it.

    Raises:
        LedgerBusy: it was held all the time. Whatever else `opened` raises.
    """
    end = clock.monotonic() + wait
    while True:
        try:
            return await opened()
        except LedgerBusy:
            if clock.monotonic() >= end:
                raise
            await clock.sleep(min(1.0, max(0.0, end - clock.monotonic())))
