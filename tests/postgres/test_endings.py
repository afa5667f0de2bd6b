"""The end of a batch that was left to workers is told once, whoever ends it; and who they were can be seen."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from batchrunner.cli.telling import Teller, logging
from batchrunner.core import events as e
from batchrunner.core.job import Output, Problem
from batchrunner.core.notice import Outcome, Sink, Webhook, is_kept, kept, restored
from batchrunner.ledger.migrating import migrate
from batchrunner.ledger.postgres import endings, peers
from batchrunner.ledger.postgres.opening import prepare_shared
from batchrunner.ledger.postgres.shared import SharedLedger
from batchrunner.ledger.runs import LATENCIES_KEPT
from batchrunner.runs import LEFT_TO_WORKERS, RunResult, Watcher
from tests.cli_support import call
from tests.double import Double
from tests.integration.test_notify import Seen, listening
from tests.postgres.fleet import Fleet, fleet
from tests.postgres.server import Postgres
from tests.postgres.test_shared import PRUNE, job, two
from tests.support import FakeClock

pytest.importorskip("procrastinate")

SAMPLE = "INSERT INTO latency (model, seconds, took) VALUES (?, ?, ?)"
NOTIFY = "notify:\n  - webhook: {url_env: HOOK}\n    on: always"


@pytest.mark.slow
def test_a_worker_dies_and_the_other_tells_once_how_it_ended(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as seen:
        monkeypatch.setenv("HOOK", seen.url())
        with fleet(tmp_path, double, postgres, jobs=12, prune=2.0, more=NOTIFY) as made:
            assert seen.requests == [], "it was recorded, and has not ended"
            made.worker()
            made.posted(4)  # so it is known to all before it dies
            made.worker()
            made.processes[0].kill()
            made.ended(0)
            assert made.ended(1) == 0, made.said()
            made.worker()  # one that comes later, and has nothing to tell
            assert made.line.call("run", "night.yaml", "--detach") in (0, 3)
            assert made.ended(2) == 0, made.said()

            [(_, _, body)] = seen.requests
            notice = json.loads(body)
            states = {state: n for state, n in notice["batches"][0]["states"].items() if n}
            assert states == made.states()
            assert (notice["outcome"], notice["exit_code"]) == (
                ("unconfirmed", 3) if states.get("unconfirmed") else ("succeeded", 0)
            )
            pids = dict(made.postgres.ask(f'SELECT id, pid FROM "{made.server.schema}".worker'))
            assert notice["ending"].split("/")[1:] == ["night", "12"]
            assert pids[notice["worker"]] == made.processes[1].pid

            db = ("--db", f"{made.server.url}?schema={made.server.schema}")
            told = call("status", *db).out
            assert "left to workers by" in told
            [dead] = call("status", "--json", *db).json["workers"]
            assert (dead["pid"], dead["silent_seconds"] > 0) == (made.processes[0].pid, True)
            sent = call("show", "clip-1", "--json", *db).json["sent_by"]
            assert (sent["host"], sent["pid"]) == (dead["host"], pids[sent["worker"]])
            page = tmp_path / "page.html"
            assert call("report", "night", "--no-stills", "--out", page, *db).code == 0
            text = page.read_text()
            assert "2 workers on 1 host." in text
            assert "<td>silent: taken for dead</td>" in text or "<td>at work</td>" in text
            assert "<td>ended with 0</td>" in text


@contextmanager
def telling(
    double: Double, postgres: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch, *, workers: int
) -> Iterator[tuple[Seen, Fleet]]:
    """Workers that have done a batch of one job, one of whom tells it and is not answered yet."""
    with listening() as seen:
        monkeypatch.setenv("HOOK", seen.url())
        seen.wait = threading.Event()
        with fleet(folder, double, postgres, jobs=1, prune=2.0, more=NOTIFY) as made:
            for _ in range(workers):
                made.worker()
            made.until(seen.asked.is_set)
            yield seen, made


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_tells_to_the_end(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with telling(double, postgres, tmp_path, monkeypatch, workers=1) as (seen, made):
        made.processes[0].send_signal(signal.SIGTERM)
        made.until(lambda: "no more submissions" in made.said())
        seen.go()
        assert made.ended(0) == 143, made.said()

        assert len(seen.requests) == 1
        [(told,)] = made.postgres.ask(f'SELECT told_at IS NOT NULL FROM "{made.server.schema}".ending')
        assert told, "nobody tells again"
        assert "night: done: 1 succeeded; spent" in made.said()


@pytest.mark.slow
def test_where_a_worker_dies_over_telling_another_tells_the_same(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with telling(double, postgres, tmp_path, monkeypatch, workers=2) as (seen, made):
        schema = made.server.schema
        [(pid,)] = made.postgres.ask(
            f'SELECT pid FROM "{schema}".ending JOIN "{schema}".worker ON worker.id = ending.worker_id'
        )
        [dead] = [n for n, process in enumerate(made.processes) if process.pid == pid]
        made.processes[dead].kill()
        made.ended(dead)
        seen.go()
        assert made.ended(1 - dead) == 0, made.said()

        first, second = (json.loads(body) for _, _, body in seen.requests)
        assert first["ending"] == second["ending"], "so one can tell that it is the same"
        assert first["worker"] != second["worker"]


async def test_of_all_workers_one_tells_and_another_where_that_one_is_dead(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        assert await one.write(partial(peers.give, batches=[1], who="somebody"))
        assert await one.read(endings.ended) == set()
        assert await claim(one) is None, "there is work left"
        for number in (1, 2, 3):
            await end(one, number)
        assert await other.read(endings.ended) == {1}

        mine = await claim(one)

        assert mine is not None
        assert mine.submissions == 3
        assert await claim(other) is None, "the other one tells"
        assert await claim(one) == mine, "as often as it takes"
        await one.write(partial(peers.leave, worker=one.worker, stop=None, code=0))
        assert await claim(other) == mine, "it has ended, and told nobody"
        await one.write(lambda c: c.executemany(SAMPLE, [("kling", 5, n) for n in range(LATENCIES_KEPT + 7)]))
        await other.write(partial(endings.told, ending=mine))
        assert [took for _, _, took in await one.latencies()] == list(range(7, LATENCIES_KEPT + 7)), "the newest"
        assert [await claim(ledger) for ledger in (one, other)] == [None, None]
        assert await one.read(partial(endings.was_told, batch=1))


async def test_a_batch_that_goes_on_ends_again(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        await one.write(partial(peers.give, batches=[1], who="somebody"))
        for number in (1, 2):
            await end(one, number)
        claimed = await one.advance(await job(one, 3), e.Claimed())
        running = await one.advance(claimed, e.Accepted("task-3"))
        assert await claim(one) is None, "one is running"
        failed = await one.advance(running, e.TaskFailed(Problem("no"), moderated=False))
        first = await claim(one)
        assert first is not None
        await one.write(partial(endings.told, ending=first))

        again = await one.advance(failed, e.Retried("somebody"))
        assert await claim(one) is None
        await end(one, again.id, "task-4")

        second = await claim(one)
        assert second is not None
        assert second.submissions == first.submissions + 1


def test_what_a_manifest_says_of_an_address_is_not_for_workers() -> None:
    hidden, named = Sink(Webhook(url="https://hook.test/s3cret")), Sink(Webhook(url_env="HOOK"))
    assert [is_kept(hidden), is_kept(named)] == [False, True]
    assert restored(kept([hidden, named])) == (named,)


def test_of_what_workers_do_the_run_tells_only_at_addresses_that_are_not_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    every = frozenset(Outcome)
    with listening() as seen, logging(Watcher(), None, "info") as log:
        (tmp_path / "own.yaml").write_text(f"notify:\n  - webhook: {{url: '{seen.url('/own')}'}}\n    on: always\n")
        monkeypatch.setenv("BATCHRUNNER_NOTIFY", str(tmp_path / "own.yaml"))
        monkeypatch.setenv("HOOK", seen.url("/named"))
        teller = Teller(tmp_path / "l.db", simulated=False, elsewhere=True)
        teller.of([("night", (Sink(Webhook(url=seen.url("/given")), every), Sink(Webhook(url_env="HOOK"), every)))])

        teller.of_result(RunResult(0, [], None, LEFT_TO_WORKERS, told_by_workers=True), log)
        assert (seen.requests, "nobody will be told at a url" in capsys.readouterr().err) == ([], True)
        teller.of_result(RunResult(0, [], None, "", told_by_workers=True), log)

        assert [path for path, _, _ in seen.requests] == ["/given"]


def test_a_ledger_of_before_gets_what_is_new(postgres: Postgres) -> None:
    server = postgres.ledger()
    migrate(server)
    postgres.ask(f'DROP TABLE "{server.schema}".ending')
    assert [prepare_shared(server), prepare_shared(server)] == [True, False]
    assert postgres.ask(f'SELECT count(*) FROM "{server.schema}".ending') == [(0,)]


async def claim(ledger: SharedLedger) -> endings.Ending | None:
    return await ledger.write(partial(endings.claim_end, batch=1, worker=ledger.worker, within=PRUNE))


async def end(ledger: SharedLedger, number: int, task: str = "") -> None:
    """Do a job to its end."""
    now = await ledger.advance(await job(ledger, number), e.Claimed())
    now = await ledger.advance(now, e.Accepted(task or f"task-{number}"))
    now = await ledger.advance(now, e.Completed(("https://cdn.test/a.mp4",), 630))
    await ledger.advance(now, e.Stored(Output(f"/out/{number}.mp4", "0" * 64, 1)))
