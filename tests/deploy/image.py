"""The image's own steps without a container engine: `make deploy-check`.

What the Containerfile copies, and nothing else, is installed by the command that it says. From that, workers do a batch
on a PostgreSQL with `deploy/`'s roles, as somebody who may write to /state, /nights and /tmp only; one is drained.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.postgres.server import Postgres, binaries, running

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NOBODY = 65534
PATIENCE = 120.0
JOBS = 40

MANIFEST = f"""\
version: 1
batch: night
defaults: {{model: kling-3-0-turbo, duration: 5}}
limits: {{submits_per_minute: 240, in_flight: 10}}
shots:
  - {{id: dog, prompt: a dog on a boat, takes: {JOBS}}}
"""


def main() -> int:
    if binaries() is None:
        print("no PostgreSQL server here: apt-get install --no-install-recommends postgresql", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="batchrunner-image-") as name, running() as postgres:
        root = Path(name)
        root.chmod(0o755)
        program = build(root)
        play(root, program, postgres)
    return 0


def build(root: Path) -> Path:
    """The first stage; returns where batchrunner was installed."""
    stage = (DEPLOY / "Containerfile").read_text().split("\nFROM ")[1].replace("\\\n", " ")
    source = root / "src"
    source.mkdir()
    for words in re.findall(r"^COPY (.*)$", stage, re.MULTILINE):
        *files, target = words.split()
        for file in files:
            there = source / (f"{target}/{Path(file).name}" if target.endswith(("/", ".")) else target)
            there.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / file).is_dir():
                shutil.copytree(ROOT / file, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / file, there)
    [command] = re.findall(r"^RUN (.*)$", stage, re.MULTILINE)
    made = root / "opt"
    command = command.replace("python -m venv", f"{python()} -m venv").replace("/opt/batchrunner", str(made))
    print(f"$ {command}", flush=True)
    subprocess.run(["sh", "-ec", f"PIP_QUIET=1; export PIP_QUIET; {command}"], cwd=source, check=True)
    shutil.rmtree(source)  # as in the image: what was installed does not need it
    return made / "bin"


def python() -> str:
    """A Python that others than we can run, too; ours where there is no other."""
    there = Path(sys.executable).resolve()
    open_to_all = all(folder.stat().st_mode & 0o001 for folder in there.parents)
    system = Path("/usr/bin/python3")
    return sys.executable if open_to_all or not system.exists() else str(system)


def play(root: Path, program: Path, postgres: Postgres) -> None:
    """A batch by two workers, the first of which is drained in the middle."""
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGDATABASE": "night"}
    base = {"PATH": f"{program}:/usr/bin:/bin", **where}
    for folder in ("state", "nights", "tmp"):
        (root / folder).mkdir()
        os.chown(root / folder, NOBODY, NOBODY)
    base |= {"BATCHRUNNER_DB": "postgresql://", "TMPDIR": str(root / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    base |= {"HOME": str(root / "state"), "XDG_STATE_HOME": str(root / "state")}
    (root / "nights/night.yaml").write_text(MANIFEST)
    (root / "key").write_text("rk_simulated\n")
    postgres.ask("CREATE DATABASE night")
    superuser = postgres.url.replace("/postgres", "/night")
    script(superuser, "roles.sql")

    def start(role: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
        print(f"$ batchrunner {' '.join(words)}    # as {role}", flush=True)
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        entry = [*drop, str(DEPLOY / "entrypoint.sh"), "batchrunner", *words]
        environment = {**base, "PGUSER": f"batchrunner_{role}", **more}
        return subprocess.Popen(entry, cwd=root / "nights", env=environment, stdin=subprocess.DEVNULL)

    def call(role: str, *words: str) -> None:
        assert start(role, *words).wait(PATIENCE) == 0, words

    simulator = subprocess.Popen(
        [program / "batchrunner", "simulate", "--median", "1", "--clips", "tiny"],
        cwd=root,
        env=base,
        stdout=subprocess.PIPE,
        text=True,
    )
    workers: list[subprocess.Popen[bytes]] = []
    try:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().strip()
        call("owner", "ledger", "migrate")
        script(superuser.replace("owner@", "batchrunner_owner@"), "rights.sql")
        call("runner", "run", "night.yaml", "--detach", "--quiet")

        def worker() -> None:
            words = ("worker", "--until-idle", "--quiet")
            workers.append(start("worker", *words, REAPI_BASE_URL=url, REAPI_API_KEY_FILE=str(root / "key")))

        worker()
        until(lambda: count(postgres, "state = 'succeeded'") >= JOBS // 8)
        workers[0].send_signal(signal.SIGTERM)
        print(f"drained: it ended with {workers[0].wait(PATIENCE)}", flush=True)
        assert workers[0].returncode == 143
        assert count(postgres, "state IN ('submitting', 'unconfirmed')") == 0
        worker()
        assert workers[1].wait(PATIENCE) == 0
        call("onlooker", "status")
        assert count(postgres, "state = 'succeeded'") == JOBS
        mine = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.lstat().st_uid == NOBODY}
        assert mine <= {"state", "nights", "tmp"}
        print(f"{JOBS} outputs; nothing was written but to {', '.join(sorted(mine))}")
    finally:
        for worker_ in workers:
            worker_.kill()
            worker_.wait()
        simulator.kill()
        simulator.wait()
        if simulator.stdout is not None:
            simulator.stdout.close()


def script(url: str, name: str) -> None:
    print(f"$ psql -f deploy/{name}", flush=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((DEPLOY / name).read_bytes())


def count(postgres: Postgres, condition: str) -> int:
    with psycopg.connect(postgres.url.replace("/postgres", "/night"), autocommit=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM batchrunner.job WHERE {condition}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
