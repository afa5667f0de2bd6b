"""What the hot paths cost, in counts: a regression is caught without a clock.

    BATCHRUNNER_RENEW_COSTS=1 python -m pytest tests/unit/test_costs.py     writes the bounds anew, for this Python

Every guard is shown to fail when a plausible mistake is made.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.job import RetryBudget, State
from batchrunner.core.polling import PollPolicy
from batchrunner.core.selection import Selection
from batchrunner.engine.ports import Books, Settings
from batchrunner.ledger import record as recording
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.rows import FACT_COLUMNS, fact_values
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.transitions import Change
from batchrunner.ledger.writer import InlineDatabase
from batchrunner.manifest import load
from batchrunner.manifest.requests import ModelRules
from tests.cli_support import make_ledger
from tests.counting import RENEW, Calls, Sql, calls, check, limit, sql
from tests.simulation.run import Plan, collected, play
from tests.simulation.world import Weather
from tests.support import FakeClock, batch, jobs_of, path_to, spec

SEED = 7
NEVER: tuple[float, dict[str, float]] = (0.0, {})
CALM = Weather(NEVER, NEVER, NEVER, NEVER, fates=(0.0, 0.0, 0.0, 0.0), median=5.0, url_seconds=3600.0)


# --- One job, one poll: the real engine on virtual time --------------------------------------------------


def night(jobs: int, median: float = 5.0, longest: float = 4.0) -> tuple[Calls, int]:
    """A batch from the manifest to the last file: calls, and polls."""
    plan = Plan(
        jobs=jobs,
        per_minute=60_000.0,
        in_flight=50,
        budget=None,
        retry=RetryBudget(),
        settings=Settings(poll=PollPolicy(shortest=1.0, longest=longest), polls_per_minute=1e6, min_free_bytes=1),
        deaths=(),
        jumps=(),
        word=0.0,
        resume=0.0,
    )
    with calls() as found:
        verdict = play(SEED, plan, replace(CALM, median=median))
    assert (verdict.wrong, verdict.runs) == ([], 1)
    return found, verdict.polls


def one_job() -> float:
    """A job's POST, polls, download and five commits, with its share of everything."""
    (few, _), (many, _) = night(10), night(40)
    return (many.all - few.all) / 30


def one_poll() -> float:
    """A poll that finds nothing new."""
    (quick, some), (slow, more) = night(20, median=4.0), night(20, median=60.0)
    return (slow.all - quick.all) / (more - some)


# --- One transition --------------------------------------------------------------------------------------


@contextmanager
def ledger(path: Path) -> Iterator[tuple[Ledger, InlineDatabase, Callable[..., Any]]]:
    """A ledger in this thread, and what runs its coroutines."""
    with closing(open_writer(path)) as connection, asyncio.Runner() as runner:
        database = InlineDatabase(connection)
        yield Ledger(database, FakeClock().wall), database, runner.run


def transitions(folder: Path) -> tuple[float, Sql]:
    """From pending to a file, for 20 jobs: calls, statements and steps a transition."""
    events = path_to(State.SUCCEEDED)
    with ledger(folder / "l.db") as (books, database, run):

        async def moved(number: int) -> None:
            job = jobs[number]
            for event in path_to(State.SUCCEEDED, f"task_{number}"):
                job = await books.advance(job, event)

        batch_id = run(books.record(batch(), [spec(f"s{n}") for n in range(21)]))
        run(books.batches())
        jobs = run(jobs_of(books, batch_id))
        run(moved(20))
        with sql(database.connection) as done, calls() as called:
            for number in range(20):
                run(moved(number))
    share = 20 * len(events)
    return called.all / share, Sql(round(done.statements / share, 1), round(done.steps / share, 1))  # type: ignore[arg-type]


# --- One shot --------------------------------------------------------------------------------------------


def manifest(folder: Path, shots: int) -> Path:
    path = folder / f"{shots}.yaml"
    lines = [f"  - {{id: shot-{n:05d}, prompt: a corgi number {n}, tags: [beach]}}" for n in range(shots)]
    head = "version: 1\nbatch: night\ndefaults: {model: kling-3-0-turbo, duration: 3}\nshots:\n"
    path.write_text(head + "\n".join(lines) + "\n")
    return path


def one_shot_checked(folder: Path) -> float:
    """Reading, checking and naming a shot."""
    found = []
    for shots in (100, 600):
        path = manifest(folder, shots)
        with calls() as called:
            load(path)
        found.append(called.all)
    return (found[1] - found[0]) / 500


def one_shot_expanded(folder: Path) -> float:
    """Making a job of a shot, and its row."""
    found = load(manifest(folder, 500))
    with calls() as called:
        assert len(list(recording._incoming_rows(found.jobs))) == 500
    return called.all / 500


def recorded(folder: Path) -> tuple[float, float]:
    """Steps a job: of the first part of a batch, and of one that comes after three thousand others."""
    specs = [spec(f"s{n}") for n in range(3300)]
    with closing(open_writer(folder / "l.db")) as connection:
        batch_id = recording.begin(connection, batch(), specs[:100], 3200, 1.0)
        steps = []
        for first, last in ((100, 200), (200, 3200), (3200, 3300)):
            with sql(connection) as done:
                recording.append(connection, batch_id, specs[first:last], first, 1.0)
            steps.append(done.steps / (last - first))
    return steps[0], steps[2]


CLAIM = (
    """INSERT INTO attempt (job_id, number, batch_id, credits, money, intent_at)
       SELECT id, 1, batch_id, 0, 'reserved', 1.0 FROM job WHERE position < ?""",
    "UPDATE job SET state = 'submitting', attempt = 1 WHERE position < ?",
)


