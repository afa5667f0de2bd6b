"""Runs on a machine that fails: forks the real composition root, and breaks something in the child.

A process of its own, so that forking is safe under pytest-xdist and everything is imported once. Orders come as JSON, a
line each, on stdin; how each run ended goes to stdout, a line each. A child in which nothing was broken plays the next
run of its kind too: what most runs cost is the fork.

What can go wrong, at the n-th passing of a crash point (`engine.ports.CRASH_POINTS`), or from the beginning (`-`):

    full         the disk takes nothing more (a filler takes all of it; for a small tmpfs)
    limit        no file grows beyond 64 KiB: less than the ledger's log, just enough for the spool
    limit0       no byte can be written to any file
    eio          every commit fails with `disk I/O error`
    eio_once     the next commit does
    unreadable   nothing can be read from the ledger any more
    sync_eio     every fsync of a file or a folder of outputs does
    vanish       the output folder is removed
    forward      the wall clock jumps a day forward
    back         or back
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest import mock

# Everything that a run imports late is imported here, once.
import aiohttp.client
import uvloop

import batchrunner.providers.reapi
from batchrunner import app, catalogue
from batchrunner.core import events as e
from batchrunner.core.job import Job, Problem, RetryBudget
from batchrunner.core.pacing import backoff
from batchrunner.engine import control, download, files, poll, send
from batchrunner.engine.clock import SystemClock
from batchrunner.exits import EXIT_BUG, EXIT_BUSY, EXIT_USAGE, UsageError
from batchrunner.ledger import writer
from batchrunner.ledger.errors import LedgerBusy, LedgerError
from batchrunner.manifest import Manifest
from batchrunner.providers import fetch, folders
from tests.crash.workspace import BATCH, SETTINGS, Jobs
from tests.double import CREDITS

IMPORTED = (aiohttp.client, uvloop, batchrunner.providers.reapi)

LIMIT = 64 * 1024
DAY = 86_400.0
RUN_SECONDS = 60
"""A run that takes longer hangs: SIGALRM ends it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run.

    Attributes:
        folder: of the ledger.
        outputs: the output folder.
        environment: the door to the double.
        jobs: of the batch.
        what, point, n: the fault, see above; no fault where `what` is empty.
        min_free: `Settings.min_free_bytes`.
        stub: the provider is one that counts POSTs, and knows no task; the ledger alone is resumed.
    """

    folder: str
    outputs: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    what: str = ""
    point: str = "-"
    n: int = 1
    min_free: int = 1
    stub: bool = False

    @property
    def db(self) -> Path:
        return Path(self.folder) / "night.db"


@dataclass(slots=True)
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code as the command line would have it.
        stop: why it stopped early.
        message: what a user would read; a traceback where the code is 70.
        fired: whether the fault came about.
        unrecorded: the events of that name.
        posts: the stub's count.
    """

    code: int = -1
    stop: str | None = None
    message: str = ""
    fired: bool = False
    unrecorded: list[dict[str, Any]] = field(default_factory=list)
    posts: int = 0


class _Machine:
    """The machine under one run."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.fired = False
        self.jump = 0.0
        self.commits_fail = 0
        self.syncs_fail = False
        self.reads_fail = False
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()
        if order.point == "-":
            self._break()

    def crash(self, point: str) -> None:
        with self._lock:
            self._passed[point] += 1
            if point == self.order.point and self._passed[point] == self.order.n:
                self._break()

    def _break(self) -> None:
        self.fired = True
        match self.order.what:
            case "full":
                fill(Path(self.order.folder))
            case "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
            case "limit0":
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            case "eio":
                self.commits_fail = 1 << 30
            case "eio_once":
                self.commits_fail = 1
            case "unreadable":
                self.reads_fail = True
            case "sync_eio":
                self.syncs_fail = True
            case "vanish":
                shutil.rmtree(self.order.outputs)
            case "forward":
                self.jump = DAY
            case "back":
                self.jump = -DAY
            case "":
                self.fired = False
            case other:
                raise ValueError(other)


class _Disk(SimpleNamespace):
    """`os`, whose fsync may fail."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if _machine.syncs_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(descriptor)


_machine = _Machine(Order(""))
"""The one under the run that this process plays now."""


def rig() -> None:
    """Put the machine under the program, and make a night of milliseconds."""
    real_commit, real_wall = writer._commit, SystemClock.wall

    async def commit(operations: list[writer.Operation[Any]], database: writer.Database) -> list[Any]:
        if _machine.commits_fail:
            _machine.commits_fail -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return await real_commit(operations, database)

    real_run, real_glance = writer.ThreadDatabase.run, writer.Writer.glance

    def read() -> None:
        if _machine.reads_fail:
            raise sqlite3.DatabaseError("database disk image is malformed")

    async def run_(database: writer.ThreadDatabase, function: Any) -> Any:
        if getattr(function, "func", function) not in {writer._end, writer._whole}:
            read()
        return await real_run(database, function)

    async def glance(one: writer.Writer, query: Any) -> Any:
        with writer._readable():
            read()
        return await real_glance(one, query)

    setattr(writer.ThreadDatabase, "run", run_)  # noqa: B010
    setattr(writer.Writer, "glance", glance)  # noqa: B010
    setattr(writer, "_commit", commit)  # noqa: B010
    setattr(SystemClock, "wall", lambda clock: real_wall(clock) + _machine.jump)  # noqa: B010
    unsure = _Disk()
    for module in (files, fetch, folders):
        setattr(module, "os", unsure)  # noqa: B010
    for module in (control, download, poll):
        setattr(module, "backoff", _quick)  # noqa: B010
    send.RECORD_PATIENCE = 0.03
    poll.LEDGER_PAUSE = 0.004


