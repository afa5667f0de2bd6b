"""Workers over PostgreSQL against the run over a file: submissions under a high limit, and a large batch recorded.

Every process shares the machine: the workers, the server, the provider double. So what is compared is CPU, transactions
and statements for each job, which hold on a busy machine too; the rate is what these cores give to all of them.
"""

from __future__ import annotations

import os
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.postgres.server import Postgres, binaries, running

from . import manifests
from .harness import Check, Context, Double, Failed, Result, Run, Unavailable, measure

RATE = 400
"""POSTs a second that the manifest allows."""

WORKERS = 2

PROTOTYPE = 315
"""POSTs a second that the prototype reached on a machine of its own: two workers, three bare steps."""

SERVER = {
    "shared_preload_libraries": "pg_stat_statements",
    "autovacuum": "on",
    "max_wal_size": "1GB",
    "shared_buffers": "128MB",
}

NOTES = """
The double takes the tasks at once and lets each run for four seconds or so. POST/s: from the first POST to the last.
CPU: of the whole processes, their start included, for each job; of the server, all of its processes. Transactions and
statements are the server's own counts, Procrastinate's included, of whole runs.

Recorded: the whole command, from the YAML file to its end, `run --detach` against `run --limit 1`; the second also
sends one job and follows it.
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers took for all jobs.

    Attributes:
        posting: seconds from the first POST to the last.
        cpu, server: CPU seconds of the workers, and of PostgreSQL.
        transactions, statements: that the server has done.
        costs: calls, milliseconds and text of the statements that took most.
    """

    posting: float
    cpu: float
    server: float
    transactions: int
    statements: int
    costs: list[tuple[int, float, str]]


def run(context: Context) -> Result:
    if binaries() is None:
        raise Unavailable("no PostgreSQL server here: apt-get install --no-install-recommends postgresql")
    jobs, many = context.pick(4_000, 400), context.pick(100_000, 3_000)
    result = Result(
        "workers",
        f"{jobs:,} jobs at {RATE} POST/s by {WORKERS} workers, and {many:,} recorded",
        notes=[" ".join(note.split()) for note in NOTES.strip().split("\n\n")],
    )
    load, room = os.getloadavg(), context.room("workers")
    with Double.started(median=4.0, sigma=0.3) as double, running(SERVER, on_disk=True) as postgres:
        postgres.ask("CREATE EXTENSION pg_stat_statements")
        sent = manifests.write(room / "sent.yaml", jobs, in_flight=4_000, per_minute=60 * RATE)
        shared = [_shared(context, double, postgres, room, sent, jobs) for _ in range(context.rounds)]
        alone = [_alone(context, double, room, sent) for _ in range(context.rounds)]
        double.reset()
        large = manifests.write(room / "large.yaml", many, in_flight=4_000, batch="large")
        there = [_recorded(context, double, room, large, postgres) for _ in range(context.rounds)]
        here = [_recorded(context, double, room, large) for _ in range(context.rounds)]
    result.notes.append(f"Load average at the start: {load[0]:.1f}, {load[2]:.1f} over 15 min; {os.cpu_count()} cores.")

    def each(of: str) -> float:
        return statistics.median(float(getattr(one, of)) for one in shared) / jobs

    def its(runs: list[Run], of: str) -> float:
        return statistics.median(float(getattr(one, of)) for one in runs)

    rate = 1.0 / each("posting")
    single = statistics.median(jobs / (one.told["last_post"] - one.told["first_post"]) for one in alone)
    result.table = [
        ("", f"{WORKERS} workers, PostgreSQL", "a run, SQLite"),
        ("POST/s", f"{rate:,.0f}", f"{single:,.0f}"),
        ("CPU ms a job", f"{1e3 * each('cpu'):.2f}", f"{1e3 * its(alone, 'cpu') / jobs:.2f}"),
        ("CPU ms a job, the server's", f"{1e3 * each('server'):.2f}", ""),
        ("transactions a job", f"{each('transactions'):.2f}", ""),
        ("statements a job", f"{each('statements'):.1f}", ""),
        (f"{many:,} recorded, s", f"{its(there, 'wall'):.1f}", f"{its(here, 'wall'):.1f}"),
        (f"{many:,} recorded, CPU s", f"{its(there, 'cpu'):.1f}", f"{its(here, 'cpu'):.1f}"),
    ]
    result.checks.append(Check("workers: POST/s; the prototype's", f"{rate:.0f}", str(PROTOTYPE)))
    costs = "; ".join(f"{calls / jobs:.2f} x {1e3 * ms / calls:.0f} us {sql}" for calls, ms, sql in shared[-1].costs)
    result.notes.append(f"The server's dearest statements, calls a job and time of each: {costs}.")
    return result


