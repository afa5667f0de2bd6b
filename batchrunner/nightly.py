"""A run every night: a systemd service and timer, the file for its key, and the same as a line for cron."""

from __future__ import annotations

import datetime
import glob
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .core.notice import Command, Mail, Sink, Webhook
from .exits import UsageError
from .ledger.address import Address
from .ledger.postgres.place import place
from .units import SYSTEM_SETTINGS, SYSTEM_UNITS, create, existing, path_value, program, word
from .units import owner as owner_of

if TYPE_CHECKING:
    from .manifest import Manifest

STARTS = 6
"""Starts within `WITHIN`, the timer's own included, before systemd gives up for the night."""

WITHIN = "12h"


@dataclass(frozen=True, slots=True)
class Nightly:
    """What runs, when, and where its files are. Paths are absolute.

    Attributes:
        batch: the batch; names the units.
        manifest, ledger: as the run is given them.
        folder: its current folder.
        outputs: what it writes to beside the ledger's folder.
        program: the words that start batchrunner.
        since, until: local times: begin, and be done.
        units: where the service and the timer go.
        settings: the file for the key.
        owner: whom a system service runs as; None for a service of the user's own manager.
        notify: whom the manifest tells: variables to be set, and mail, which the usual sendmail can't send from a
            sandbox.
    """

    batch: str
    manifest: Path
    ledger: Address
    folder: Path
    outputs: tuple[Path, ...]
    program: tuple[str, ...]
    since: datetime.time
    until: datetime.time
    units: Path
    settings: Path
    owner: str | None = None
    notify: tuple[Sink, ...] = ()

    @property
    def name(self) -> str:
        return f"batchrunner-{self.batch}"

    @property
    def _kept(self) -> Path:
        """The folder in which a run keeps what it may not lose."""
        return self.ledger.parent if isinstance(self.ledger, Path) else place("").parent

    @property
    def service_file(self) -> Path:
        return self.units / f"{self.name}.service"

    @property
    def timer_file(self) -> Path:
        return self.units / f"{self.name}.timer"

    @property
    def words(self) -> list[str]:
        """The command, word by word."""
        hours = ["--from", _hours(self.since), "--until", _hours(self.until)]
        return [*self.program, "run", str(self.manifest), "--db", str(self.ledger), *hours, "--wait-lock", "10m"]

    def write(self) -> list[Path]:
        """Write the files that are not there yet; returns which.

        Raises:
            UsageError: a unit is there already, a path can't stand in a unit, or a file can't be written.
        """
        units = {self.service_file: self.service(), self.timer_file: self.timer()}
        there = [str(path) for path in units if os.path.lexists(path)]
        if there:
            raise UsageError(f"{there[0]} exists and is never overwritten; remove it first, or name a folder with --to")
        written = []
        try:
            if not os.path.lexists(self.settings):
                self.settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                create(self.settings, self.key_file(), 0o600)
                written.append(self.settings)
            self.units.mkdir(parents=True, exist_ok=True)
            for path, text in units.items():
                create(path, text, 0o644)
                written.append(path)
        except OSError as error:
            raise UsageError(f"can't write {error.filename}: {error.strerror}") from None
        return written

    # --- The files ---------------------------------------------------------------------------------------

    def service(self) -> str:
        """The service, as systemd.service(5) and systemd.exec(5) have it."""
        online = "" if self.owner is None else "Wants=network-online.target\nAfter=network-online.target\n"
        user = "" if self.owner is None else f"User={self.owner}\n"
        return SERVICE.format(
            batch=self.batch,
            name=self.name,
            online=online,
            user=user,
            starts=STARTS,
            within=WITHIN,
            folder=path_value(self.folder),
            settings=path_value(Path(glob.escape(str(self.settings)))),
            command=" ".join(map(word, self.words)),
            sandbox=self._sandbox(),
        )

    def _sandbox(self) -> str:
        if any(isinstance(sink.way, Mail) for sink in self.notify):
            return (
                "# No sandbox: the manifest's notify: sends mail, and a sendmail that sets its group (Postfix) can't\n"
                "# write to its queue from one.\n"
            )
        if self.owner is None:
            return SANDBOX
        roots = dict.fromkeys(map(existing, (self._kept, *self.outputs)))
        return SANDBOX + SYSTEM_SANDBOX.format(paths=" ".join(word(str(root)) for root in roots))

    def timer(self) -> str:
        """The timer, as systemd.timer(5) has it."""
        return TIMER.format(batch=self.batch, since=self.since.isoformat())

    def key_file(self) -> str:
        """The file for the key, without one."""
        hooks = [s.way.url_env for s in self.notify if isinstance(s.way, Webhook) and s.way.url_env]
        more = [f"{name}=" for name in dict.fromkeys(hooks)]
        if any(isinstance(sink.way, Command) for sink in self.notify):
            more += ["# 1 lets the manifest's notify: run its command.", "BATCHRUNNER_ALLOW_COMMANDS=0"]
        return KEY_FILE.format(batch=self.batch) + "".join(f"{line}\n" for line in more)

    def cron(self) -> str:
        """The line for `crontab -e`, where a `%` would end the command (crontab(5))."""
        run = shlex.join([*self.words, "--quiet"])
        folder, settings = shlex.quote(str(self.folder)), shlex.quote(str(self.settings))
        command = f"cd {folder} && set -a && . {settings} && set +a && exec {run}".replace("%", r"\%")
        return f"{self.since.minute} {self.since.hour} * * *  {command}"


