"""How a run ends early: signals, limits, budgets, refusals, breakers, dead links. The double's account is the judge.

Signals at every crash point, in recoveries too, once and twice, are the business of `tests/crash`.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from batchrunner import app
from batchrunner.core.job import Job, RetryBudget, State
from batchrunner.core.pacing import backoff
from batchrunner.engine import control
from batchrunner.engine.clock import Dice
from batchrunner.engine.control import UNREACHABLE_AT_START, UNREACHABLE_LATER, Control, Stop
from batchrunner.engine.ports import Settings
from tests.crash.checks import Books, check_end, check_now
from tests.crash.command_line import PATIENCE, CommandLine
from tests.crash.faults import Fault
from tests.crash.workspace import BATCH, SETTINGS, Workspace
from tests.double import ALWAYS, CREDITS, Account, Double, Plan, Rule
from tests.support import FakeClock


def scenario(tmp_path: Path) -> str:
    """A name that no other test has."""
    return re.sub(r"[^a-z0-9]+", "-", str(tmp_path).lower()).strip("-")


class Night:
    """A batch against the double, run in this process on a clock of milliseconds."""

    def __init__(self, double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
        self.name = scenario(tmp_path)
        self._double = double
        self._monkeypatch = monkeypatch
        self.space = Workspace(tmp_path, double.open(self.name, fault.plan), fault)
        self.settings: Settings = SETTINGS

    def change(self, *rules: Rule) -> None:
        """From now on the double does this."""
        self._double.open(self.name, Plan(rules))

    def run(self, watcher: app.Watcher | None = None, **options: object) -> app.RunResult:
        """One run; what it leaves is held against the account."""
        for name, value in self.space.door.environment.items():
            self._monkeypatch.setenv(name, value)
        asked = app.RunOptions(db=self.space.db, manifests=[self.space.manifest()], settings=self.settings)
        result = app.run(replace(asked, **options), watcher or app.Watcher())  # type: ignore[arg-type]
        books, stop = self.books, result.stop.value if result.stop else None
        assert check_now(books, self.account, self.space.outputs, self.space.fault.budget) == []
        assert check_end(books, self.account, self.space.outputs, result.exit_code, stop) == []
        return result

    @property
    def account(self) -> Account:
        return self._double.account(self.name)

    @property
    def books(self) -> Books:
        return Books(self.space.db, self.space.folder / "copy")

    @property
    def states(self) -> dict[str, int]:
        return self.books.states()

    @property
    def kinds(self) -> list[str | None]:
        return [job["error_kind"] for job in self.books.jobs]


class Impatient(app.Watcher):
    """Ends a run that goes on for 20 seconds."""

    def __init__(self) -> None:
        self._seconds = 0

    def event(self, name: str, job: Job | None = None, /, **data: object) -> None:
        self._seconds += name == "progress"
        assert self._seconds < 20, "nobody looks at what runs"


# --- Signals: the real command line ----------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_lets_the_posts_on_the_wire_be_answered_and_recorded(
    double: Double, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=3)], polls=1)))
    line.write(5, in_flight=3)
    run = line.start("run", "night.yaml")
    run.until("claimed", 3)

    run.signal(number)
    run.until("stopping")
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.0)  # it waits for the answers, however long they take
    double.release(name)

    assert run.end() == code
    books, account = Books(line.db, tmp_path / "copy"), double.account(name)
    assert books.states() == {"running": 3, "pending": 2}
    assert {a["task_id"] for a in books.attempts} == {t.id for t in account.tasks}
    assert len(account.posts) == 3
    assert line.call("run", "night.yaml") == 0
    assert [len([p for p in double.account(name).posts if p.label == f"clip-{n}"]) for n in range(1, 6)] == [1] * 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_stops_at_once(double: Double, tmp_path: Path, number: signal.Signals, code: int) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=3)], polls=1)))
    line.write(4, in_flight=3)
    run = line.start("run", "night.yaml")
    run.until("claimed", 3)
    run.signal(number)
    run.until("stopping")

    run.signal(number)

    assert run.end() == code  # though no POST was answered: nobody has released them
    assert Books(line.db, tmp_path / "copy").states() == {"submitting": 3, "pending": 1}
    double.release(name)
    assert line.call("run", "night.yaml") == 3
    assert Books(line.db, tmp_path / "copy").states() == {"unconfirmed": 3, "succeeded": 1}
    assert len(double.account(name).posts) == 4


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP, signal.SIGHUP),  # the kernel and the shell both send it when a terminal is closed
        (signal.SIGTERM, signal.SIGHUP),  # systemd.kill(5), SendSIGHUP=, at the end of a session
        (signal.SIGHUP, signal.SIGTERM),
    ],
    ids=lambda numbers: "-".join(n.name for n in numbers),
)
def test_a_terminal_that_closes_is_no_second_word(
    double: Double, tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=3)], polls=1)))
    line.write(4, in_flight=3)
    run = line.start("run", "night.yaml")
    run.until("claimed", 3)

    for number in numbers:
        run.signal(number)
    run.until("stopping")
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.0)  # it waits for the answers
    double.release(name)

    assert run.end() == 143
    assert Books(line.db, tmp_path / "copy").states() == {"running": 3, "pending": 1}
    assert line.call("run", "night.yaml") == 0
    assert len(double.account(name).posts) == 4


@contextmanager
def ignoring(number: signal.Signals) -> Iterator[None]:
    """What is started meanwhile ignores the signal, as under nohup."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_under_nohup_the_night_goes_on(double: Double, tmp_path: Path) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=2)], polls=1)))
    line.write(2)
    with ignoring(signal.SIGHUP):
        run = line.start("run", "night.yaml")
    run.until("claimed", 2)

    run.signal(signal.SIGHUP)
    double.release(name)

    assert run.end() == 0
    assert "stopping" not in {event["event"] for event in run.events}


