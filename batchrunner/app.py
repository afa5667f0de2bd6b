"""The composition root, as the command line sees it: open the ledger, do a night's work, close it."""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import loops
from .core import deadline
from .core.notice import Notice, Sink
from .engine.clock import Clock, SystemClock, local_now
from .engine.ports import Settings
from .engine.spool import Spool
from .exits import UsageError
from .ledger.address import Address
from .ledger.connection import open_reader
from .ledger.errors import LedgerUnusable
from .ledger.sql import Connection
from .ledger.store import Ledger
from .night import Night
from .runs import LEFT_TO_WORKERS, RunOptions, RunResult, Watcher, exit_code

if TYPE_CHECKING:
    from .ledger.early import EarlyLook


def run(options: RunOptions, watcher: Watcher) -> RunResult:
    """Do the main job.

    Raises:
        UsageError, OutputClash, LedgerUnusable: exit code 2. LedgerBusy: exit code 5. Anything else is a bug.
    """
    main = partial(run_here, options, watcher)
    with _relaxed_collector():
        return loops.run(main)


@contextmanager
def _relaxed_collector() -> Iterator[None]:
    """What lives as long as the run is not looked through again and again for cycles, and the rest more seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def run_here(options: RunOptions, watcher: Watcher) -> RunResult:
    """`run` in the event loop that is running."""
    clock = SystemClock()
    began = clock.monotonic()
    async with AsyncExitStack() as stack:
        ledger = await open_ledger(options.db, clock, options.wait_lock, options.look.sound if options.look else None)
        if options.until is not None:  # the time goes on while another runner is waited for
            options = replace(options, until=options.until - (clock.monotonic() - began))
        stack.push_async_callback(ledger.close)
        spool = stack.enter_context(open_spool(ledger))
        night = Night(options, watcher, clock, ledger, spool, stack)
        return await night.run()


async def open_ledger(db: Address, clock: Clock, wait: float, looked: Callable[[], bool] | None = None) -> Ledger:
    """The ledger, as its one writer.

    Args:
        wait: seconds to wait for another runner.
        looked: see `Ledger.open`.

    Raises:
        LedgerBusy: another runner holds it. LedgerUnusable: see `Ledger.open`.
    """
    return await loops.once_free(partial(Ledger.open, db, clock.wall, looked), clock, wait)


@contextmanager
def open_spool(ledger: Ledger) -> Iterator[Spool]:
    """The spool beside a ledger, closed at the end. Raises LedgerUnusable: it can't be made."""
    try:
        spool = Spool(ledger.beside)
    except OSError as error:
        raise LedgerUnusable(f"can't prepare {ledger.beside}.spool: {error.strerror}") from None
    try:
        yield spool
    finally:
        spool.close()


def look_early(db: Address) -> AbstractContextManager[EarlyLook]:
    """Look at the whole ledger in a thread, beside what is done in the block. Made before the run lock is taken."""
    from .ledger.early import EarlyLook

    return EarlyLook(db if isinstance(db, Path) else None)


def seconds_left(until: datetime.time, since: datetime.time | None = None) -> float:
    """Seconds until it is `until` o'clock here; 0 outside the hours from `since`, where that is given."""
    return deadline.seconds_left(until, local_now(), datetime.datetime.astimezone, since)


def tell(sinks: Sequence[Sink], notice: Notice) -> list[str]:
    """Tell the sinks; returns what could not be told, a line for each. A signal ends the telling, and nothing else: how
    the run ended stands."""
    return asyncio.run(_tell(sinks, notice))


async def _tell(sinks: Sequence[Sink], notice: Notice) -> list[str]:
    from .notify import tell as tell_all

    task = asyncio.ensure_future(tell_all(sinks, notice, os.environ))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return ["interrupted"]


def cannot_tell(sinks: Sequence[Sink]) -> list[str]:
    """Why sinks could not be told, as far as that can be known before the run."""
    from .notify import problems

    return problems(sinks, os.environ)


def read_ledger(db: Address) -> Connection | None:
    """A read-only connection for `queries`, None where there is no ledger. Raises LedgerUnusable."""
    return open_reader(db)


__all__ = [
    "LEFT_TO_WORKERS",
    "RunOptions",
    "RunResult",
    "Settings",
    "UsageError",
    "Watcher",
    "cannot_tell",
    "exit_code",
    "look_early",
    "open_ledger",
    "open_spool",
    "read_ledger",
    "run",
    "run_here",
    "seconds_left",
    "tell",
]
