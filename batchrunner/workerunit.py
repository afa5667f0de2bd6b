"""Workers as services of a host: a systemd template unit, and the file for their key and database."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from .exits import UsageError
from .ledger.address import Server
from .units import SYSTEM_SETTINGS, SYSTEM_UNITS, create, owner, path_value, program, word

NAME = "batchrunner-worker"

HOMES = frozenset({"home", "root"})
"""Folders of the root that ProtectHome= hides (systemd.exec(5))."""


@dataclass(frozen=True, slots=True)
class WorkerUnit:
    """What a host's workers run as. Paths are absolute.

    Attributes:
        ledger: in PostgreSQL.
        folder: where outputs go, under the same path on every host; its owner is whom the workers run as.
        program: the words that start batchrunner.
        units, settings: folders of the unit, and of the file for the key.
    """

    ledger: Server
    folder: Path
    program: tuple[str, ...]
    units: Path
    settings: Path

    @property
    def unit_file(self) -> Path:
        return self.units / f"{NAME}@.service"

    @property
    def key_file(self) -> Path:
        return self.settings / "worker.env"

    def write(self) -> list[Path]:
        """Write the files that are not there yet; returns which.

        Raises:
            UsageError: the unit is there already, a path can't stand in it, or a file can't be written.
        """
        unit = self.unit()
        if os.path.lexists(self.unit_file):
            raise UsageError(
                f"{self.unit_file} exists and is never overwritten; remove it first, or name a folder with --to"
            )
        written = []
        try:
            if not os.path.lexists(self.key_file):
                self.settings.mkdir(mode=0o700, parents=True, exist_ok=True)
                create(self.key_file, self.environment(), 0o600)
                written.append(self.key_file)
            self.units.mkdir(parents=True, exist_ok=True)
            create(self.unit_file, unit, 0o644)
            written.append(self.unit_file)
        except OSError as error:
            raise UsageError(f"can't write {error.filename}: {error.strerror}") from None
        return written

    def unit(self) -> str:
        """The unit, as systemd.service(5) and systemd.exec(5) have it."""
        inside = any(HOMES & {*path.parts[1:2]} for path in (self.folder, Path(self.program[0])))
        return UNIT.format(
            user=owner(self.folder),
            settings=path_value(Path(glob.escape(str(self.key_file)))),
            own_settings=path_value(Path(glob.escape(str(self.settings)))) + "/worker-%i.env",
            command=" ".join(map(word, [*self.program, "worker", "--quiet"])),
            folder=word(f"-{self.folder}"),
            home="no" if inside else "yes",
        )

    def environment(self) -> str:
        """The file for the key, without one; of the address no password."""
        return ENVIRONMENT.format(ledger=self.ledger)


def worker_unit(ledger: Server, to: Path | None) -> WorkerUnit:
    """What runs workers on this host, with outputs under the current folder.

    Args:
        ledger: where they share it.
        to: the folder for both files; None for where systemd looks.

    Raises:
        UsageError: that would be everything.
    """
    if Path.cwd() == Path("/"):
        raise UsageError("call it in the folder that outputs go under: that is what workers may write to")
    units, settings = (SYSTEM_UNITS, SYSTEM_SETTINGS) if to is None else (Path(os.path.abspath(to)),) * 2
    return WorkerUnit(ledger, Path.cwd(), program(), units, settings)


UNIT = """\
# Made by `batchrunner init --worker`, and yours to change. A worker for each instance: batchrunner-worker@1, @2, ...
# systemd-analyze verify and systemd-analyze security check it.
[Unit]
Description=batchrunner: worker %i
Wants=network-online.target
After=network-online.target postgresql.service
# It is started again however often: a database that restarts, or a key that is changed, is no reason to give up.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
# The key, the ledger's address, and the password: mode 0600. What one instance has for itself stands in its own file.
EnvironmentFile={settings}
EnvironmentFile=-{own_settings}
ExecStart=:{command}

# Whatever it ends with (4: no database, disk full; 5: a run has the ledger to itself; 6: the key was refused).
Restart=always
RestartSec=30s
SuccessExitStatus=143

# SIGTERM lets the submissions on the wire be answered (3 minutes at most, and half a minute to connect) and recorded;
# a second signal would not, and leave them unconfirmed.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=5min

# Task ids that the database could not take, kept for the next start; one folder for all instances of this host.
StateDirectory=batchrunner
StateDirectoryMode=0700
WorkingDirectory=%S/batchrunner
Environment=XDG_STATE_HOME=%S/batchrunner
# Where outputs go, under the same path on every host; not needed for a bucket.
ReadWritePaths={folder}

StandardOutput=journal
StandardError=journal
SyslogIdentifier=batchrunner-worker-%i

CapabilityBoundingSet=
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome={home}
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""

ENVIRONMENT = """\
# The environment of every worker of this host. It has secrets in it: keep it at mode 0600, and out of every repository.
BATCHRUNNER_DB={ledger}
PGPASSWORD=
REAPI_API_KEY=
# Whom this host tells of every batch that ends here, besides those whom the manifests name.
# BATCHRUNNER_NOTIFY=/etc/batchrunner/notify.yaml
"""
