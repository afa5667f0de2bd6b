"""`Ledger.advance`: a transition is one transaction, or nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Failed, FailureKind, Job, Output, Pending, Problem, RetryBudget, Running, State
from batchrunner.core.lifecycle import IllegalTransition
from batchrunner.ledger.address import Address
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.errors import BudgetExhausted, Conflict, DuplicateTask, WriteFailed
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.transitions import reason_of
from batchrunner.ledger.writer import InlineDatabase
from tests.support import START, FakeClock, batch, drive, dump, money, open_ledger, path_to, spec, with_jobs

BOTH_STORES = True

SEEN = Problem("reset", "reset", 502, "req_7")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def everything(ledger: Ledger) -> list[str]:
    found: list[str] = await ledger.query(dump)
    return found


async def rows(ledger: Ledger, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await ledger.query(lambda c: [dict(r) for r in c.execute(sql)])
    return found


async def stored(ledger: Ledger, job: Job) -> Job:
    return (await ledger.jobs([job.id]))[0]


# --- What is written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
async def test_what_is_known_survives_a_restart(path: Address, clock: FakeClock, state: State) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()], retry=RetryBudget(2, 1))
        job = await drive(ledger, job, *path_to(state))
        assert job.state is state
        assert await stored(ledger, job) == job
    async with open_ledger(path, clock) as again:
        assert (await again.batches())[0].retry == RetryBudget(2, 1)
        assert await stored(again, job) == job


async def test_the_whole_way(path: Address, clock: FakeClock) -> None:
    """Job, attempt and history, each with its time."""
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        for event in path_to(State.SUCCEEDED):
            clock.forward(10.0)
            job = await ledger.advance(job, event)
        (attempt,) = await rows(ledger, "SELECT * FROM attempt")
        history = await rows(ledger, "SELECT * FROM history ORDER BY id")
        assert attempt == {
            "job_id": 1,
            "number": 1,
            "batch_id": 1,
            "credits": 630,
            "money": "spent",
            "consent": None,
            "intent_at": START + 10,
            "answered_at": START + 20,
            "ended_at": START + 30,
            "outcome": "stored",
            "task_id": "task_1",
            "request_id": "req_1",
            "request": None,
        }
        assert [
            (h["at"] - START, h["attempt"], h["from_state"], h["to_state"], h["event"], h["reason"]) for h in history
        ] == [
            (0, 0, None, "pending", "recorded", "revision 1"),
            (10, 1, "pending", "submitting", "claimed", "intent recorded"),
            (20, 1, "submitting", "running", "accepted", "task task_1"),
            (30, 1, "running", "downloading", "completed", "1 output"),
            (40, 1, "downloading", "succeeded", "stored", "/out/a.mp4 (3 bytes)"),
        ]
        assert (await rows(ledger, "SELECT updated_at FROM job"))[0]["updated_at"] == START + 40


@pytest.mark.store(["sqlite"])
async def test_one_transition_is_one_transaction(path: Path, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        seen: list[str] = []
        await ledger.query(lambda c: c.set_trace_callback(seen.append))
        await ledger.advance(job, e.Claimed())
        await ledger.query(lambda c: c.set_trace_callback(None))
        assert seen[0] == "BEGIN IMMEDIATE"
        assert [s for s in seen if s in {"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}] == ["BEGIN IMMEDIATE", "COMMIT"]
        written = [s.split()[:3] for s in seen if s.startswith(("INSERT", "UPDATE"))]
        assert ["INSERT", "INTO", "attempt"] in written
        assert ["INSERT", "INTO", "history"] in written
        assert any(w[:2] == ["UPDATE", "job"] for w in written)


@pytest.mark.store(["sqlite"])
async def test_many_transitions_share_few_commits(path: Path, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        jobs = await with_jobs(ledger, [spec(f"s{n}") for n in range(200)])
        seen: list[str] = []
        await ledger.query(lambda c: c.set_trace_callback(seen.append))
        claimed = await asyncio.gather(*(ledger.advance(j, e.Claimed()) for j in jobs))
        await asyncio.gather(*(ledger.advance(j, e.Accepted(f"t{j.id}")) for j in claimed))
        await ledger.query(lambda c: c.set_trace_callback(None))
        assert seen.count("COMMIT") <= 6
        assert seen.count("ROLLBACK") == 0
        assert await money(ledger) == (0, 200 * 630, 0)


# --- What is refused -------------------------------------------------------------------------------------


async def test_an_illegal_event_writes_nothing(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        before = await everything(ledger)
        with pytest.raises(IllegalTransition):
            await ledger.advance(job, e.Accepted("t"))
        assert await everything(ledger) == before


@pytest.mark.parametrize("state", [s for s in State if s not in {State.SUCCEEDED, State.CANCELLED}])
async def test_a_stale_copy_is_a_conflict(path: Address, clock: FakeClock, state: State) -> None:
    """Whoever holds an old copy of a job can't move it again, whatever the event."""
    events: dict[State, e.Event] = {
        State.PENDING: e.Claimed(),
        State.SUBMITTING: e.Accepted("task_2"),
        State.UNCONFIRMED: e.Identified("task_2", "me"),
        State.RUNNING: e.Completed(("u",)),
        State.DOWNLOADING: e.Stored(Output("/f", "aa", 1)),
        State.FAILED: e.Retried("me"),
    }
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, *path_to(state))
        await ledger.advance(job, events[state])
        before = await everything(ledger)
        with pytest.raises(Conflict, match=f"job dog-1 is no longer {state.value} in attempt"):
            await ledger.advance(job, events[state])
        assert await everything(ledger) == before


