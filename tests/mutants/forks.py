"""A pytest plugin that collects the tests once, and plays each mutant in a fork of that process.

mutmut starts pytest anew for each mutant, which takes longer than the tests of one function. Here the parent runs no
test: first each test runs in a fork of its own, which says which functions it calls and how long it takes; then each
mutant gets a fork, with the tests that call its function, the quickest first, until one fails.

`python -m tests.mutants.core` starts it in a copy of the project, whose core is full of mutmut's mutants.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutmut.mutation import trampoline

from tests.mutants.core import FATES, NAMES, PROCESSES

CPU = 1.0
"""Seconds of the CPU that a test may take on top of ten times what it takes: then the mutant is an endless loop."""
WALL = 30.0
"""Seconds that a mutant may take on top of thirty times what its tests take of the CPU: then they wait for ever."""

settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,  # every mutant meets the same examples
    database=None,
    phases=(Phase.explicit, Phase.generate),  # that one fails is enough
    suppress_health_check=list(HealthCheck),
)


@dataclass(slots=True, eq=False)  # pytest keeps it in a set
class Failures:
    """Hears of the first test that fails, or whose fixtures do."""

    failed: bool = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed


@dataclass(frozen=True, slots=True)
class Test:
    """A test, and the seconds of the CPU that it takes."""

    item: pytest.Item
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """What runs in a fork: its exit code is what the body returns. `seconds` is how long it may take."""

    name: str
    seconds: float
    body: Callable[[], int]


def play(tests: Sequence[Test]) -> bool:
    """Run tests until one fails: whether one did. SIGPROF ends the process where one does not end."""
    heard = Failures()
    tests[0].item.config.pluginmanager.register(heard)
    for test, after in zip(tests, [*(t.item for t in tests[1:]), None], strict=True):
        signal.setitimer(signal.ITIMER_PROF, CPU + 10 * test.seconds)
        test.item.config.hook.pytest_runtest_protocol(item=test.item, nextitem=after)
        if heard.failed:
            break
    return heard.failed


def in_fork(body: Callable[[], int]) -> int:
    """Call it in a fork that ends with what it returns; the fork's id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        nothing = os.open(os.devnull, os.O_RDWR)
        for each in (0, 1, 2):
            os.dup2(nothing, each)
        code = body()
    finally:  # whatever a mistake does, this process must not go on as the parent
        os._exit(code)


def outcomes(jobs: Iterator[Job], processes: int) -> Iterator[tuple[str, int | None]]:
    """Run each job in a fork, so many side by side: its name, and how it ended (None: it did not, in time)."""
    running: dict[int, tuple[str, float]] = {}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        for job in islice(jobs, processes - len(running)):
            running[in_fork(job.body)] = job.name, time.monotonic() + job.seconds
        if not running:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.5)
        for pid, (name, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() < deadline:
                continue
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what a test has started, too
            if not ended:
                os.waitpid(pid, 0)
            del running[pid]
            yield name, os.waitstatus_to_exitcode(status) if ended else None


def fate(code: int | None) -> str:
    """In mutmut's words."""
    return {0: "survived", 1: "killed", None: "timeout", -signal.SIGPROF: "timeout"}.get(code, f"ended with {code}")


def function_of(mutant: str) -> str:
    return mutant.rpartition("__mutmut_")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running the tests once."""
    if session.testsfailed:
        raise session.Failed(f"{session.testsfailed} errors while collecting")
    processes = int(os.environ[PROCESSES])
    gc.collect()
    gc.freeze()  # the forks share what there is
    calls = called_by(session.items, processes)
    names = Path(os.environ[NAMES]).read_text("utf-8").splitlines()
    jobs = (_try(name, calls[function_of(name)]) for name in names if function_of(name) in calls)
    with Path(os.environ[FATES]).open("w", encoding="utf-8") as fates:
        fates.writelines(f"{name}: no tests\n" for name in names if function_of(name) not in calls)
        for name, code in outcomes(jobs, processes):
            fates.write(f"{name}: {fate(code)}\n")
            fates.flush()
    return True


def called_by(items: Sequence[pytest.Item], processes: int) -> dict[str, list[Test]]:
    """The tests that call each function, the quickest first.

    Ends the session where a test fails without any mistake.
    """
    folder = Path(os.environ[FATES]).parent
    calls: dict[str, list[Test]] = {}
    for n, code in outcomes((_watch(item, folder / str(n)) for n, item in enumerate(items)), processes):
        item, file = items[int(n)], folder / n
        if code:
            pytest.exit(f"{item.nodeid} fails without any mistake ({code})", 1)
        said = json.loads(file.read_text("utf-8"))
        file.unlink()
        for name in said["called"]:
            calls.setdefault(name, []).append(Test(item, said["seconds"]))
    for tests in calls.values():
        tests.sort(key=lambda test: test.seconds)
    return calls


def _watch(item: pytest.Item, file: Path) -> Job:
    """See which functions a test calls, and how long it takes."""

    def body() -> int:
        called: set[str] = set()

        def hit(name: str, caller: str | None = None) -> None:
            called.add(name)

        vars(trampoline)["record_trampoline_hit"] = hit
        trampoline._mutant_under_test = "stats"
        began = time.process_time()
        if play([Test(item, 60.0)]):
            return 1
        file.write_text(json.dumps({"called": sorted(called), "seconds": time.process_time() - began}), "utf-8")
        return 0

    return Job(file.name, 600.0, body)


def _try(mutant: str, tests: Sequence[Test]) -> Job:
    def body() -> int:
        trampoline._mutant_under_test = mutant
        return int(play(tests))

    return Job(mutant, WALL + 30 * sum(test.seconds for test in tests), body)
