"""What asking for a submission does to the account, and to a job that a person has settled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, Problem, State, Unconfirmed
from batchrunner.core.lifecycle import advance
from batchrunner.engine.clock import Dice
from batchrunner.engine.control import Control, Stop
from batchrunner.engine.lookup import TRIES, Lookups
from batchrunner.engine.pacer import Pacer
from batchrunner.engine.ports import Deps, Settings
from batchrunner.engine.slots import Slots
from batchrunner.ledger.errors import Conflict, WriteFailed
from batchrunner.providers.base import Balance, CancelAsked, Found, LookupAnswer, NotFound, Unavailable
from tests.support import FakeClock

JOB = Job(7, 1, "dog-1", "beacon", "m", {}, 5, "dog-1", False, Unconfirmed(1, Problem("lost")))


class Provider:
    """Answers lookups from a list; the last again and again."""

    name = "beacon"
    origin = "https://beacon.example"
    loopback = False

    def __init__(self, *answers: LookupAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: Any, *, label: str = "", token: str = ""
    ) -> e.SubmitAnswer:
        raise AssertionError("nothing is sent by a lookup")

    async def lookup(self, token: str, model: str) -> LookupAnswer:
        self.asked.append(token)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def poll(self, task_id: str, model: str = "") -> e.PollAnswer:
        return e.StillRunning()

    async def balance(self) -> Balance:
        return Balance(0)

    async def cancel(self, task_id: str, model: str = "") -> CancelAsked:
        return CancelAsked()

    async def aclose(self) -> None:
        pass


class Books:
    """The ledger and the deps that a lookup needs, in memory."""

    def __init__(self, provider: Provider, refused: Exception | None = None) -> None:
        self.provider, self.refused = provider, refused
        self.clock = FakeClock()
        self.dice = Dice(1)
        self.ledger = self
        self.notes: list[str] = []
        self.holds: list[float] = []
        self.events: list[e.Event] = []

    async def token(self, job: Job, attempt: int) -> str:
        return f"{job.key}/{attempt}"

    async def note_lookup(self, job: Job, said: str, who: str) -> None:
        self.notes.append(f"{who}: {said}")

    async def advance(self, job: Job, event: e.Event) -> Job:
        if self.refused is not None:
            raise self.refused
        self.events.append(event)
        return Job(**{**{n: getattr(job, n) for n in Job.__slots__}, "fact": advance(job.fact, event)})

    def save_hold(self, provider: str, until: float) -> None:
        self.holds.append(until)

    def save_pace(self, provider: str, learned: object) -> None:
        pass

    def crash(self, point: str) -> None:
        pass

    def observe(self, event: str, job: Job | None = None, /, **data: Any) -> None:
        pass


async def asked(
    books: Books, *, ended: bool = False, consent: str = "", again: list[Job] | None = None
) -> tuple[list[Job], Control]:
    """Ask for the one job until nothing is being asked."""
    found: list[Job] = []
    sent_again = [] if again is None else again
    idle = asyncio.Event()
    control = Control(books.clock, books.dice, lambda _stop, _message: None)
    if ended:
        control.give_up()
    deps = cast("Deps", books)
    pacer = Pacer(deps, Settings(), Slots(5))
    lookups = Lookups(deps, control, Settings(), pacer, found.append, sent_again.append, idle.set)
    lookups.ask(JOB, consent)
    if not lookups.idle:
        await asyncio.wait_for(idle.wait(), 10)
    await lookups.close()
    assert control.error is None
    return found, control


async def test_what_is_found_runs_on() -> None:
    books = Books(Provider(NotFound(Problem("not yet")), Found("task-1")))
    (job,), _ = await asked(books)
    assert (job.state, books.provider.asked, books.notes) == (State.RUNNING, ["dog-1/1"] * 2, [])


async def test_what_is_not_found_is_noted_and_nothing_else_happens() -> None:
    books = Books(Provider(NotFound(Problem("no such thing"))))
    found, _ = await asked(books)
    assert (found, books.events, len(books.provider.asked)) == ([], [], TRIES)
    assert books.notes == ["beacon: the service knows nothing of it: no such thing"]


@pytest.mark.parametrize(
    ("answer", "again"),
    [(NotFound(Problem("no")), 1), (Found("task-1"), 0), (Found("../x"), 0), (Unavailable(Problem("?")), 0)],
)
async def test_a_word_said_before_counts_where_nothing_is_known_and_nowhere_else(
    answer: LookupAnswer, again: int
) -> None:
    books, pending = Books(Provider(answer)), list[Job]()
    await asked(books, consent="me", again=pending)
    assert [j.state for j in pending] == [State.PENDING] * again
    assert sum(isinstance(event, e.Resubmitted) for event in books.events) == again


async def test_an_id_that_can_not_be_one_is_not_found() -> None:
    books = Books(Provider(Found("../balance")))
    found, _ = await asked(books)
    assert (found, books.events) == ([], [])
    assert books.notes == ["beacon: the service's answer names no usable task"]


async def test_a_429_holds_the_account_and_is_asked_again_after_it() -> None:
    books = Books(Provider(e.Throttled(Problem("slow down"), 30.0), Found("task-1")))
    before = books.clock.wall()
    found, _ = await asked(books)
    assert len(found) == 1
    assert books.holds == [before + 30.0]
    assert books.clock.wall() >= before + 30.0


async def test_a_refused_key_stops_the_account() -> None:
    books = Books(Provider(e.Refused(e.Refusal.CREDENTIALS, Problem("no"))))
    found, control = await asked(books)
    assert (found, control.stop, len(books.provider.asked)) == ([], Stop.CREDENTIALS, 1)


async def test_a_service_that_does_not_answer_is_asked_a_few_times() -> None:
    books = Books(Provider(Unavailable(Problem("reset"))))
    await asked(books)
    assert books.notes == ["beacon: the service could not be asked: reset"]
    assert len(books.provider.asked) == TRIES


async def test_a_persons_word_that_came_first_stands() -> None:
    books = Books(Provider(Found("task-1")), Conflict("no longer unconfirmed"))
    found, control = await asked(books)
    assert (found, control.stop, books.notes) == ([], None, [])


async def test_a_ledger_that_can_not_be_written_stops_the_run() -> None:
    books = Books(Provider(Found("task-1")), WriteFailed("the disk is full"))
    found, control = await asked(books)
    assert (found, control.stop) == ([], Stop.LEDGER)


async def test_nothing_is_asked_when_the_run_has_ended() -> None:
    books = Books(Provider(Found("task-1")))
    assert (await asked(books, ended=True))[0] == []
    assert books.provider.asked == []
