"""The process that dies: plays the runs it is told to, one after another, until one of them kills it."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import resource
import signal
import sqlite3
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchrunner import app, words
from batchrunner.cli.run import early_signals
from batchrunner.core.job import FailureKind, Job
from batchrunner.exits import EXIT_BUG, EXIT_SIGINT, EXIT_USAGE, UsageError
from batchrunner.ledger import writer
from tests.crash.faults import FAULTS
from tests.crash.scenarios import FULL, MOMENT, POINTS, RUNS, THAWED, Death
from tests.crash.workspace import BATCH, SETTINGS, Workspace
from tests.double import Door

QUICK = replace(SETTINGS, max_downloads=3, first_part=1, part=1)
"""A batch of two jobs is a large one."""

FULL_AT = 64 * 1024
"""No file of the run grows beyond this: less than the ledger's log has by then, and just enough for the spool."""

TOLD = 0xFF
"""In the pipe: what follows is not the passing of a point but how the run ended."""

LENGTH = 4
"""Bytes before an order and before what is told."""


@dataclass(frozen=True, slots=True)
class Order:
    """One run, or one word.

    Attributes:
        job: for `identify`: its key.
        task_id: for `identify`: its task.
    """

    folder: Path
    door: Door
    fault: str
    verb: str
    death: Death | None = None
    job: str = ""
    task_id: str = ""

    @property
    def space(self) -> Workspace:
        return Workspace(self.folder, self.door, FAULTS[self.fault])


class _Passing:
    """Where the run is: every point that it passes may be its last. What was passed is told at the end, a byte each."""

    def __init__(self, death: Death | None, pipe: int) -> None:
        self.death = death
        self._pipe = pipe
        self._order = bytearray()
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        with self._lock:
            self._passed[point] += 1
            self._order.append(_NUMBER[point])
            death = self.death
            if death is None or self._passed[point] != death.n:
                return
            if point == death.point:
                self.tell()
                for _ in range(1 + death.twice):
                    os.kill(os.getpid(), death.by)
            elif death.point in {FULL, "submit.spooled"} and point == "submit.answered":
                resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, resource.RLIM_INFINITY))

    def tell(self) -> None:
        """Say what was passed since this was last called."""
        os.write(self._pipe, self._order)
        self._order.clear()


_NUMBER = {point: number for number, point in enumerate(POINTS)}


class _Speaker(app.Watcher):
    """Dies, where it should, of a full disk: at the moment when so many ids stand in the spool alone."""

    def __init__(self, death: Death | None, ids: int) -> None:
        self._death = death
        self._ids = ids

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if name != "unrecorded" or self._death is None or self._death.point != FULL:
            return
        self._ids -= 1
        if self._ids:
            return
        if self._death.by is THAWED:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.SIGKILL if data["spooled"] else signal.SIGABRT)


# --- Effects ---------------------------------------------------------------------------------------------

_AUDITED = {
    "os.mkdir": "effect.mkdir",
    "os.truncate": "effect.truncate",
    "os.link": "effect.link",
    "os.rename": "effect.rename",
    "os.remove": "effect.remove",
}

_passing: Callable[[str], None] | None = None
"""Where the run is that this process plays now."""


def _effect(point: str) -> None:
    if _passing is not None:
        _passing(point)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _passing is None:
        return
    if event == "open":
        if isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
            _passing("effect.create")
    elif event in _AUDITED:
        _passing(_AUDITED[event])


def _announced(function: Callable[..., Any], point: str) -> Callable[..., Any]:
    def announced(*arguments: Any) -> Any:
        _effect(point)
        return function(*arguments)

    return announced


def watch_effects() -> None:
    """From now on this process, and those that are forked from it, tell of what they do to the disk."""
    commit, whole = writer._commit, writer._whole

    async def committed(operations: list[writer.Operation[Any]], database: writer.Database) -> list[Any]:
        results = await commit(operations, database)
        _effect("effect.committed")
        return results

    def committed_alone(operation: writer.Operation[Any], connection: sqlite3.Connection) -> Any:
        result = whole(operation, connection)
        _effect("effect.committed")
        return result

    setattr(writer, "_commit", committed)  # noqa: B010
    setattr(writer, "_whole", committed_alone)  # noqa: B010
    setattr(os, "fsync", _announced(os.fsync, "effect.sync"))  # noqa: B010
    setattr(os, "pwrite", _announced(os.pwrite, "effect.write"))  # noqa: B010
    sys.addaudithook(_audit)


# --- A run -----------------------------------------------------------------------------------------------


def play(order: Order, pipe: int) -> dict[str, Any]:
    """Do what is ordered, as the command line does; how it ended.

    Returns:
        `code`; `stop`: why it stopped early, the traceback of a bug; `cut`: a signal came before the run had its own
        way of ending.
    """
    global _passing
    passing = _passing = _Passing(order.death, pipe)
    death = order.death
    os.environ.update(order.door.everywhere)
    if death is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new process: uvloop leaves its own behind
        early_signals()
        if death.point == MOMENT:
            signal.setitimer(signal.ITIMER_REAL, death.n / 1000)  # nobody handles SIGALRM: it ends the process
    try:
        if order.verb not in RUNS:
            return {"code": asyncio.run(_word(order, passing)), "stop": None}
        return _run(order, passing)
    except KeyboardInterrupt:
        return {"code": EXIT_SIGINT, "stop": "interrupted", "cut": True}
    except SystemExit as ended:
        return {"code": ended.code, "stop": "terminated", "cut": True}
    except Exception:  # noqa: BLE001  it is told
        return {"code": EXIT_BUG, "stop": traceback.format_exc()}
    finally:
        _passing = None
        passing.tell()


def _run(order: Order, crash: Callable[[str], None]) -> dict[str, Any]:
    space, resumed = order.space, order.verb == "resume"
    options = app.RunOptions(
        db=space.db,
        manifests=[] if resumed else [space.manifest()],
        batches=[BATCH] if resumed else [],
        resubmit=order.verb == "word",
        settings=replace(QUICK, first_part=space.fault.jobs) if space.fault.whole else QUICK,
        crash=crash,
    )
    result = app.run(options, _Speaker(order.death, space.fault.spooled))
    return {"code": result.exit_code, "stop": result.stop.value if result.stop else None}


async def _word(order: Order, crash: Callable[[str], None]) -> int:
    """A person's word on all that it can be about; 2 where there is nothing."""
    db = order.space.db
    try:
        match order.verb:
            case "identify":
                word: words.Word = words.Resolve(order.job, task_id=order.task_id, why="found in the list")
            case "resubmit":
                word = words.Resolve("*", resubmit=True)
            case "abandon":
                word = words.Resolve("*", abandon=True)
            case "retry":
                word = words.Retry((BATCH,), tuple(FailureKind))
            case "cancel":
                word = words.Cancel((BATCH,))
            case other:
                raise ValueError(other)
        await words.say(db, word, crash=crash)
    except (words.Unknown, UsageError):
        return EXIT_USAGE
    return 0


def serve(orders: int, pipe: int) -> None:
    """Play what comes, until it kills or nothing comes any more."""
    with os.fdopen(orders, "rb") as stream:
        while head := stream.read(LENGTH):
            order = pickle.loads(stream.read(int.from_bytes(head)))
            told = json.dumps(play(order, pipe)).encode()
            os.write(pipe, bytes([TOLD]) + len(told).to_bytes(LENGTH) + told)