def page(folder: Path) -> tuple[int, int]:
    """Steps to find the next 64 pending jobs: of a new batch, and of one of which 2,000 are done."""
    with ledger(folder / "p.db") as (books, database, run):
        batch_id = run(books.record(batch(), [spec(f"s{n}") for n in range(2200)]))
        steps = []
        for done_already in (0, 2000):
            for statement in CLAIM:
                database.connection.execute(statement, (done_already,))
            with sql(database.connection) as done:
                found, _next = run(books.pending([batch_id], Selection(), 64, 10.0))
            assert len(found) == 64
            steps.append(done.steps)
    return steps[0], steps[1]


# --- A start ---------------------------------------------------------------------------------------------


def modules(folder: Path, *arguments: str) -> int:
    """Modules that a command imports, beyond those of a bare interpreter."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom batchrunner.cli.errors import main\n"
        f"assert main({list(arguments)!r}) == 0\nsys.stderr.write(str(len(set(sys.modules) - before)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return int(ran.stderr)


# --- The guards ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Everything that is imported late is imported, and nothing is collected meanwhile."""
    with collected():
        night(2)
        yield


def test_one_job() -> None:
    check("calls a job", one_job())


def test_one_poll() -> None:
    check("calls a poll", one_poll())


def test_one_transition(tmp_path: Path) -> None:
    called, done = transitions(tmp_path)
    check("calls a transition", called)
    check("SQL statements a transition", done.statements)
    check("SQLite steps a transition", done.steps)


def test_one_shot(tmp_path: Path) -> None:
    check("calls to check a shot", one_shot_checked(tmp_path))
    check("calls to expand a shot", one_shot_expanded(tmp_path))


def test_recording(tmp_path: Path) -> None:
    first, last = recorded(tmp_path)
    check("SQLite steps to record a job", first)
    assert last <= first * 1.1, "a part of a large batch costs more the later it comes"


def test_a_page_of_pending_jobs(tmp_path: Path) -> None:
    first, last = page(tmp_path)
    check("SQLite steps to find 64 pending jobs", first)
    assert last <= first * 1.1, "finding what is pending costs more the more is done"


@pytest.mark.parametrize("arguments", [("--help",), ("status",)], ids=" ".join)
def test_a_start(arguments: tuple[str, ...], tmp_path: Path) -> None:
    make_ledger(tmp_path / "batchrunner.db", [(spec(), ())])
    check(f"modules imported by {' '.join(arguments)}", modules(tmp_path, *arguments))


def test_the_same_twice(tmp_path: Path) -> None:
    """A count that is not the same every time is no guard."""
    for name in ("cold", "a", "b"):
        (tmp_path / name).mkdir()
    one_shot_checked(tmp_path / "cold")  # what is made once in a process is made here
    assert one_shot_checked(tmp_path / "a") == one_shot_checked(tmp_path / "b")
    assert transitions(tmp_path / "a") == transitions(tmp_path / "b")
    assert night(5)[0] == night(5)[0]


# --- That they would notice ------------------------------------------------------------------------------


def dearer(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, extra: Callable[..., Any]) -> None:
    """Before each call of a method something else is done."""
    real = getattr(place, name)

    def both(*arguments: Any, **words: Any) -> Any:
        extra(*arguments)
        return real(*arguments, **words)

    monkeypatch.setattr(place, name, both)


def test_a_job_that_is_written_out_for_every_event_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from batchrunner.core.keys import canonical_json

    dearer(monkeypatch, Books, "advance", lambda books, job, event: [canonical_json(job.request) for _ in range(60)])
    assert one_job() > limit("calls a job")


def test_a_poll_that_looks_at_every_task_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from batchrunner.engine.ports import poll_budget
    from batchrunner.providers.reapi import ReApi

    dearer(monkeypatch, ReApi, "poll", lambda *_: [poll_budget(task) for task in range(20)])
    assert one_poll() > limit("calls a poll")


def test_a_statement_more_in_each_transition_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dearer(
        monkeypatch,
        Change,
        "__call__",
        lambda change, connection: connection.execute("SELECT count(*) FROM job WHERE shot = ?", ("s1",)).fetchone(),
    )
    _, done = transitions(tmp_path)
    assert done.statements > limit("SQL statements a transition")
    assert done.steps > limit("SQLite steps a transition")


def test_a_fact_that_is_taken_apart_for_every_column_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dearer(
        monkeypatch,
        Change,
        "__call__",
        lambda change, connection: [fact_values(change.job.fact)[n] for n in range(len(FACT_COLUMNS))],
    )
    called, _ = transitions(tmp_path)
    assert called > limit("calls a transition")


def test_a_shot_that_is_explained_though_it_is_valid_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dearer(monkeypatch, ModelRules, "credits", lambda rules, request: rules.problems(request))
    assert one_shot_checked(tmp_path) > limit("calls to check a shot")
    assert one_shot_expanded(tmp_path) > limit("calls to expand a shot")


def test_a_part_that_walks_the_whole_batch_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was so once."""
    monkeypatch.setattr(recording, "_BORN", recording._BORN.replace("+batch_id", "batch_id"))
    first, last = recorded(tmp_path)
    assert last > first * 1.1


def test_an_import_too_many_is_noticed(tmp_path: Path) -> None:
    make_ledger(tmp_path / "batchrunner.db", [(spec(), ())])
    assert modules(tmp_path, "jobs", "--json") > 0
    code = (
        "import sys\nbefore = set(sys.modules)\nimport asyncio\nsys.stderr.write(str(len(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert modules(tmp_path, "status") + int(ran.stderr) > limit("modules imported by status")


def test_the_message_says_how_to_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RENEW, raising=False)
    with pytest.raises(AssertionError, match=f"renew the bounds: {RENEW}=1"):
        check("calls a job", 1e9)