def _shared(context: Context, double: Double, postgres: Postgres, room: Path, manifest: Path, jobs: int) -> Shared:
    """Hand over, and let workers do it."""
    server, folder = postgres.ledger(), _fresh(room)
    env = {**context.env(double), "BATCHRUNNER_DB": f"{server.url}?schema={server.schema}"}
    env["XDG_STATE_HOME"] = str(folder / "state")
    shutil.copy(manifest, folder / "jobs.yaml")
    measure(context.batchrunner("run", "jobs.yaml", "--detach", "--quiet"), folder, env)
    postgres.ask("SELECT pg_stat_statements_reset()")
    double.mark()
    before = _used(postgres), _transactions(postgres)
    command = context.batchrunner("worker", "--until-idle", "--quiet")
    with ThreadPoolExecutor(WORKERS) as threads:
        runs = list(threads.map(lambda _: measure(command, folder, env), range(WORKERS)))
    told = double.told()
    done = postgres.ask(f"SELECT count(*) FROM \"{server.schema}\".job WHERE state = 'succeeded'")[0][0]
    if done != jobs or told["accepted"] != jobs:
        raise Failed(f"{done} of {jobs} have succeeded, {told['accepted']} were accepted")
    top = "FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_%'"
    costs = postgres.ask(f"SELECT calls, total_exec_time, left(query, 60) {top} ORDER BY total_exec_time DESC LIMIT 12")
    return Shared(
        told["last_post"] - told["first_post"],
        sum(one.cpu for one in runs),
        _used(postgres) - before[0],
        _transactions(postgres) - before[1],
        int(postgres.ask(f"SELECT sum(calls) {top}")[0][0]),
        [(calls, ms, " ".join(sql.split())) for calls, ms, sql in costs],
    )


def _alone(context: Context, double: Double, room: Path, manifest: Path) -> Run:
    """The same by one run with a ledger in a file."""
    folder = _fresh(room)
    shutil.copy(manifest, folder / "jobs.yaml")
    command = context.batchrunner("run", "jobs.yaml", "--quiet", "--db", "jobs.db")
    return measure(command, folder, context.env(double), double=double)


def _recorded(context: Context, double: Double, room: Path, manifest: Path, postgres: Postgres | None = None) -> Run:
    """Record a large manifest: in PostgreSQL, for workers, or in a file."""
    folder = _fresh(room)
    shutil.copy(manifest, folder / "large.yaml")
    env = {**context.env(double), "XDG_STATE_HOME": str(folder / "state")}
    if postgres is None:
        command = context.batchrunner("run", "large.yaml", "--quiet", "--limit", 1, "--db", "large.db")
        return measure(command, folder, env, codes=(4,))
    server = postgres.ledger()
    command = context.batchrunner("run", "large.yaml", "--quiet", "--detach")
    return measure(command, folder, {**env, "BATCHRUNNER_DB": f"{server.url}?schema={server.schema}"})


def _fresh(room: Path) -> Path:
    folder = room / "room"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _transactions(postgres: Postgres) -> int:
    sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return int(postgres.ask(sql)[0][0])


def _used(postgres: Postgres) -> float:
    """CPU seconds of the server so far: of its first process, those that it has waited for, and those that live."""
    assert postgres.process is not None
    first = postgres.process.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    found = 0
    for pid in (first, *children):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found += sum(map(int, fields[11:15] if pid == first else fields[11:13]))
    return found / os.sysconf("SC_CLK_TCK")