@pytest.mark.parametrize("display", [[], ["--quiet"], ["--json"]], ids=["bars", "quiet", "json"])
def test_the_window_is_closed(double: Double, tmp_path: Path, display: list[str]) -> None:
    """A real terminal that goes away: the run ends as it is asked to, though nobody can read what it says."""
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "hold", last=2)], polls=1)))
    line.write(2)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrunner", "run", "night.yaml", *display],
        cwd=tmp_path,
        env=line._environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    os.set_blocking(master, False)
    end = time.monotonic() + PATIENCE
    while double.account(name).waiting < 2 and time.monotonic() < end:
        try:
            os.read(master, 65536)
        except BlockingIOError:
            time.sleep(0.01)

    os.close(master)
    double.release(name)

    assert process.wait(PATIENCE) == 143
    account = double.account(name)
    assert len(account.tasks) == 2
    assert {a["task_id"] for a in Books(line.db, tmp_path / "copy").attempts} == {t.id for t in account.tasks}
    assert not list(tmp_path.rglob("*.log")), "a closed window is no bug"
    assert line.call("run", "night.yaml") == 0


@pytest.mark.parametrize("held", ["poll", "media"])
def test_a_signal_does_not_wait_for_what_is_free(double: Double, tmp_path: Path, held: str) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule(held, "hold", task=0)], polls=1)))
    line.write(2)
    run = line.start("run", "night.yaml")
    run.until("accepted" if held == "poll" else "completed", 2)

    run.signal(signal.SIGTERM)

    assert run.end() == 143
    state = "running" if held == "poll" else "downloading"
    assert Books(line.db, tmp_path / "copy").states() == {state: 2}
    double.release(name)
    assert line.call("run", "night.yaml") == 0
    account = double.account(name)
    assert len(account.posts) == 2
    books = Books(line.db, tmp_path / "copy")
    assert check_now(books, account, line.outputs, None) == []
    assert check_end(books, account, line.outputs, 0, None) == []


# --- Limits ----------------------------------------------------------------------------------------------


def test_limit_and_max_credits_on_the_command_line(double: Double, tmp_path: Path) -> None:
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan(polls=1)))
    line.write(6)

    assert line.call("run", "night.yaml", "--limit", "2") == 4
    assert len(double.account(name).posts) == 2
    assert line.call("run", "night.yaml", "--max-credits", str(4 * CREDITS + 10)) == 4
    account = double.account(name)
    assert len(account.posts) == 4
    assert account.peak == 4 * CREDITS
    assert line.call("run", "night.yaml") == 0
    assert len(double.account(name).posts) == 6


@pytest.mark.parametrize("in_flight", [1, 3, 50])
def test_limit_counts_what_was_sent(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_flight: int
) -> None:
    """A 429 is no submission: nothing was created, and the limit is not used up."""
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("post", "throttle")]), jobs=8, in_flight=in_flight))

    result = night.run(limit=3)

    assert (result.exit_code, result.stop) == (4, Stop.LIMIT)
    assert len(night.account.tasks) == 3
    assert night.states == {"succeeded": 3, "pending": 5}