def install(
    manifest: Manifest,
    *,
    since: datetime.time,
    until: datetime.time,
    system: bool,
    to: Path | None,
    ledger: Address,
) -> Nightly:
    """What runs a manifest every night, from the current folder.

    Args:
        manifest: a valid one.
        since, until: local times.
        system: a service of the machine, run as the owner of the manifest's file; else of the user.
        to: the folder for all files; None for where systemd looks.
        ledger: absolute path.
    """
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    units, keys = (SYSTEM_UNITS, SYSTEM_SETTINGS) if system else (settings / "systemd/user", settings / "batchrunner")
    if to is not None:
        units = keys = Path(os.path.abspath(to))
    return Nightly(
        batch=manifest.batch,
        manifest=manifest.file,
        ledger=ledger,
        folder=Path.cwd(),
        outputs=(manifest.output_dir,) if isinstance(manifest.output_dir, Path) else (),
        program=program(),
        since=since,
        until=until,
        units=units,
        settings=keys / f"{manifest.batch}.env",
        owner=owner_of(manifest.file) if system else None,
        notify=manifest.notify,
    )


def _hours(time: datetime.time) -> str:
    return time.isoformat("minutes")


SERVICE = """\
# Made by `batchrunner init --nightly`, and yours to change. systemd-analyze verify checks it.
[Unit]
Description=batchrunner: a night of {batch}
{online}# A refused key is not tried all night.
StartLimitIntervalSec={within}
StartLimitBurst={starts}

[Service]
Type=exec
{user}WorkingDirectory={folder}
EnvironmentFile={settings}
ExecStart=:{command}

# Started again after ten minutes, outside its hours only to bring home what is in flight:
#   5 another runner holds the ledger, 6 no network (or a refused key), 70 a bug, and killed or out of memory.
# Not started again, since the next try would end the same or a person should look first:
#   1 some jobs failed, 2 the manifest or the command is wrong, 3 jobs are unconfirmed, 4 stopped early.
# No failure: 0, and 130 or 143 for somebody who stopped it.
Restart=on-failure
RestartSec=10min
RestartPreventExitStatus=1 2 3 4
SuccessExitStatus=130 143

# SIGTERM lets the submissions on the wire be answered (3 minutes at most, and half a minute to connect) and recorded
# (a minute at most, on a full disk); a second signal would not, and leave them unconfirmed.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=5min

StandardOutput=journal
StandardError=journal
SyslogIdentifier={name}

{sandbox}"""

SANDBOX = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""

SYSTEM_SANDBOX = """\
CapabilityBoundingSet=
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
ReadWritePaths={paths}
StateDirectory=batchrunner
Environment=XDG_STATE_HOME=%S
"""

TIMER = """\
# Made by `batchrunner init --nightly`, and yours to change.
[Unit]
Description=batchrunner: every night of {batch}

[Timer]
OnCalendar=*-*-* {since}
# A night that was missed is made up for at the next start; outside its hours that only brings home what is in flight.
Persistent=yes

[Install]
WantedBy=timers.target
"""

KEY_FILE = """\
# The environment of the nightly runs of {batch}.
# It has the key in it: keep it at mode 0600, and out of every repository.
REAPI_API_KEY=
"""
