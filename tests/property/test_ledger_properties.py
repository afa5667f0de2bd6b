"""Random lives of jobs in a real ledger: after every step the books balance, and nobody pays twice without a word."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchrunner.core import events as e
from batchrunner.core.job import (
    Cancelled,
    Downloading,
    Fact,
    Failed,
    FailureKind,
    Job,
    Output,
    Pending,
    Problem,
    RetryBudget,
    Running,
    State,
    Submitting,
    Succeeded,
    Unconfirmed,
)
from batchrunner.core.lifecycle import TABLE, IllegalTransition, advance
from batchrunner.ledger.address import Address
from batchrunner.ledger.connection import open_reader
from batchrunner.ledger.errors import BudgetExhausted, Conflict, DuplicateTask
from batchrunner.ledger.rows import FACT_COLUMNS, fact_of, fact_values
from batchrunner.ledger.store import Ledger
from tests.postgres.server import Postgres
from tests.support import FakeClock, batch, dump, jobs_of, spec

T = TypeVar("T")

CAP = 1500
PRICES = {"a": 630, "b": 400, "c": 200, "d": 0}
JOBS = list(PRICES)
KINDS = {kind.__name__.lower(): kind for _, kind in TABLE}

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
problems = st.builds(
    Problem,
    words,
    st.none() | st.integers(-(2**63), 2**63 - 1) | words,
    st.none() | st.integers(100, 599),
    st.none() | words,
)
task_ids = st.integers(1, 12).map(lambda n: f"task_{n}")
times = st.floats(0.0, 2e9)
urls = st.lists(words, max_size=3).map(tuple)
outputs = st.builds(Output, words, st.just("ab" * 32), st.integers(0, 2**40))

events: st.SearchStrategy[e.Event] = st.one_of(
    st.just(e.Claimed()),
    st.just(e.Claimed()),
    st.builds(e.Accepted, task_ids, st.none() | words),
    st.builds(e.NotSent, problems, times),
    st.builds(e.Throttled, problems, st.none() | times, times),
    st.builds(e.Refused, st.sampled_from(e.Refusal), problems),
    st.builds(e.Rejected, problems),
    st.builds(e.Ambiguous, problems),
    st.just(e.Interrupted()),
    st.builds(e.Identified, task_ids, words, words),
    st.builds(e.Resubmitted, words, words),
    st.builds(e.Abandoned, words, words),
    st.builds(e.Retried, words, words),
    st.builds(e.Withdrawn, words, words),
    st.builds(e.Completed, urls),  # exact charges: what was reserved
    st.builds(e.TaskFailed, problems, st.booleans(), st.booleans(), times),
    st.builds(e.Vanished, problems),
    st.builds(e.Stored, outputs),
    st.builds(e.LinkDied, problems),
)

facts: st.SearchStrategy[Fact] = st.one_of(
    st.builds(Pending, st.integers(0, 9), times),
    st.builds(Submitting, st.integers(1, 9)),
    st.builds(Unconfirmed, st.integers(1, 9), problems),
    st.builds(Running, st.integers(1, 9), task_ids, st.integers(0, 2)),
    st.builds(Downloading, st.integers(1, 9), task_ids, urls, st.integers(0, 2)),
    st.builds(Succeeded, st.integers(1, 9), task_ids, outputs),
    st.builds(Failed, st.integers(1, 9), st.sampled_from(FailureKind), problems, st.none() | task_ids),
    st.builds(Cancelled, st.integers(0, 9)),
)


@given(facts)
@example(Failed(1, FailureKind.REJECTED, Problem("", "0")))
def test_a_fact_survives_its_row(fact: Fact) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"CREATE TABLE job ({', '.join(f'{c} ANY' for c in FACT_COLUMNS)}) STRICT")
        connection.execute(f"INSERT INTO job VALUES ({', '.join('?' * len(FACT_COLUMNS))})", fact_values(fact))
        assert fact_of(connection.execute("SELECT * FROM job").fetchone()) == fact
    finally:
        connection.close()


class Lives(RuleBasedStateMachine):
    """A few jobs of one batch with a budget that is too small for all of them."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.path = self.place()
        self.clock = FakeClock()
        self.ledger = self.do(Ledger.open(self.path, self.clock.wall))
        specs = [spec(name, credits=price) for name, price in PRICES.items()]
        self.batch = self.do(self.ledger.record(batch(max_credits=CAP, retry=RetryBudget(1, 1)), specs))
        self.do(self.ledger.batches())
        self.jobs: dict[str, Job] = {j.key: j for j in self.do(jobs_of(self.ledger, self.batch))}
        self.stale: list[Job] = list(self.jobs.values())
        reader = open_reader(self.path)
        assert reader is not None
        self.reader = reader

    def place(self) -> Address:
        return Path(self.folder.name) / "l.db"

    def do(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def teardown(self) -> None:
        if hasattr(self, "reader"):
            self.reader.close()
            self.do(self.ledger.close())
            self.loop.close()
            self.folder.cleanup()

    def dump(self) -> list[str]:
        return dump(self.reader)

    # --- What may happen ---------------------------------------------------------------------------------

    @rule(name=st.sampled_from(JOBS), event=events, seconds=st.floats(0.0, 100.0))
    def happen(self, name: str, event: e.Event, seconds: float) -> None:
        """Any event, legal or not."""
        self.clock.forward(seconds)
        job = self.jobs[f"{name}-1"]
        try:
            expected = advance(job.fact, event)
        except IllegalTransition:
            before = self.dump()
            with pytest.raises(IllegalTransition):
                self.do(self.ledger.advance(job, event))
            assert self.dump() == before
            return
        self._legal(job, event, expected)

    @rule(name=st.sampled_from(JOBS), data=st.data())
    def go_on(self, name: str, data: st.DataObject) -> None:
        """An event that this job's state allows: far ways are rare by chance."""
        job = self.jobs[f"{name}-1"]
        legal = events.filter(lambda event: (job.state, type(event)) in TABLE)
        if any(state is job.state for state, _ in TABLE):
            event = data.draw(legal)
            self._legal(job, event, advance(job.fact, event))

    def _legal(self, job: Job, event: e.Event, expected: Fact) -> None:
        before = self.dump()
        left = CAP - sum(self._sums())
        taken = {r["task_id"] for r in self.reader.execute("SELECT task_id FROM attempt")}
        try:
            after = self.do(self.ledger.advance(job, event))
        except BudgetExhausted:
            assert isinstance(event, e.Claimed)
            assert job.credits > left
            assert self.dump() == before
        except DuplicateTask:
            assert isinstance(event, e.Accepted | e.Identified)
            assert event.task_id in taken
            assert self.dump() == before
        else:
            assert after.fact == expected
            self.stale.append(job)
            self.jobs[job.key] = after

    @precondition(lambda self: len(self.stale) > len(JOBS))
    @rule(data=st.data(), event=events)
    def an_old_copy(self, data: st.DataObject, event: e.Event) -> None:
        """Whoever holds an old copy of a job changes nothing."""
        job = data.draw(st.sampled_from(self.stale))
        now = self.jobs[job.key].fact
        if (job.fact.state, job.fact.attempt) == (now.state, now.attempt):
            return
        before = self.dump()
        with pytest.raises((Conflict, IllegalTransition, BudgetExhausted, DuplicateTask)):
            self.do(self.ledger.advance(job, event))
        assert self.dump() == before

    @rule(names=st.lists(st.sampled_from(JOBS), min_size=2, max_size=4, unique=True))
    def all_at_once(self, names: list[str]) -> None:
        """Claims that share a commit: each is refused or granted as if alone."""
        ready = [self.jobs[f"{n}-1"] for n in names if self.jobs[f"{n}-1"].state is State.PENDING]

        async def claim() -> list[Any]:
            return await asyncio.gather(*(self.ledger.advance(j, e.Claimed()) for j in ready), return_exceptions=True)

        for job, result in zip(ready, self.do(claim()), strict=True):
            if isinstance(result, Job):
                self.jobs[job.key] = result
            else:
                assert isinstance(result, BudgetExhausted)

    @rule()
    def a_restart(self) -> None:
        self.do(self.ledger.close())
        self.ledger = self.do(Ledger.open(self.path, self.clock.wall))
        self.do(self.ledger.batches())
        self.jobs = {j.key: j for j in self.do(jobs_of(self.ledger, self.batch))}

    @rule()
    def the_manifest_again(self) -> None:
        before = self.dump()
        specs = [spec(name, credits=price) for name, price in PRICES.items()]
        self.do(self.ledger.record(batch(max_credits=CAP, retry=RetryBudget(1, 1)), specs))
        after = self.dump()
        assert [line for line in after if 'INTO "batch"' not in line] == [
            line for line in before if 'INTO "batch"' not in line
        ]

    # --- What is always true -----------------------------------------------------------------------------

    def _sums(self) -> tuple[int, int, int]:
        found = self.reader.execute("SELECT reserved, spent, at_risk FROM batch").fetchone()
        return found[0], found[1], found[2]

    @invariant()
    def the_books_balance(self) -> None:
        """P5, and that the sums are the sums."""
        if not hasattr(self, "reader"):
            return
        by_money = dict(self.reader.execute("SELECT money, sum(credits) FROM attempt GROUP BY money").fetchall())
        assert self._sums() == tuple(by_money.get(k, 0) for k in ("reserved", "spent", "at_risk"))
        assert sum(self._sums()) <= CAP

    @invariant()
    def rows_are_the_facts(self) -> None:
        if hasattr(self, "reader"):
            assert {j.key: j for j in self.do(jobs_of(self.ledger, self.batch))} == self.jobs

    @invariant()
    def nobody_pays_twice_without_a_word(self) -> None:
        """P1."""
        if not hasattr(self, "reader"):
            return
        open_attempts = (
            "SELECT max(n) FROM (SELECT count(*) AS n FROM attempt "
            "WHERE money <> 'none' AND consent IS NULL GROUP BY job_id) AS open"
        )
        assert (self.reader.execute(open_attempts).fetchone()[0] or 0) <= 1
        unsettled = (
            "SELECT count(*) FROM job JOIN attempt a ON a.job_id = job.id "
            "WHERE job.state = 'pending' AND a.money <> 'none' AND a.consent IS NULL"
        )
        assert self.reader.execute(unsettled).fetchone()[0] == 0

    @invariant()
    def the_history_tells_how_it_came(self) -> None:
        """Every row is a move of the table, from where the last one ended, and the last one ends where the job is."""
        if not hasattr(self, "reader"):
            return
        for key, job in self.jobs.items():
            state: State | None = None
            attempt = 0
            for row in self.reader.execute("SELECT * FROM history WHERE job_id = ? ORDER BY id", (job.id,)):
                assert row["from_state"] == (None if state is None else state.value), key
                to = State(row["to_state"])
                if state is None:
                    assert (row["event"], to) == ("recorded", State.PENDING)
                else:
                    assert to in TABLE[state, KINDS[row["event"]]]
                attempt += row["event"] == "claimed"
                assert row["attempt"] == attempt
                state = to
            assert (state, attempt) == (job.state, job.fact.attempt)
            numbers = self.reader.execute("SELECT number FROM attempt WHERE job_id = ? ORDER BY number", (job.id,))
            assert [r[0] for r in numbers] == list(range(1, attempt + 1))


Lives.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase


def test_lives_in_postgresql(postgres: Postgres) -> None:
    """The same machine; fewer, as each is a hundred times as slow."""

    class OnServer(Lives):
        def place(self) -> Address:
            return postgres.ledger()

    few = settings(Lives.TestCase.settings, max_examples=4, stateful_step_count=20)
    run_state_machine_as_test(OnServer, settings=few)
