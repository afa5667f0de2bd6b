"""Workers whose outputs go into a bucket: one of them is killed while an object is on the wire, the other goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.cli_support import call
from tests.double import Double
from tests.objects.bucket import Bucket
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres

pytest.importorskip("procrastinate")

OUTPUT = 'output: {dir: "s3://clips/nights/${batch}", name: "${shot}-${take}.mp4"}'


@pytest.mark.slow
def test_a_worker_dies_over_an_upload_and_another_brings_all_home(
    double: Double, postgres: Postgres, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.fault = lambda request: "stall" if request.puts_object and not bucket.stalled.is_set() else None
    with fleet(
        tmp_path, double, postgres, jobs=6, prune=2.0, delay=0.05, output=OUTPUT, environment=bucket.environment
    ) as made:
        made.worker()
        made.until(bucket.stalled.is_set)
        begun = [path.name for path in tmp_path.rglob("*.part")]
        bucket.fault = lambda _: None
        made.worker()
        made.processes[0].kill()
        made.ended(0)
        bucket.released.set()
        assert made.ended(1) == 0, made.said()

        states = made.states()
        jobs = call("jobs", "--json", "--db", f"{made.server.url}?schema={made.server.schema}").json
        account = made.account()

    done = [job for job in jobs if job["state"] == "succeeded"]
    objects = bucket.objects()
    assert set(states) <= {"succeeded", "unconfirmed"}
    assert len(done) == states["succeeded"] > 0
    assert len({task.label for task in account.tasks}) == len(account.tasks), "paid twice"
    assert {key for key in objects if key.endswith(".mp4")} == {f"nights/night/{job['job']}.mp4" for job in done}
    assert bucket.uploads() == []
    assert begun
    assert all(name.endswith(".w1.part") for name in begun), "each worker has names of its own"
    assert list(tmp_path.rglob("*.part")) == [], "what the dead one had begun is removed"
    for job in done:
        assert job["output"] == f"s3://clips/nights/night/{job['job']}.mp4"
        data = objects[f"nights/night/{job['job']}.mp4"]
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (job["sha256"], job["bytes"])
        assert json.loads(objects[f"nights/night/{job['job']}.mp4.json"])["task_id"] == job["task_id"]
