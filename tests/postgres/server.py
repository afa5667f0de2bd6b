"""A PostgreSQL server of the tests' own: on a temporary folder and a free port, never as root, stopped at the end."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from batchrunner.ledger.address import Server

PATIENCE = 60.0
"""Seconds after which a server that should be up, or gone, hangs."""

SETTINGS = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "min_wal_size": "8MB",
    "max_wal_size": "64MB",
    "autovacuum": "off",
    "wal_level": "replica",
    "jit": "off",
    "log_min_messages": "fatal",
}

HBA = """\
host all guarded 127.0.0.1/32 scram-sha-256
host all all     127.0.0.1/32 trust
"""


def binaries() -> Path | None:
    """Where PostgreSQL's programs are; None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parent.parent.name))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return None if there is None else Path(os.path.realpath(there)).parent


def _as_nobody_special() -> list[str]:
    """What puts a command into another's hands: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    user = next((n for n in ("postgres", "nobody") if _known(n)), None)
    assert user is not None, "no user to run PostgreSQL as"
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--pdeathsig", "INT"]


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Postgres:
    """A server that is up."""

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"postgresql://owner@127.0.0.1:{self.port}/postgres"

    def ledger(self) -> Server:
        """The address of a ledger that is not there yet."""
        return Server(self.url, f"l{os.getpid()}_{next(self._numbers)}")

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run statements as the superuser; the rows of the last one."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start, or start again: in the main thread, as the server ends with the thread that has started it."""
        programs = binaries()
        assert programs is not None
        options = [word for name, value in {**SETTINGS, **self.settings}.items() for word in ("-c", f"{name}={value}")]
        command = [*_as_nobody_special(), str(programs / "postgres"), "-D", str(self.folder), "-p", str(self.port)]
        log = (self.folder.parent / "log").open("ab")
        self.process = subprocess.Popen([*command, *options], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"], check=False)
        for _ in range(int(PATIENCE * 20)):
            if self.process.poll() is not None:
                raise RuntimeError((self.folder.parent / "log").read_text("utf-8", "replace"))
            ready = subprocess.run(
                [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
            )
            if ready.returncode == 0:
                return
            _pause()
        raise RuntimeError("PostgreSQL did not start")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast. SIGQUIT: as if the power had failed."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(PATIENCE)
        self.process = None


def _pause() -> None:
    import time

    time.sleep(0.05)


@contextmanager
def running(
    settings: dict[str, str] | None = None, *, standby: bool = False, on_disk: bool = False
) -> Iterator[Postgres]:
    """A server for the tests in the block. In memory where the system has a place for that: it has to sync.

    Args:
        settings: its own, besides `SETTINGS`.
        standby: it never ends its recovery, as one that follows another server.
        on_disk: not in memory, whatever there is.
    """
    programs = binaries()
    assert programs is not None
    memory = Path("/dev/shm")
    root = Path(
        tempfile.mkdtemp(
            prefix="batchrunner-pg-", dir=memory if memory.is_dir() and _room(memory) and not on_disk else None
        )
    )
    try:
        os.chmod(root, 0o755)
        data = root / "data"
        data.mkdir(0o700)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres" if _known("postgres") else "nobody")
            os.chown(data, user.pw_uid, user.pw_gid)
        subprocess.run(
            [
                *_as_nobody_special(),
                str(programs / "initdb"),
                *("-D", str(data), "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "--wal-segsize=1"),
            ],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            env={**os.environ, "TZ": "UTC"},
        )
        (data / "pg_hba.conf").write_text(HBA)
        if standby:
            (data / "standby.signal").touch()
        server = Postgres(data, _free_port(), settings or {})
        server.start()
        try:
            yield server
        finally:
            if server.process is not None:
                server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _room(folder: Path) -> bool:
    return shutil.disk_usage(folder).free > 256 << 20


if __name__ == "__main__":  # a server to try things on
    with running() as up:
        print(up.url, flush=True)
        sys.stdin.read()
