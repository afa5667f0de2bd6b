"""What may happen to a whole run: the same trouble for every job, or for some in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.network.downloads import to
from tests.network.polls import task
from tests.network.posts import answer, early, silence, throttled
from tests.network.stage import Act, Part, completed, created, drip, say, served, turns
from tests.network.table import Code
from tests.raw_server import envelope, http


@dataclass(frozen=True, slots=True)
class Storm:
    """A run of several jobs.

    Attributes:
        what: happens to it.
        parts: what each job meets, in the manifest's order.
        states: how many jobs end in which state.
        posts: POSTs that the server sees.
        exit: exit code.
        stop: why the run stopped early, as its summary says; None where it did not.
        in_flight: POSTs and tasks at once. 1 makes the order of the answers that of the manifest.
        code: `error.code` of those that did not end well, where it is one and the same.
        door: `open`, `closed` (nobody listens) or `tls` (asked for with https, which the server does not speak).
        patience, arguments: as in a `Group`.
    """

    what: str
    parts: Sequence[Part]
    states: Mapping[str, int]
    posts: int
    exit: int
    stop: str | None = None
    in_flight: int = 1
    code: Code = None
    door: str = "open"
    patience: Mapping[str, float] | None = None
    arguments: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        return [f"{shot}-1" for shot in self.shots]

    @property
    def shots(self) -> list[str]:
        return [f"clip{n}" for n in range(1, len(self.parts) + 1)]


def every(count: int, *posts: Act) -> list[Part]:
    """So many jobs, whose POSTs meet these acts by turns."""
    return [Part(post=posts[n % len(posts)]) for n in range(count)]


E500 = answer(500, envelope(60099))
E400 = answer(400, envelope(20003))
E401 = answer(401, envelope(10003))
E402 = answer(402, envelope(None, "insufficient credits"))
RESET = early(b"", "reset")
SLOW = Part(drip(lambda s: http(200, s.task())), drip(lambda s: http(200, s.done())), drip(lambda s: http(200, s.clip)))
BREAKER = "circuit breaker"

STORMS = [
    Storm(
        "429 to the first POST of every job",
        every(20, throttled(("Retry-After", "0"))),
        {"succeeded": 20},
        40,
        0,
        in_flight=20,
    ),
    Storm(
        "429 for a day: one is enough to hold all",
        every(5, answer(429, envelope(50001), ("Retry-After", "86400"))),
        {"pending": 5},
        1,
        4,
        "deadline",
        arguments=("--for", "4s"),
    ),
    Storm("500 to every POST", every(6, E500), {"unconfirmed": 3, "pending": 3}, 3, 3, BREAKER, code=60099),
    Storm("a reset after every POST", every(6, RESET), {"unconfirmed": 3, "pending": 3}, 3, 3, BREAKER),
    Storm(
        "silence after every POST",
        every(5, silence),
        {"unconfirmed": 3, "pending": 2},
        3,
        3,
        BREAKER,
        code="timeout",
        patience={"submit": 0.5},
    ),
    Storm("400 to every POST", every(8, E400), {"failed": 5, "pending": 3}, 5, 4, BREAKER, code=20003),
    Storm("400 and 500 by turns", every(8, E400, E500), {"failed": 3, "unconfirmed": 2, "pending": 3}, 5, 3, BREAKER),
    Storm("500 twice, then an id, by turns", every(6, E500, E500, created), {"unconfirmed": 4, "succeeded": 2}, 6, 3),
    Storm(
        "402 from the third POST on",
        [*every(2, created), *every(3, E402)],
        {"succeeded": 2, "pending": 3},
        3,
        4,
        "out of credit",
    ),
    Storm(
        "401 to one of three POSTs while the others' tasks run",
        [*[Part(poll=task("processing"))] * 2, Part(post=E401), Part()],
        {"running": 2, "pending": 2},
        3,
        6,
        "credentials refused",
        in_flight=3,
    ),
    Storm(
        "500 to the first two polls of every task",
        [Part(poll=turns(E500, E500, completed))] * 20,
        {"succeeded": 20},
        20,
        0,
        in_flight=20,
    ),
    Storm(
        "polls and downloads that fail by turns",
        [Part(poll=turns(RESET, completed), media=turns(E500, served)), Part(media=turns(to("{path}?1"), served))] * 5,
        {"succeeded": 10},
        10,
        0,
        in_flight=10,
    ),
    Storm("every answer byte by byte", [SLOW] * 10, {"succeeded": 10}, 10, 0, in_flight=10),
    Storm(
        "the task of another job in the answer",
        [Part(), Part(post=say(http(200, {"id": "task_clip1-1"})))],
        {"succeeded": 1, "unconfirmed": 1},
        2,
        3,
        code="duplicate_task_id",
    ),
    Storm(
        "no poll is answered any more",
        [Part(poll=RESET)] * 3,
        {"running": 3},
        3,
        6,
        "unreachable",
        in_flight=3,
        patience={"unreachable": 3.0},
    ),
    Storm(
        "nobody listens",
        every(3, created),
        {"pending": 3},
        0,
        6,
        "unreachable",
        door="closed",
        patience={"unreachable": 1.0},
    ),
    Storm(
        "no TLS where https was asked for",
        every(3, created),
        {"pending": 3},
        0,
        6,
        "unreachable",
        door="tls",
        patience={"unreachable": 1.0},
    ),
]


@dataclass(frozen=True, slots=True)
class Knock:
    """One job, whose first connection ends before its request was read to the end.

    Attributes:
        what: happens.
        read: so many bytes of the request are read; -1 for all but the last.
        end: `close` or `reset` then; or `speak`: an answer that nobody has asked for.
        state, money, exit: how it ends; money is that of the last submission. Where nothing had been sent the job is
            sent again, once, and comes home.
    """

    what: str
    read: int
    end: str
    state: str
    money: str
    exit: int


KNOCKS = [
    Knock("a close before a byte was sent", 0, "close", "succeeded", "spent", 0),
    Knock("a reset before a byte was sent", 0, "reset", "succeeded", "spent", 0),
    Knock("an answer before a byte was sent", 0, "speak", "succeeded", "spent", 0),
    Knock("a close after the first byte", 1, "close", "unconfirmed", "at_risk", 3),
    Knock("a reset after the first byte", 1, "reset", "unconfirmed", "at_risk", 3),
    Knock("a close within the head of the request", 150, "close", "unconfirmed", "at_risk", 3),
    Knock("a reset within the head of the request", 150, "reset", "unconfirmed", "at_risk", 3),
    Knock("a reset before the last byte of the request", -1, "reset", "unconfirmed", "at_risk", 3),
]