def test_nothing_is_submitted_after_the_deadline(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(jobs=3))

    result = night.run(until=0.0)

    assert (result.exit_code, result.stop) == (4, Stop.DEADLINE)
    assert night.account.posts == []
    assert night.run().exit_code == 0


class Patient(app.Watcher):
    """Lets the outputs go a second after five tasks were complete, and remembers how many had been sent by then."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._seen: Counter[str] = Counter()
        self.sent: int | None = None

    def event(self, name: str, job: Job | None = None, /, **data: object) -> None:
        self._seen[name] += 1
        if name == "progress" and self._seen["completed"] >= 5 and self.sent is None:
            self.sent = self._seen["claimed"]
            self._release()


def test_submitting_waits_while_outputs_pile_up(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished should come home before its URL dies; the fifth is the first beyond four a worker."""
    fault = Fault(Plan([Rule("media", "hold", last=ALWAYS)], polls=1), jobs=9, in_flight=1)
    night = Night(double, tmp_path, monkeypatch, fault)
    night.settings = replace(SETTINGS, max_downloads=1)
    watcher = Patient(lambda: double.release(night.name))

    assert night.run(watcher).exit_code == 0

    assert watcher.sent == 5
    assert night.states == {"succeeded": 9}


@pytest.mark.parametrize(("said", "sent"), [(1, 1), (2, 2), (9, 2)])
def test_of_two_caps_the_smaller_one_counts(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int, sent: int
) -> None:
    """`--max-credits` never raises the budget that the manifest allows."""
    night = Night(double, tmp_path, monkeypatch, Fault(jobs=4, budget=2 * CREDITS))

    result = night.run(max_credits=said * CREDITS)

    assert (result.exit_code, result.stop) == (4, Stop.BUDGET)
    assert len(night.account.posts) == sent


@pytest.mark.parametrize("in_flight", [1, 50])
def test_a_budget_is_never_exceeded(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_flight: int
) -> None:
    """Three fit. One fails and is refunded: another is sent in its place."""
    fault = Fault(Plan([Rule("task", "fail")]), jobs=12, budget=3 * CREDITS + 100, in_flight=in_flight)
    night = Night(double, tmp_path, monkeypatch, fault)

    result = night.run()

    assert (result.exit_code, result.stop) == (4, Stop.BUDGET)
    assert night.account.peak <= 3 * CREDITS
    assert night.states == {"succeeded": 3, "failed": 1, "pending": 8}
    assert night.run().exit_code == 4
    assert len(night.account.posts) == 4


def test_a_doubt_counts_against_the_budget(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(Plan([Rule("post", "error500")]), jobs=4, budget=2 * CREDITS, in_flight=1)
    night = Night(double, tmp_path, monkeypatch, fault)

    assert night.run().exit_code == 3
    assert night.states == {"unconfirmed": 1, "succeeded": 1, "pending": 2}
    assert len(night.account.posts) == 2


# --- Refusals --------------------------------------------------------------------------------------------


def test_out_of_credit_stops_submitting_and_brings_home_what_runs(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Rule("post", "no_credit", first=3, last=ALWAYS)
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([empty]), jobs=6))

    result = night.run(Impatient())

    assert (result.exit_code, result.stop) == (4, Stop.CREDIT)
    assert night.states == {"succeeded": 2, "pending": 4}
    night.change()  # topped up
    assert night.run().exit_code == 0
    assert len(night.account.tasks) == 6


def test_refused_credentials_end_the_run_at_once(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(
        double, tmp_path, monkeypatch, Fault(Plan([Rule("post", "unauthorized", first=2, last=ALWAYS)]), jobs=5)
    )

    result = night.run()

    assert (result.exit_code, result.stop) == (6, Stop.CREDENTIALS)
    assert night.states["pending"] == 4
    night.change()
    assert night.run().exit_code == 0
    assert len(night.account.tasks) == 5


def test_credentials_that_die_while_polling(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("poll", "unauthorized", task=0)])))

    result = night.run()

    assert (result.exit_code, result.stop) == (6, Stop.CREDENTIALS)
    assert set(night.states) <= {"running", "pending"}
    assert night.run().exit_code in {0, 6}  # the other task's first poll is refused too
    assert night.run().exit_code == 0
    assert len(night.account.posts) == 2


