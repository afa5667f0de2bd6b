"""The rules of the schema, with several writers at once. Today a ledger has one; the rules don't rest on that."""

from __future__ import annotations

import random
import threading

import psycopg

from tests.cli_support import make_ledger
from tests.postgres.server import Postgres
from tests.support import spec

WRITERS, JOBS, PRICE, PAID = 4, 24, 630, 10


def test_neither_the_budget_nor_a_job_is_claimed_twice(postgres: Postgres) -> None:
    """Each tries to claim every job, in an order of its own: as many are claimed as the cap allows, each once."""
    server = postgres.ledger()
    make_ledger(server, [(spec(f"s{n}", credits=PRICE), ()) for n in range(JOBS)], max_credits=PAID * PRICE + 1)
    start = threading.Barrier(WRITERS)
    refused: list[str] = []

    def claim_all(seed: int) -> None:
        jobs = list(range(1, JOBS + 1))
        random.Random(seed).shuffle(jobs)
        with psycopg.connect(postgres.url, options=f"-c search_path={server.schema}", autocommit=True) as connection:
            start.wait()
            for job in jobs:
                try:
                    with connection.transaction():
                        connection.execute(
                            "INSERT INTO attempt (job_id, number, batch_id, credits, money, intent_at) "
                            "VALUES (%s, 1, 1, %s, 'reserved', 0)",
                            (job, PRICE),
                        )
                        connection.execute(
                            "UPDATE job SET state = 'submitting', attempt = 1 WHERE id = %s AND state = 'pending'",
                            (job,),
                        )
                except psycopg.Error as error:
                    refused.append(error.diag.message_primary or "")

    writers = [threading.Thread(target=claim_all, args=(seed,)) for seed in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    schema = server.schema
    assert postgres.ask(f"SELECT reserved, spent, at_risk FROM {schema}.batch") == [(PAID * PRICE, 0, 0)]
    assert postgres.ask(f"SELECT count(*), count(DISTINCT job_id) FROM {schema}.attempt") == [(PAID, PAID)]
    assert postgres.ask(f"SELECT count(*) FROM {schema}.job WHERE state = 'submitting'") == [(PAID,)]
    assert set(refused) <= {"budget", "another submission needs consent", "deadlock detected"}
    assert len(refused) == WRITERS * JOBS - PAID
