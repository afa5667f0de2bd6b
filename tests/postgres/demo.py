"""A cluster on one machine, for people: `make demo-cluster`. A PostgreSQL of its own, the simulator, and two workers.

One of them is killed with submissions on the wire. What the service has charged is printed at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.postgres.server import Postgres, binaries, running

JOBS = 60
PATIENCE = 120.0

MANIFEST = f"""\
version: 1
batch: cluster
defaults: {{model: kling-3-0-turbo, duration: 5}}
limits: {{submits_per_minute: 600, in_flight: 20}}
budget: {{max_credits: 100000}}
output: {{dir: out}}
shots:
  - {{id: dog, prompt: a dog on a boat, takes: {JOBS}}}
"""


def main() -> int:
    if binaries() is None:
        print("no PostgreSQL server here: apt-get install --no-install-recommends postgresql", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="batchrunner-demo-") as folder, running() as postgres:
        return _demo(Path(folder), postgres)


def _demo(folder: Path, postgres: Postgres) -> int:
    (folder / "cluster.yaml").write_text(MANIFEST)
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_"))}
    environment = {
        **ours,
        "BATCHRUNNER_DB": postgres.url,
        "BATCHRUNNER_PRUNE": "5s",
        "XDG_STATE_HOME": str(folder / "state"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "REAPI_API_KEY": "rk_simulated",
    }
    children: list[subprocess.Popen[str]] = []

    def start(*words: str, **more: Any) -> subprocess.Popen[str]:
        print(f"$ batchrunner {' '.join(words)} &", flush=True)
        command = [sys.executable, "-m", "batchrunner", *words]
        child = subprocess.Popen(command, cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL, **more)
        children.append(child)
        return child

    def call(*words: str) -> int:
        print(f"\n$ batchrunner {' '.join(words)}", flush=True)
        return subprocess.run([sys.executable, "-m", "batchrunner", *words], cwd=folder, env=environment).returncode

    try:
        simulator = start(
            "simulate", "--median", "2", "--fault", "slow=1:0.4", "--clips", "tiny", stdout=subprocess.PIPE
        )
        assert simulator.stdout is not None
        base = simulator.stdout.readline().strip()
        environment["REAPI_BASE_URL"] = base
        call("run", "cluster.yaml", "--detach")
        workers = [start("worker", "--until-idle", "--quiet") for _ in range(2)]
        _until(lambda: _states(postgres).get("succeeded", 0) >= JOBS // 4)
        call("status")
        # The one that is sending, at that moment.
        _until(lambda: _sending(postgres) is not None)
        dead = _sending(postgres) or workers[0].pid
        os.kill(dead, signal.SIGKILL)
        print(f"\nprocess {dead} is killed (kill -9), with submissions on the wire; the other goes on", flush=True)
        _until(lambda: all(worker.poll() is not None for worker in workers))
        code = call("run", "cluster.yaml", "--detach")
        call("jobs", "--state", "unconfirmed")
        with urllib.request.urlopen(f"{base}/_simulator/account") as answer:
            account = json.load(answer)
        states = _states(postgres)
        print("\nthe ledger:  ", ", ".join(f"{n} {state}" for state, n in sorted(states.items())))
        print(
            f"the service:  {account['posts']} POSTs, {account['accepted']} tasks for {JOBS} jobs, "
            f"{account['charged']:,} credits charged; {account['downloads']} clips fetched"
        )
        if states.get("unconfirmed"):
            print(
                "An unconfirmed job was being sent by the one that was killed. Nobody can tell whether it was paid for,"
            )
            print("so nobody sends it again: `batchrunner resolve` is for a person who has looked.")
        if account["accepted"] > JOBS:
            print("A task was paid for twice: this must not be.")
            return 1
        return 0 if code in (0, 3) and set(states) <= {"succeeded", "unconfirmed"} else 1
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _states(postgres: Postgres) -> dict[str, int]:
    return dict(postgres.ask("SELECT state, count(*) FROM batchrunner.job GROUP BY state"))


def _sending(postgres: Postgres) -> int | None:
    """The process that has most submissions on the wire."""
    rows = postgres.ask(
        "SELECT w.pid FROM batchrunner.job j JOIN batchrunner.claim c ON c.job_id = j.id AND c.attempt = j.attempt "
        "JOIN batchrunner.worker w ON w.id = c.worker_id WHERE j.state = 'submitting' GROUP BY w.pid "
        "ORDER BY count(*) DESC LIMIT 1"
    )
    return rows[0][0] if rows else None


def _until(seen: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > end:
            raise SystemExit("the demo hangs")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
