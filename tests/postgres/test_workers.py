"""Several workers on one ledger in PostgreSQL, and what may happen to them: each job once, all of them to their ends.

One seed of each in the gate, and few jobs; `make cluster-long` has 300 jobs and 20 seeds, and looks at the rate too
(`long`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchrunner.ledger.postgres.opening import open_writer
from tests.cli_support import MANIFEST, call
from tests.double import CREDITS, Double
from tests.integration.test_notify import listening
from tests.postgres.fleet import WORKERS, Fleet, fleet
from tests.postgres.server import Postgres
from tests.postgres.test_postgres_kill import look
from tests.postgres.trouble import TROUBLES, play

JOBS = 40
PRUNE = 2.0

pytest.importorskip("procrastinate")


def check(made: Fleet) -> None:
    """All jobs have ended, none was accepted twice, and ledger, files and account agree."""
    account = made.account()
    states = made.states()
    assert set(states) <= {"succeeded", "unconfirmed"}, made.said()
    labels = [task.label for task in account.tasks]
    assert len(set(labels)) == len(labels), "paid twice"
    look(made.server, made.line, account, 3 if states["unconfirmed"] else 0)


def dead(made: Fleet, point: str, *arguments: str) -> int:
    """The exit code of a command that kills itself at the first such point (`dies`)."""
    command = [sys.executable, "-m", "tests.postgres.dies", point, "1", *arguments]
    environment = {**made.line._environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=made.folder, env=environment, capture_output=True, timeout=60).returncode


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_happens_to_a_worker_each_job_is_paid_once_and_ends(
    double: Double, postgres: Postgres, tmp_path: Path, trouble: str
) -> None:
    seen = play(trouble, 0, tmp_path, double, postgres, jobs=JOBS, prune=PRUNE, paced=False)

    assert seen.wrong == [], seen.said
    assert sum(seen.states.values()) == JOBS


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_leaves_nothing_in_doubt(
    double: Double, postgres: Postgres, tmp_path: Path
) -> None:
    with fleet(tmp_path, double, postgres, jobs=JOBS, prune=PRUNE) as made:
        first, second = made.worker("--only", "submit"), made.worker("--only", "submit")
        made.worker("--only", "download")
        made.posted(5)

        made.processes[first].send_signal(signal.SIGTERM)

        assert made.ended(first) == 143, made.said()
        ended = made.postgres.ask(f'SELECT exit_code, stop FROM "{made.server.schema}".worker WHERE stop IS NOT NULL')
        assert ended == [(143, "terminated")]
        assert made.ended(second) == 0, made.said()
        assert made.ended(2) == 0, made.said()
        check(made)
        assert not made.states()["unconfirmed"]


@pytest.mark.slow
def test_a_run_looks_on_words_are_heard_the_budget_holds_and_one_tells(
    double: Double, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = f"budget: {{max_credits: {10 * CREDITS}}}\nnotify: [{{webhook: {{url_env: HOOK}}}}]"
    with listening() as seen, fleet(tmp_path, double, postgres, jobs=20, prune=PRUNE, more=more) as made:
        monkeypatch.setenv("HOOK", seen.url())
        for _ in range(WORKERS):
            made.worker()
        made.posted(2)

        run = made.line.start("run", "night.yaml")
        run.until("progress")
        workers = made.ask("status")["workers"]

        assert run.end() == 4, made.said()
        assert (run.events[-1]["stop"], run.events[-1]["credits"]["spent"]) == ("budget", 10 * CREDITS)
        assert [(one["pid"], one["alive"]) for one in workers] == [(p.pid, True) for p in made.processes]
        left = made.postgres.ask(f"SELECT key FROM \"{made.server.schema}\".job WHERE state = 'pending'")[0][0]
        said = made.ask("cancel", f"night/{left}")
        assert [one["job"] for one in said["cancelled"]] == [left], said
        assert made.states() == {"succeeded": 10, "cancelled": 1, "pending": 9}
        assert len(made.account().tasks) == 10
        made.until(seen.asked.is_set)
        for process in made.processes:
            process.send_signal(signal.SIGTERM)
        assert [made.ended(number) for number in range(WORKERS)] == [143, 143]
        [(_, _, body)] = seen.requests
        notice = json.loads(body)
        assert (notice["outcome"], notice["stop"], notice["worker"] in (1, 2)) == ("stopped", "budget", True)


OF_A_BATCH = """
SELECT (SELECT count(*) FROM {0}.job WHERE batch_id = b.id),
  (SELECT count(*) FROM {0}.job JOIN {0}.procrastinate_jobs p ON p.args->>'job_id' = job.id::text
   WHERE batch_id = b.id),
  (SELECT count(*) FROM {0}.given WHERE batch_id = b.id)
FROM {0}.batch b WHERE name = 'other'
"""
"""Jobs of it that are recorded, that are deferred, and whether workers are to do it."""


@pytest.mark.slow
@pytest.mark.parametrize(("point", "found"), [("commit.ready", []), ("commit.sent", [(3, 3, 1)])])
def test_what_is_recorded_is_left_to_workers_whenever_one_dies(
    double: Double, postgres: Postgres, tmp_path: Path, point: str, found: list[tuple[int, ...]]
) -> None:
    with fleet(tmp_path, double, postgres, jobs=3, prune=PRUNE) as made:
        sql = OF_A_BATCH.format(made.server.schema)
        text = (tmp_path / "night.yaml").read_text().replace("batch: night", "batch: other")
        (tmp_path / "other.yaml").write_text(text.replace("dir: out", "dir: used"))
        (tmp_path / "used").mkdir()
        taken = tmp_path / "used" / "clip-2.mp4"  # so that all is rehearsed
        taken.write_bytes(b"mine")

        assert made.line.call("run", "other.yaml", "--detach") == 2
        assert postgres.ask(sql) == [], "nothing is left where an output can't be"
        taken.rename(tmp_path / "used" / "mine.mp4")
        assert dead(made, point, "run", "other.yaml", "--detach") == -signal.SIGKILL

        assert postgres.ask(sql) == found


def test_what_workers_can_t_do_is_refused(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("night.yaml").write_text(MANIFEST)
    server = postgres.ledger()
    url = f"{server.url}?schema={server.schema}"

    in_a_file = call("worker", "--db", "night.db")
    assert (in_a_file.code, "postgresql://HOST/NAME" in in_a_file.err) == (2, True)
    to_nobody = call("run", "night.yaml", "--detach", "--db", "night.db")
    assert (to_nobody.code, "--db postgresql://" in to_nobody.err) == (2, True)
    no_ledger = call("worker", "--db", url)
    assert (no_ledger.code, "Traceback" in no_ledger.err) == (2, False)
    a_part = call("run", "night.yaml", "--detach", "--only", "nobody", "--db", url)
    assert (a_part.code, "--only nobody selects no job" in a_part.err) == (2, True)
    assert call("ledger", "migrate", "--db", url).code == 0
    with closing(open_writer(server)):
        busy = call("run", "night.yaml", "--detach", "--db", url)
    assert (busy.code, "another batchrunner" in busy.err) == (5, True)
    assert postgres.ask(f'SELECT count(*) FROM "{server.schema}".job') == [(0,)]
    assert call("run", "night.yaml", "--detach", "--db", url).code == 0
    assert postgres.ask(f'SELECT count(*) FROM "{server.schema}".procrastinate_jobs') == [(3,)]
    assert call("run", "night.yaml", "--detach", "--db", url).code == 0
    assert postgres.ask(f'SELECT count(*) FROM "{server.schema}".procrastinate_jobs') == [(3,)], "once is enough"