async def test_two_claims_at_once_are_one_submission(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        results = await asyncio.gather(*(ledger.advance(job, e.Claimed()) for _ in range(5)), return_exceptions=True)
        assert [type(r) for r in results] == [Job, *[Conflict] * 4]
        assert await money(ledger) == (0, 630, 0)


async def test_what_nobody_asks_for_any_more_is_not_claimed(path: Address, clock: FakeClock) -> None:
    """A final whose draft was rejected, or a shot that left the manifest, after its page was read."""
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        await ledger.record(batch(), [spec("other")])
        with pytest.raises(Conflict):
            await ledger.advance(job, e.Claimed())
        assert await money(ledger) == (0, 0, 0)


async def test_an_old_attempt_is_a_conflict(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        first = await ledger.advance(job, e.Claimed())
        again = await ledger.advance(first, e.NotSent(SEEN))
        await ledger.advance(again, e.Claimed())
        with pytest.raises(Conflict, match="no longer submitting in attempt 1"):
            await ledger.advance(first, e.Accepted("t"))


async def test_a_task_belongs_to_one_submission(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        one, two = await with_jobs(ledger, [spec("a"), spec("b")])
        await drive(ledger, one, e.Claimed(), e.Accepted("task_1"))
        two = await drive(ledger, two, e.Claimed())
        before = await everything(ledger)
        with pytest.raises(DuplicateTask, match="task task_1 belongs to job a-1 already") as raised:
            await ledger.advance(two, e.Accepted("task_1"))
        assert (raised.value.task_id, raised.value.job) == ("task_1", "a-1")
        two = await ledger.advance(two, e.Ambiguous(SEEN))
        with pytest.raises(DuplicateTask):
            await ledger.advance(two, e.Identified("task_1", "me"))
        await ledger.advance(two, e.Identified("task_2", "me"))
        assert len(await everything(ledger)) > len(before)


async def test_a_task_of_an_earlier_attempt_of_the_same_job(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, e.Claimed(), e.Accepted("t1"), e.TaskFailed(SEEN, again=True), e.Claimed())
        with pytest.raises(DuplicateTask, match="belongs to job dog-1 already"):
            await ledger.advance(job, e.Accepted("t1"))


# --- Budget ----------------------------------------------------------------------------------------------


async def test_budget_exactly_at_the_boundary(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        a, b, c = await with_jobs(ledger, [spec("a"), spec("b"), spec("c", credits=1)], max_credits=1260)
        await ledger.advance(a, e.Claimed())
        await ledger.advance(b, e.Claimed())
        before = await everything(ledger)
        with pytest.raises(BudgetExhausted, match=r"^c-1 needs 1 credits and 0 of 1260 are left$"):
            await ledger.advance(c, e.Claimed())
        assert await everything(ledger) == before
        assert await money(ledger) == (0, 1260, 0)


async def test_one_credit_short(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()], max_credits=629)
        with pytest.raises(BudgetExhausted, match="needs 630 credits and 629 of 629 are left"):
            await ledger.advance(job, e.Claimed())


async def test_a_crowd_never_goes_beyond_the_budget(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        jobs = await with_jobs(ledger, [spec(f"s{n}", credits=100) for n in range(50)], max_credits=1050)
        results = await asyncio.gather(*(ledger.advance(j, e.Claimed()) for j in jobs), return_exceptions=True)
        assert sum(isinstance(r, Job) for r in results) == 10
        assert sum(isinstance(r, BudgetExhausted) for r in results) == 40
        assert await money(ledger) == (0, 1000, 0)


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ((e.Claimed(), e.NotSent(SEEN)), 630),
        ((e.Claimed(), e.Throttled(SEEN)), 630),
        ((e.Claimed(), e.Refused(e.Refusal.CREDIT, SEEN)), 630),
        ((e.Claimed(), e.Rejected(SEEN)), 630),
        ((e.Claimed(), e.Accepted("t"), e.TaskFailed(SEEN)), 630),
        ((e.Claimed(), e.Accepted("t")), 0),
        ((e.Claimed(), e.Ambiguous(SEEN)), 0),
        ((e.Claimed(), e.Interrupted()), 0),
        ((e.Claimed(), e.Ambiguous(SEEN), e.Abandoned("me")), 0),
        ((e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me")), 0),
        ((e.Claimed(), e.Accepted("t"), e.Vanished(SEEN)), 0),
        ((e.Claimed(), e.Accepted("t"), e.Completed(())), 0),
        ((e.Claimed(), e.Accepted("t"), e.Completed((), credits=600)), 30),
        ((e.Claimed(), e.Accepted("t"), e.Completed((), credits=0)), 630),
    ],
    ids=lambda v: type(v[-1]).__name__.lower() if isinstance(v, tuple) else str(v),
)
async def test_a_refund_gives_budget_back_and_a_doubt_does_not(
    path: Address, clock: FakeClock, events: tuple[e.Event, ...], left: int
) -> None:
    async with open_ledger(path, clock) as ledger:
        one, two = await with_jobs(ledger, [spec("a"), spec("b", credits=left + 1)], max_credits=630)
        await drive(ledger, one, *events)
        assert sum(await money(ledger)) == 630 - left
        (attempt,) = await rows(ledger, "SELECT money, ended_at FROM attempt")
        assert (attempt["ended_at"] == START) is (attempt["money"] in {"spent", "none"})
        with pytest.raises(BudgetExhausted, match=f"{left} of 630 are left"):
            await ledger.advance(two, e.Claimed())
        await ledger.advance(replace(two, credits=left), e.Claimed())


async def test_money_at_risk_stays_and_the_new_submission_counts_as_well(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me", "go on"))
        assert await money(ledger) == (0, 0, 630)
        job = await drive(ledger, job, e.Claimed())
        assert await money(ledger) == (0, 630, 630)
        await drive(ledger, job, e.Accepted("t"), e.Completed(()))
        assert await money(ledger) == (630, 0, 630)


async def test_identified_money_is_reserved_again(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        await drive(ledger, job, e.Claimed(), e.Ambiguous(SEEN), e.Identified("t", "me"))
        assert await money(ledger) == (0, 630, 0)


async def test_an_unknown_price_reserves_nothing(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec(credits=None)])
        await drive(ledger, job, e.Claimed(), e.Accepted("t"), e.Completed((), credits=55))
        assert await money(ledger) == (55, 0, 0)


async def test_the_cap_can_be_lowered_only(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        await with_jobs(ledger, [spec()], max_credits=1000)
        for cap, expected in ((2000, 1000), (700, 700), (900, 700)):
            await ledger.cap(["night", "no such batch"], cap)
            assert (await rows(ledger, "SELECT max_credits FROM batch"))[0]["max_credits"] == expected
        await with_jobs(ledger, [spec()], name="free", output_dir="/other")
        await ledger.cap(["free"], 50)
        assert (await rows(ledger, "SELECT max_credits FROM batch WHERE name = 'free'"))[0]["max_credits"] == 50


async def test_money_of_several_batches(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (one,) = await with_jobs(ledger, [spec("a")])
        (two,) = await with_jobs(ledger, [spec("b", credits=5)], name="other", output_dir="/o")
        await drive(ledger, one, e.Claimed(), e.Accepted("t"), e.Completed(()))
        await drive(ledger, two, e.Claimed(), e.Ambiguous(SEEN))
        assert await ledger.money([1, 2]) == {"spent": 630, "reserved": 0, "at_risk": 5}
        assert await ledger.money([2]) == {"spent": 0, "reserved": 0, "at_risk": 5}
        assert await ledger.money([]) == {"spent": 0, "reserved": 0, "at_risk": 0}


# --- Consent and retries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        (e.Claimed(), e.Ambiguous(SEEN), e.Resubmitted("me", "why not")),
        (e.Claimed(), e.Ambiguous(SEEN), e.Abandoned("me"), e.Retried("me", "why not")),
        (e.Claimed(), e.Accepted("t"), e.Vanished(SEEN), e.Retried("me", "why not")),
        (
            *(
                e.Claimed(),
                e.Accepted("t"),
                e.Completed(("u",)),
                e.LinkDied(SEEN),
                e.Completed(("u",)),
                e.LinkDied(SEEN),
            ),
            e.Retried("me", "why not"),
        ),
    ],
    ids=["resubmitted", "abandoned", "lost", "expired"],
)
async def test_a_second_payment_has_a_recorded_word(
    path: Address, clock: FakeClock, events: tuple[e.Event, ...]
) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, *events)
        assert job.fact == Pending(1)
        assert (await rows(ledger, "SELECT consent FROM attempt"))[0]["consent"] == "me: why not"
        assert (await rows(ledger, "SELECT who, reason FROM history"))[-1] == {"who": "me", "reason": "why not"}
        job = await ledger.advance(job, e.Claimed())
        assert [r["consent"] for r in await rows(ledger, "SELECT consent FROM attempt ORDER BY number")] == [
            "me: why not",
            None,
        ]


async def test_a_refunded_attempt_gets_no_consent(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, *path_to(State.FAILED), e.Retried("me"))
        assert (await rows(ledger, "SELECT consent, outcome FROM attempt"))[0] == {
            "consent": None,
            "outcome": "rejected",
        }
        await ledger.advance(job, e.Claimed())


async def test_a_withdrawn_job_leaves_its_last_attempt_as_it_was(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        await drive(ledger, job, e.Claimed(), e.NotSent(SEEN), e.Withdrawn("me", "enough"))
        (attempt,) = await rows(ledger, "SELECT outcome, money FROM attempt")
        assert attempt == {"outcome": "notsent", "money": "none"}


async def test_retries_are_counted_by_kind_and_forgiven_by_a_person(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, e.Claimed(), e.Accepted("t1"), e.TaskFailed(SEEN, again=True, retry_at=5.0))
        assert (job.fact, job.retries_used) == (Pending(1, 5.0), RetryBudget(1, 0))
        job = await drive(ledger, job, e.Claimed(), e.Accepted("t2"), e.TaskFailed(SEEN, moderated=True, again=True))
        assert job.retries_used == RetryBudget(1, 1)
        assert await stored(ledger, job) == job
        job = await drive(ledger, job, e.Claimed(), e.Accepted("t3"), e.TaskFailed(SEEN, moderated=True))
        assert job.retries_used == RetryBudget(1, 1)
        assert job.fact == Failed(3, FailureKind.MODERATED, SEEN, "t3")
        job = await ledger.advance(job, e.Retried("me"))
        assert job.retries_used == RetryBudget()
        assert await stored(ledger, job) == job
        assert await ledger.task_ids(job) == ["t1", "t2", "t3"]


# --- Disasters -------------------------------------------------------------------------------------------


@pytest.mark.store(["sqlite"])
async def test_a_full_disk_stops_a_transition_and_nothing_of_it_stays(path: Path, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await ledger.advance(job, e.Claimed())
        limit = await ledger.query(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await ledger.query(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())
        before = await everything(ledger)
        long = Problem("x" * 20_000)
        with pytest.raises(WriteFailed, match="disk is full"):
            await ledger.advance(job, e.Ambiguous(long))
        assert await everything(ledger) == before
        await ledger.query(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        job = await ledger.advance(job, e.Ambiguous(long))
        assert await stored(ledger, job) == job


async def test_a_cancelled_caller_does_not_take_its_transition_back(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await ledger.advance(job, e.Claimed())
        waiting = asyncio.ensure_future(ledger.advance(job, e.Accepted("task_1")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with open_ledger(path, clock) as again:
        assert (await stored(again, job)).fact == Running(1, "task_1")


async def test_close_writes_what_nobody_waits_for(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        ledger.save_latencies([(job.model, job.seconds, 12.5)])
    async with open_ledger(path, clock) as again:
        assert await again.latencies() == [("kling-3-0-turbo", 5, 12.5)]


async def test_a_failure_that_nobody_waits_for_is_silent(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        ledger.save_latencies([(job.model, job.seconds, -1.0)])
        ledger.save_latencies([(job.model, job.seconds, 3.0)])
        await ledger.advance(job, e.Claimed())
        assert await ledger.latencies() == [("kling-3-0-turbo", 5, 3.0)]


@pytest.mark.store(["sqlite"])
async def test_a_ledger_without_a_thread_or_a_lock(path: Path, clock: FakeClock) -> None:
    """As tests on virtual time use it."""
    ledger = Ledger(InlineDatabase(open_writer(path)), clock.wall)
    (job,) = await with_jobs(ledger, [spec()])
    job = await drive(ledger, job, *path_to(State.SUCCEEDED))
    assert await stored(ledger, job) == job
    await ledger.close()


# --- The history's words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (e.Claimed(), "intent recorded"),
        (e.Accepted("t"), "task t"),
        (e.Identified("t", "me"), "task t"),
        (e.Identified("t", "me", "on the web page"), "task t: on the web page"),
        (e.Resubmitted("me", "go"), "go"),
        (e.Withdrawn("me"), ""),
        (e.Stored(Output("/f", "aa", 12)), "/f (12 bytes)"),
        (e.Completed(()), "0 outputs"),
        (e.Completed(("u",)), "1 output"),
        (e.Completed(("u", "v")), "2 outputs"),
        (e.Ambiguous(Problem("reset")), "reset"),
        (e.Rejected(Problem("no", 40001, 400, "r")), "no; code 40001; HTTP 400; request r"),
        (e.Vanished(Problem("gone", "missing")), "gone; code missing"),
    ],
)
def test_reasons(event: e.Event, reason: str) -> None:
    assert reason_of(event) == reason


@pytest.mark.parametrize("code", [80006, "timeout", None, "80006"])
async def test_a_code_keeps_its_type(path: Address, clock: FakeClock, code: int | str | None) -> None:
    async with open_ledger(path, clock) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        job = await drive(ledger, job, e.Claimed(), e.Rejected(Problem("no", code, 400, "r")))
        assert (await stored(ledger, job)).fact == job.fact
        assert json.dumps(code) == json.dumps((await rows(ledger, "SELECT error_code FROM job"))[0]["error_code"])
