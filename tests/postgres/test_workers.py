"""Several workers on one ledger in PostgreSQL, and what may happen to them: each job once, all of them to their ends.

One seed of each in the gate, and few jobs; `make cluster-long` has 300 jobs and 20 seeds, and looks at the rate too.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.double import Double
from tests.postgres.fleet import RATE, WORKERS, Fleet, cut_off, fleet, frozen, killed, restarted
from tests.postgres.server import Postgres
from tests.postgres.test_kill import look

SEEDS = int(os.environ.get("BATCHRUNNER_CLUSTER_SEEDS", "0"))
LONG = SEEDS > 0
JOBS = 300 if LONG else 40
PRUNE = 6.0 if LONG else 2.0

pytest.importorskip("procrastinate")


def check(made: Fleet) -> None:
    """All jobs have ended, none was accepted twice, and ledger, files and account agree."""
    account = made.account()
    states = made.states()
    assert set(states) <= {"succeeded", "unconfirmed"}, made.said()
    labels = [task.label for task in account.tasks]
    assert len(set(labels)) == len(labels), "paid twice"
    look(made.server, made.line, account, 3 if states["unconfirmed"] else 0)
    if LONG:
        assert made.worst_second() <= 1.1 * RATE / 60


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [killed, frozen, restarted, cut_off], ids=lambda t: t.__name__)
@pytest.mark.parametrize("seed", range(SEEDS or 1))
def test_whatever_happens_to_a_worker_each_job_is_paid_once_and_ends(
    double: Double,
    postgres: Postgres,
    tmp_path: Path,
    trouble: Callable[[Fleet, random.Random], None],
    seed: int,
) -> None:
    with fleet(tmp_path, double, postgres, cut=trouble is cut_off, jobs=JOBS, prune=PRUNE) as made:
        for _ in range(WORKERS):
            made.worker()

        trouble(made, random.Random(seed))

        codes = [made.ended(number) for number in range(WORKERS)]
        assert codes == [-signal.SIGKILL if trouble is killed else 0, 0], made.said()
        check(made)
        doubtful = made.states()["unconfirmed"]
        if trouble is killed:
            known = {row[0] for row in made.postgres.ask(f'SELECT task_id FROM "{made.server.schema}".attempt')}
            lost = sum(task.id not in known for task in made.account().tasks)
            assert doubtful >= lost, "what was accepted and not read is in doubt"
            assert doubtful <= 32, "no more than can be on the wire"
        else:  # whoever lives reads the answers, however late
            sent = {post.label for post in made.account().posts}
            rows = made.postgres.ask(f"SELECT key FROM \"{made.server.schema}\".job WHERE state = 'unconfirmed'")
            assert not sent & {row[0] for row in rows}, made.said()