def _control() -> tuple[Control, FakeClock, list[Stop]]:
    clock, stops = FakeClock(), list[Stop]()
    return Control(clock, Dice(1), lambda stop, _message: stops.append(stop)), clock, stops


def test_nobody_there_at_the_start() -> None:
    run, clock, stops = _control()
    run.silent("no connection")
    clock.forward(UNREACHABLE_AT_START - 1.0)
    run.silent("no connection")
    assert run.submitting
    clock.forward(1.0)
    run.silent("no connection")

    assert stops == [Stop.UNREACHABLE]
    assert run.ended
    assert app.exit_code(Stop.UNREACHABLE, {State.PENDING: 3}, {}) == 6


def test_nobody_there_later() -> None:
    run, clock, stops = _control()
    run.silent("no connection")
    run.heard()
    run.silent("no connection")
    clock.forward(UNREACHABLE_LATER - 1.0)
    run.silent("no connection")
    assert stops == []
    clock.forward(1.0)
    run.silent("no connection")
    assert stops == [Stop.UNREACHABLE]


def test_a_server_that_comes_late_gets_every_job_once(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = lambda failures, fraction, base=1.0, cap=60.0: backoff(failures, fraction, base / 100, cap / 100)  # noqa: E731
    monkeypatch.setattr(control, "backoff", quick)
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("connect", "close", last=4)]), jobs=3))

    code = night.run().exit_code

    # A connection that was closed after the request was written is a doubt; one that was closed before is none.
    assert code in {0, 3}
    assert len(night.account.posts) == night.states.get("succeeded", 0)


# --- The breaker -----------------------------------------------------------------------------------------


def test_three_doubts_in_a_row_stop_submitting(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(Plan([Rule("post", "reset_after", first=2, last=ALWAYS)]), jobs=9, in_flight=1)
    night = Night(double, tmp_path, monkeypatch, fault)

    result = night.run()

    assert (result.exit_code, result.stop) == (3, Stop.BREAKER)
    assert len(night.account.posts) == 4
    assert night.states == {"succeeded": 1, "unconfirmed": 3, "pending": 5}


def test_doubts_that_are_not_in_a_row_stop_nothing(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts = [Rule("post", "reset_after", last=2), Rule("post", "error500", first=4, last=5)]
    night = Night(double, tmp_path, monkeypatch, Fault(Plan(doubts), jobs=6, in_flight=1))

    result = night.run()

    assert (result.exit_code, result.stop) == (3, None)
    assert len(night.account.posts) == 6
    assert night.states == {"succeeded": 2, "unconfirmed": 4}


def test_five_rejections_in_a_row_stop_submitting(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(
        double, tmp_path, monkeypatch, Fault(Plan([Rule("post", "reject", last=ALWAYS)]), jobs=8, in_flight=1)
    )

    result = night.run()

    assert (result.exit_code, result.stop) == (4, Stop.BREAKER)
    assert len(night.account.posts) == 5
    assert night.states == {"failed": 5, "pending": 3}
    assert set(night.kinds) == {"rejected", None}


def test_a_word_lets_the_doubtful_be_sent_again(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("post", "reset_after", last=2)]), jobs=2))

    assert night.run().exit_code == 3
    assert night.run().exit_code == 3
    assert len(night.account.posts) == 2
    assert night.run(resubmit=True).exit_code == 0

    books = night.books
    assert len(night.account.tasks) == 4  # each was paid for twice, and a person has said so
    assert [a["consent"] is not None for a in books.attempts] == [True, False, True, False]
    assert books.batches[0]["at_risk"] == 2 * CREDITS
    assert night.run(manifests=[], batches=[BATCH]).exit_code == 0


# --- Failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "allowed", "code", "posts"), [(1, 1, 0, 2), (2, 2, 0, 3), (2, 1, 1, 2), (1, 0, 1, 1)]
)
def test_the_retry_budget(
    double: Double,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    allowed: int,
    code: int,
    posts: int,
) -> None:
    """A failed task was refunded: within the budget the job is sent again, in the same run."""
    fault = Fault(Plan([Rule("task", "fail", last=failures)]), jobs=1, retry=RetryBudget(provider=allowed))
    night = Night(double, tmp_path, monkeypatch, fault)

    assert night.run().exit_code == code
    assert len(night.account.posts) == posts
    assert night.run().exit_code == code
    assert len(night.account.posts) == posts