def _quick(failures: int, fraction: float, base: float = 1.0, cap: float = 60.0) -> float:
    return backoff(failures, fraction, min(base, 0.004), 0.016)


FILLER = "filler"


def fill(folder: Path) -> None:
    """Take every byte of the folder's disk."""
    descriptor = os.open(folder / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    block = bytes(1 << 16)
    try:
        while block:
            try:
                os.write(descriptor, block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]
    finally:
        os.close(descriptor)


def manifest(order: Order) -> Manifest:
    """The batch of an order."""
    return Manifest(
        file=Path(order.folder) / "night.yaml",
        batch=BATCH,
        profile=None,
        provider="reapi",
        max_credits=None,
        submits_per_minute=60_000.0,
        in_flight=50,
        retry=RetryBudget(),
        output_dir=Path(order.outputs),
        jobs=Jobs(order.jobs, CREDITS),
        warnings=(),
    )


class _Listener(app.Watcher):
    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if name == "unrecorded" and job is not None:
            self._ended.unrecorded.append({"job": job.key, **data})


_posts = 0
"""Those of the stub, in this process."""


def _stub() -> None:
    """From now on the provider knows nothing, and counts."""

    async def submit_(*_: Any, **__: Any) -> e.SubmitAnswer:
        global _posts
        _posts += 1
        return e.NotSent(Problem("never"))

    async def poll_(*_: Any, **__: Any) -> e.PollAnswer:
        return e.Missing(Problem("not found"))

    async def fetch_(*_: Any, **__: Any) -> Any:
        raise fetch.LinkDead(Problem("gone"))

    for owner, name, stub in (
        (batchrunner.providers.reapi.ReApi, "submit", submit_),
        (batchrunner.providers.reapi.ReApi, "poll", poll_),
        (fetch.Fetcher, "fetch", fetch_),
    ):
        setattr(owner, name, stub)


def run(order: Order) -> Ended:
    """The run itself, in the child."""
    global _machine
    ended, before = Ended(), _posts
    machine = _machine = _Machine(order)
    options = app.RunOptions(
        db=order.db,
        manifests=[] if order.stub else [manifest(order)],
        settings=replace(SETTINGS, min_free_bytes=order.min_free, lost_after=0.0 if order.stub else 60.0),
        crash=machine.crash,
    )
    # As `cli.errors.main` translates; a test holds the command line itself to it.
    try:
        with mock.patch.dict(os.environ, order.environment):
            result = app.run(options, _Listener(ended))
        ended.code, ended.stop, ended.message = result.exit_code, result.stop, result.message
    except LedgerBusy as busy:
        ended.code, ended.message = EXIT_BUSY, str(busy)
    except (UsageError, LedgerError) as error:
        ended.code, ended.message = EXIT_USAGE, str(error)
    except Exception:  # noqa: BLE001  it is told
        ended.code, ended.message = EXIT_BUG, traceback.format_exc()
    ended.fired, ended.posts = machine.fired, _posts - before
    return ended


class _Child:
    """A process that plays runs, of one kind: with the stub, or without."""

    def __init__(self, stub: bool, others: Iterable[_Child]) -> None:
        reading, orders = os.pipe()
        told, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for other in others:
                    other.orders.close()
                os.close(orders)
                os.close(told)
                _serve(stub, reading, writing)
            except BaseException:  # noqa: BLE001  it is told, and goes no further: this is a fork
                traceback.print_exc()
                os._exit(EXIT_BUG)
            os._exit(0)
        os.close(reading)
        os.close(writing)
        self.orders: IO[str] = os.fdopen(orders, "w")
        self.told: IO[str] = os.fdopen(told)

    def play(self, order: Order) -> Ended | None:
        """How it ended; None where the process did."""
        print(json.dumps(asdict(order)), file=self.orders, flush=True)
        told = self.told.readline()
        return Ended(**json.loads(told)) if told else None

    def end(self) -> int:
        """Its status."""
        self.orders.close()
        self.told.close()
        return os.waitpid(self.pid, 0)[1]


def _serve(stub: bool, orders: int, told: int) -> None:
    if stub:
        _stub()
    with os.fdopen(orders) as lines, os.fdopen(told, "w") as answers:
        for line in lines:
            signal.alarm(RUN_SECONDS)
            ended = run(Order(**json.loads(line)))
            signal.alarm(0)
            print(json.dumps(asdict(ended)), file=answers, flush=True)


def _play(order: Order, children: dict[bool, _Child]) -> Ended:
    child = children.pop(order.stub, None) or _Child(order.stub, children.values())
    ended = child.play(order)
    if ended is not None and not order.what and ended.code != EXIT_BUG:
        children[order.stub] = child
        return ended
    status = child.end()
    return ended or Ended(message=f"the run died: status {status}")


def main() -> None:
    catalogue.models()
    rig()
    assert threading.active_count() == 1, "a process with threads must not fork"
    gc.collect()
    gc.freeze()
    children: dict[bool, _Child] = {}
    for line in sys.stdin:
        print(json.dumps(asdict(_play(Order(**json.loads(line)), children))), flush=True)
    for child in children.values():
        child.end()


Play = Callable[[Order], Ended]

if __name__ == "__main__":
    main()
