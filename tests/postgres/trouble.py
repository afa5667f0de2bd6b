"""What may happen to workers, and what must be true of them afterwards."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.double import Double
from tests.postgres.fleet import RATE, WORKERS, Fleet, fleet
from tests.postgres.server import Postgres
from tests.postgres.test_postgres_kill import look

ON_THE_WIRE = 32
"""Most submissions of one process that can be on the wire together."""

Trouble = Callable[[Fleet, random.Random], None]


def killed(made: Fleet, dice: random.Random) -> None:
    """`kill -9`, with POSTs in flight."""
    made.posted(dice.randrange(5, made.jobs // 2))
    made.processes[0].kill()


def frozen(made: Fleet, dice: random.Random) -> None:
    """SIGSTOP for longer than it takes to be taken for dead, and SIGCONT."""
    made.posted(dice.randrange(5, made.jobs // 2))
    made.processes[0].send_signal(signal.SIGSTOP)
    time.sleep(3.0 * made.prune)
    made.processes[0].send_signal(signal.SIGCONT)


def restarted(made: Fleet, dice: random.Random) -> None:
    """PostgreSQL is restarted, at times as if the power had failed."""
    made.posted(dice.randrange(5, made.jobs // 2))
    made.postgres.stop(dice.choice((signal.SIGINT, signal.SIGQUIT)))
    made.postgres.start()


def cut_off(made: Fleet, dice: random.Random) -> None:
    """The network between one of them and PostgreSQL is down for longer than it takes to be taken for dead."""
    made.posted(dice.randrange(5, made.jobs // 2))
    wire = made.wires[0]
    wire.down = True
    wire.sever()
    time.sleep(3.0 * made.prune)
    wire.down = False


def swallowed(made: Fleet, dice: random.Random) -> None:
    """The network between one of them and PostgreSQL swallows everything, with the connections open as before."""
    made.posted(dice.randrange(5, made.jobs // 2))
    wire = made.wires[0]
    wire.hole = True
    time.sleep(3.0 * made.prune)
    wire.hole = False


TROUBLES: dict[str, Trouble] = {one.__name__: one for one in (killed, frozen, restarted, cut_off, swallowed)}


@dataclass
class Seen:
    """One run, and what was seen of it.

    Attributes:
        codes: the workers' exit codes; negative for the signal that one died of.
        states: jobs by state, at the end.
        posts: POSTs that arrived.
        accepted: tasks that the service has made.
        twice: jobs of which it has made two.
        worst_second: most POSTs that arrived within a second.
        rate: POSTs a second that were allowed.
        in_doubt: jobs that are `unconfirmed`.
        never_sent: of these, those of which no POST arrived.
        seconds: that the run took.
        wrong: what must not be, each in words.
        said: what the workers have printed, where anything is wrong.
    """

    trouble: str
    seed: int
    jobs: int
    codes: list[int] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    posts: int = 0
    accepted: int = 0
    twice: list[str] = field(default_factory=list)
    worst_second: int = 0
    rate: float = RATE / 60
    in_doubt: int = 0
    never_sent: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    said: str = ""

    def line(self) -> str:
        """It in one line."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return (
            f"{self.trouble} {self.seed}: {states}; {self.posts} POSTs, {self.accepted} tasks, "
            f"{len(self.twice)} twice; {self.never_sent} of {self.in_doubt} in doubt never sent; "
            f"worst second {self.worst_second} of {self.rate:g}; ended with {self.codes}; {self.seconds:.0f} s: "
            f"{'; '.join(self.wrong) or 'good'}"
        )


def play(
    trouble: str, seed: int, folder: Path, double: Double, postgres: Postgres, *, jobs: int, prune: float, paced: bool
) -> Seen:
    """Let something happen to two workers, wait for their ends, and look.

    Args:
        trouble: one of `TROUBLES`.
        seed: when, and of which kind.
        folder: an empty one.
        double: the service.
        postgres: the server.
        jobs: of the batch.
        prune: seconds after which they take each other for dead.
        paced: whether the rate is looked at too, for which the machine must have time.
    """
    seen, began = Seen(trouble, seed, jobs), time.monotonic()
    cut = trouble in ("cut_off", "swallowed")
    with fleet(folder, double, postgres, cut=cut, jobs=jobs, prune=prune) as made:
        try:
            for _ in range(WORKERS):
                made.worker()
            TROUBLES[trouble](made, random.Random(seed))
            seen.codes = [made.ended(number) for number in range(WORKERS)]
            _look(seen, made, paced)
        except Exception as error:  # noqa: BLE001  whatever it is: the next run is played all the same
            seen.wrong.append("".join(traceback.format_exception_only(error)).strip()[:2000])
        if seen.wrong:
            seen.said = made.said()
    seen.seconds = round(time.monotonic() - began, 1)
    return seen


def _look(seen: Seen, made: Fleet, paced: bool) -> None:
    account, dead = made.account(), seen.trouble == "killed"
    seen.states, seen.posts, seen.accepted = dict(made.states()), len(account.posts), len(account.tasks)
    seen.twice = [label for label, count in Counter(task.label for task in account.tasks).items() if count > 1]
    seen.worst_second = made.worst_second()
    sent = {post.label for post in account.posts}
    doubts = _doubts(made)
    seen.in_doubt, seen.never_sent = len(doubts), len(doubts.keys() - sent)
    wrong = seen.wrong
    if seen.codes != [-signal.SIGKILL if dead else 0, 0]:
        wrong.append(f"the workers ended with {seen.codes}")
    if not seen.states.keys() <= {"succeeded", "unconfirmed"} or sum(seen.states.values()) != made.jobs:
        wrong.append(f"not all jobs have ended: {seen.states}")
    if seen.twice:
        wrong.append(f"paid twice: {seen.twice}")
    if paced and seen.worst_second > 1.1 * seen.rate:
        wrong.append(f"{seen.worst_second} POSTs within a second, {seen.rate:g} are allowed")
    if dead:
        known = {row[0] for row in made.postgres.ask(f'SELECT task_id FROM "{made.server.schema}".attempt')}
        lost = {task.label for task in account.tasks if task.id not in known}
        if not lost <= doubts.keys():
            wrong.append(f"accepted, not known and not in doubt: {sorted(lost - doubts.keys())}")
        if len(doubts) > ON_THE_WIRE:
            wrong.append(f"{len(doubts)} in doubt, and no more than {ON_THE_WIRE} can be on the wire")
        others = sorted(key for key, pid in doubts.items() if pid != made.processes[0].pid)
        if others:
            wrong.append(f"in doubt without a reason, as their worker lives: {others}")
    elif doubts.keys() & sent:  # whoever lives reads the answers, however late
        wrong.append(f"in doubt, although the worker that sent them lives: {sorted(doubts.keys() & sent)}")
    look(made.server, made.line, account, 3 if doubts else 0)


def _doubts(made: Fleet) -> dict[str, int]:
    """Key of each job in doubt -> the process that was to send it."""
    schema = made.server.schema
    rows = made.postgres.ask(
        f'SELECT job.key, worker.pid FROM "{schema}".job JOIN "{schema}".claim ON claim.job_id = job.id '
        f'AND claim.attempt = job.attempt JOIN "{schema}".worker ON worker.id = claim.worker_id '
        "WHERE job.state = 'unconfirmed'"
    )
    return dict(rows)