def test_a_moderated_prompt_is_not_sent_again(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(Plan([Rule("task", "moderate")]), retry=RetryBudget(provider=5))
    night = Night(double, tmp_path, monkeypatch, fault)

    assert night.run().exit_code == 1
    assert sorted(k or "" for k in night.kinds) == ["", "moderated"]
    assert len(night.account.posts) == 2


def test_a_task_that_nobody_knows_any_more_is_lost(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("poll", "missing", last=ALWAYS)])))

    assert night.run().exit_code == 1
    assert sorted(k or "" for k in night.kinds) == ["", "lost"]
    assert night.run().exit_code == 1
    assert len(night.account.posts) == 2


def test_a_task_that_is_missing_for_a_while_is_not_lost(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("poll", "missing", last=4)], polls=6)))
    night.settings = replace(SETTINGS, lost_after=900.0)

    assert night.run().exit_code == 0


def test_a_dead_link_is_renewed_once(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("media", "gone")])))

    assert night.run().exit_code == 0
    assert [t.handed_out for t in night.account.tasks] == [2, 1]


def test_a_link_that_dies_twice_is_expired(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("media", "gone", last=ALWAYS)])))

    assert night.run().exit_code == 1
    assert sorted(k or "" for k in night.kinds) == ["", "expired"]
    assert night.books.batches[0]["spent"] == 2 * CREDITS  # it was charged
    assert len(list(night.space.outputs.iterdir())) == 2  # the other's file and sidecar
    assert night.run().exit_code == 1
    assert len(night.account.posts) == 2


@pytest.mark.parametrize("what", ["truncated", "cut", "html", "error500"])
def test_what_is_no_film_is_fetched_again(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("media", what, last=2)])))

    assert night.run().exit_code == 0
    assert night.account.tasks[0].downloads == 3
    assert len(night.account.posts) == 2


# --- What the service asks for ---------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["post", "poll"])
def test_a_429_holds_every_call(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str) -> None:
    """Retry-After is heeded by POSTs and polls alike; the account's own clock says when they came."""
    first = 2 if on == "post" else 1
    fault = Fault(Plan([Rule(on, "throttle", first=first, last=first)], retry_after="1"), jobs=2, in_flight=2)
    night = Night(double, tmp_path, monkeypatch, fault)
    night.settings = replace(SETTINGS, poll=replace(SETTINGS.poll, shortest=0.4, longest=0.5))

    assert night.run().exit_code == 0

    times = [at for at, _ in night.account.calls]
    assert max(after - before for before, after in itertools.pairwise(times)) >= 0.9  # otherwise a poll is due in 0.5 s


def test_a_hold_outlives_the_run(double: Double, tmp_path: Path) -> None:
    """Also for a job that the 429 was not the answer to."""
    name = scenario(tmp_path)
    line = CommandLine.at(tmp_path, double.open(name, Plan([Rule("post", "throttle")], polls=1, retry_after="3")))
    line.write(2, in_flight=1)
    run = line.start("run", "night.yaml")
    run.until("hold")
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert Books(line.db, tmp_path / "copy").states() == {"pending": 2}

    assert line.call("run", "night.yaml") == 0

    (thrown, _), (next_call, _) = double.account(name).calls[:2]
    assert next_call - thrown >= 2.9


def test_a_schedule_of_another_day_is_not_waited_for(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back must not leave paid tasks unwatched until their URLs are dead."""
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("poll", "unauthorized")])))
    assert night.run().exit_code == 6
    assert night.states == {"running": 2}
    with closing(sqlite3.connect(night.space.db, isolation_level=None)) as connection:
        tomorrow = "UPDATE job SET next_poll_at = updated_at + 86400.0 WHERE state = 'running'"
        assert connection.execute(tomorrow).rowcount == 2
    night.change()

    assert night.run(Impatient()).exit_code == 0

    assert night.states == {"succeeded": 2}


def test_a_redirected_post_is_a_doubt_and_is_not_followed(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(double, tmp_path, monkeypatch, Fault(Plan([Rule("post", "redirect")])))

    assert night.run().exit_code == 3
    assert night.account.followed == 0
    assert night.states == {"unconfirmed": 1, "succeeded": 1}
