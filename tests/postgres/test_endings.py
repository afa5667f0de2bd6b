"""The end of a batch that was left to workers is told once, whoever ends it; and who they were can be seen."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Output, Problem
from batchrunner.core.notice import Webhook, kept, restored
from batchrunner.ledger.postgres import endings, peers
from batchrunner.ledger.postgres.shared import SharedLedger
from tests.cli_support import call
from tests.double import Double
from tests.integration.test_notify import listening
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres
from tests.postgres.test_shared import PRUNE, job, two
from tests.support import FakeClock

pytest.importorskip("procrastinate")

NOTIFY = "notify:\n  - webhook: {url_env: HOOK}\n    on: always"


@pytest.mark.slow
def test_a_worker_dies_and_the_other_tells_once_how_it_ended(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as seen:
        monkeypatch.setenv("HOOK", seen.url())
        with fleet(tmp_path, double, postgres, jobs=12, prune=2.0, more=NOTIFY) as made:
            assert seen.requests == [], "it was recorded, and has not ended"
            for _ in range(2):
                made.worker()
            made.posted(4)
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
        await other.write(partial(endings.told, ending=mine))
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
    from batchrunner.core.notice import Sink, is_kept

    hidden, named = Sink(Webhook(url="https://hook.test/s3cret")), Sink(Webhook(url_env="HOOK"))
    assert [is_kept(hidden), is_kept(named)] == [False, True]
    assert restored(kept([hidden, named])) == (named,)


async def claim(ledger: SharedLedger) -> endings.Ending | None:
    return await ledger.write(partial(endings.claim_end, batch=1, worker=ledger.worker, within=PRUNE))


async def end(ledger: SharedLedger, number: int, task: str = "") -> None:
    """Do a job to its end."""
    now = await ledger.advance(await job(ledger, number), e.Claimed())
    now = await ledger.advance(now, e.Accepted(task or f"task-{number}"))
    now = await ledger.advance(now, e.Completed(("https://cdn.test/a.mp4",), 630))
    await ledger.advance(now, e.Stored(Output(f"/out/{number}.mp4", "0" * 64, 1)))
